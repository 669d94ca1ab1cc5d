"""The files of a journal: whose they are, and what is left of them."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from storage.errors import AccessDenied, Invalid
from storage.lsm.journal import files as files_module
from storage.lsm.journal.files import FolderFiles, lies_in_memory

URL, ID, OTHER = "file:///store", b"1" * 16, b"2" * 16


def test_what_one_left_the_next_one_takes(memory: Path) -> None:
    first = FolderFiles(memory, URL)
    first.begin(ID)
    first.append(1, [b"ab", memoryview(b"c"), b"" * 3])
    first.append(1, [b"d"])
    first.append(2, [b"x"] * 3000)
    second = FolderFiles(memory, URL)
    assert not second.take(ID), "a living process has it"
    first.leave()
    assert not second.take(OTHER)
    assert second.take(ID)
    assert second.take(ID), "it has it already"
    assert second.segments() == [1, 2]
    assert second.read(1) == b"abcd"
    assert second.read(2) == b"x" * 3000
    second.cut(1, 2)
    assert second.read(1) == b"ab"
    second.remove(1)
    assert second.segments() == [2]
    second.end()
    assert list(memory.iterdir()) == []
    assert not FolderFiles(memory, URL).take(ID)


def test_nobody_else_can_read_it(memory: Path) -> None:
    folder = memory / "made"
    files = FolderFiles(folder, URL)
    files.begin(ID)
    files.append(1, [b"what a client wrote"])
    for path in (folder, *folder.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    files.end()
    folder.chmod(0o777)
    with pytest.raises(AccessDenied):
        FolderFiles(folder, URL)


def test_another_boot_or_store_or_one_without_a_head_is_not_taken(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FolderFiles(memory, URL)
    files.begin(ID)
    files.leave()
    assert not FolderFiles(memory, "file:///other").take(ID)
    with monkeypatch.context() as patch:
        patch.setattr(files_module, "boot", lambda: "another life")
        assert not files.take(ID)
    assert files.take(ID)
    files.leave()
    (head,) = memory.rglob("head")
    head.unlink()
    assert not files.take(ID)


def test_others_are_set_aside_and_leftovers_removed(memory: Path) -> None:
    living, left, mine = (FolderFiles(memory, URL) for _ in range(3))
    for files, name in ((living, b"a" * 16), (left, b"b" * 16)):
        files.begin(name)
        files.append(1, [name])
    left.leave()
    FolderFiles(memory, "file:///other").begin(OTHER)
    mine.begin(ID)
    (memory / f"{next(memory.rglob('head')).parent.name.partition('-')[0]}-00.journal").mkdir()
    before = {path.name for path in memory.iterdir()}
    where = mine.set_aside()
    assert where is not None
    assert (Path(where) / f"{1:020}.segment").read_bytes() == b"b" * 16
    assert len(before) - len(list(memory.iterdir())) == 1
    assert mine.set_aside() is None
    assert not left.take(b"b" * 16)
    mine.append(1, [b"goes on"])
    living.append(2, [b"goes on"])


def test_a_segment_that_is_there_is_never_written_over(memory: Path) -> None:
    files = FolderFiles(memory, URL)
    files.begin(ID)
    files.append(1, [b"a"])
    files.append(2, [b"b"])
    with pytest.raises(FileExistsError):
        files.append(1, [b"c"])
    assert files.read(1) == b"a"


def test_a_disk_is_no_memory(memory: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        if lies_in_memory(Path(folder)):
            pytest.skip("all folders for temporary files lie in memory here")
        with pytest.raises(Invalid, match="tmpfs"):
            FolderFiles(Path(folder) / "journal", URL)
    assert lies_in_memory(memory)


def test_what_the_kernel_takes_in_part_is_written_whole(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, parts: whole(fd, [b"".join(parts)[:3]]))
    files = FolderFiles(memory, URL)
    files.begin(ID)
    files.append(1, [b"", b"abcd", b"efghij"])
    assert files.read(1) == b"abcdefghij"
