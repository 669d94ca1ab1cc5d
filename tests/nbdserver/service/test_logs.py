"""A log file on a full disk: what it does not take is counted, and it can be left for a new one."""

import logging
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbdserver.service.log_outlets import LOST, StandardError
from nbdserver.service.logs import LogFile, PlainFormatter, reopen_files

FULL = 4000
"""No file of this process may be larger: that fails in the middle of a line, as a full disk does."""

MORE = "x" * 100


@pytest.fixture
def limit() -> Iterator[Callable[[int], None]]:
    """Sets how large a file may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def emit_all(handler: logging.Handler, first: int, after: int) -> None:
    for number in range(first, after):
        handler.handle(logging.makeLogRecord({"name": "nbdserver", "levelname": "INFO", "msg": f"n{number}{MORE}"}))


def lost_in(lines: list[str]) -> int:
    return sum(int(line.rpartition("count=")[2].split()[0]) for line in lines if LOST in line)


@pytest.mark.parametrize("kind", ["file", "standard error"])
def test_what_a_full_disk_does_not_take_is_counted(
    kind: str, tmp_path: Path, limit: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    with path.open("a") as written:
        monkeypatch.setattr(sys, "stderr", written)
        fill(LogFile(path) if kind == "file" else StandardError(), path, limit)


def fill(handler: logging.Handler, path: Path, limit: Callable[[int], None]) -> None:
    handler.setFormatter(PlainFormatter())
    limit(FULL)
    emit_all(handler, 0, 100)
    assert path.stat().st_size == FULL
    limit(FULL * 100)
    emit_all(handler, 100, 101)
    lines = path.read_text().splitlines()
    whole = [line for line in lines if line.endswith(MORE)]
    assert len(whole) + 1 == len(lines), "no line is torn, and one tells of those that were lost"
    assert lost_in(lines) == 101 - len(whole)
    assert f" n100{MORE}" in lines[-1]
    handler.close()


def test_a_file_whose_disk_is_full_is_left_for_a_new_one(tmp_path: Path, limit: Callable[[int], None]) -> None:
    """Else the deleted one would keep its space, and nobody read what comes."""
    path = tmp_path / "log"
    handler = LogFile(path)
    handler.setFormatter(PlainFormatter())
    logging.getLogger().addHandler(handler)
    try:
        limit(FULL)
        emit_all(handler, 0, 100)
        with path.open() as old:
            whole = sum(line.endswith(f"{MORE}\n") for line in old)
        path.unlink()
        reopen_files()
    finally:
        logging.getLogger().removeHandler(handler)
    emit_all(handler, 100, 101)
    lines = path.read_text().splitlines()
    assert LOST in lines[0]
    assert lost_in(lines) == 100 - whole, "the one that is torn too"
    assert f" n100{MORE}" in lines[-1]
    held = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert f"{path} (deleted)" not in held
    handler.close()


def test_a_line_for_one_that_is_closed_goes_nowhere(tmp_path: Path) -> None:
    """A thread may still have one, and its descriptor may be another's by now."""
    handler = LogFile(tmp_path / "log")
    handler.close()
    handler.close()
    with (tmp_path / "other").open("w"):
        emit_all(handler, 0, 1)
    assert (tmp_path / "other").read_text() == ""
