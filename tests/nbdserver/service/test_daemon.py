"""A process in the background: who waits for it, and the pid file that names it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbdserver.service.daemon import remove_pid_file, write_pid_file
from storage.errors import AccessDenied
from tests.support.processes import until
from tests.support.program import REPOSITORY

IN_THE_BACKGROUND = """
import contextlib, pathlib, sys, time
from nbdserver.service.daemon import detach

folder = pathlib.Path(sys.argv[1])

def child(ready):
    (folder / "begun").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    with contextlib.suppress(OSError):
        print("ready")
    try:
        ready()
    except BrokenPipeError:
        (folder / "nobody").touch()
    return 0

sys.exit(detach(child))
"""


def test_who_waits_for_a_process_in_the_background_may_be_gone(tmp_path: Path) -> None:
    """It hears of it, and goes on as it wants."""
    waiting = in_the_background(tmp_path)
    waiting.kill()
    waiting.wait()
    (tmp_path / "go").touch()
    until(lambda: (tmp_path / "nobody").exists(), seconds=60, what="its word that nobody waits")


def test_a_terminal_that_is_gone_keeps_nobody_waiting(tmp_path: Path) -> None:
    """What was printed goes nowhere, and who waits hears that the process is ready."""
    reader, writer = os.pipe()
    waiting = in_the_background(tmp_path, stdout=writer)
    os.close(writer)
    os.close(reader)
    (tmp_path / "go").touch()
    assert waiting.wait(60) == 0
    assert not (tmp_path / "nobody").exists()


def in_the_background(folder: Path, stdout: int | None = None) -> "subprocess.Popen[bytes]":
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    waiting = subprocess.Popen(
        [sys.executable, "-c", IN_THE_BACKGROUND, str(folder)], stdout=stdout, env=buffered, cwd=REPOSITORY
    )
    until(lambda: (folder / "begun").exists(), seconds=60, what="the process")
    return waiting


def test_a_pid_file_is_ours_and_goes_with_us(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    write_pid_file(path)
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    path.write_text("1\n")
    remove_pid_file(path)
    assert path.read_text() == "1\n", "another server's"
    write_pid_file(path)
    remove_pid_file(path)
    assert os.listdir(tmp_path) == []
    remove_pid_file(path)


def test_a_pid_file_is_written_through_no_link(tmp_path: Path) -> None:
    path, target = tmp_path / "pid", tmp_path / "target"
    target.write_text("precious")
    for name in ("pid", "pid.new", f".pid.{os.getpid()}"):
        (tmp_path / name).symlink_to(target)
    write_pid_file(path)
    assert target.read_text() == "precious"
    path.unlink()
    path.symlink_to(target)
    target.write_text(f"{os.getpid()}\n")
    remove_pid_file(path)
    assert path.is_symlink(), "whose it is cannot be told"


def test_a_pid_file_that_others_could_exchange_is_not_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(AccessDenied, match=r"pid file .* would not be safe"):
        write_pid_file(tmp_path / "pid")
    assert os.listdir(tmp_path) == []
