"""The pid file: whom it may be trusted to name."""

import os
from pathlib import Path

import pytest

from nbdserver.service.daemon import remove_pid_file, write_pid_file
from storage.errors import AccessDenied


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
