"""What becomes of the journals that others left: set aside, or left as they are, whatever happens meanwhile."""

import os
from pathlib import Path

import pytest

from storage.journal import files as files_module
from storage.journal.files import FolderFiles
from storage.trusted_files import open_own
from tests.storage.journal.test_files import ID, OTHER, URL


def test_others_are_set_aside_and_leftovers_removed(memory: Path) -> None:
    living, left, mine = (FolderFiles(memory, URL) for _ in range(3))
    for files, name in ((living, b"a" * 16), (left, b"b" * 16)):
        files.begin(name, 1)
        files.map(1, 100)[50:66] = name
    left.leave()
    FolderFiles(memory, "file:///other").begin(OTHER, 1)
    mine.begin(ID, 1)
    (memory / f"{next(memory.rglob('head')).parent.name.partition('-')[0]}-00.journal").mkdir()
    before = {path.name for path in memory.iterdir()}
    where = mine.set_aside(epoch=None)
    assert where is not None
    assert (Path(where) / f"{1:020}.segment").read_bytes()[50:66] == b"b" * 16
    assert len(before) - len(list(memory.iterdir())) == 1
    assert mine.set_aside(epoch=None) is None
    assert left.take(b"b" * 16) == "gone"
    mine.map(1, 100)
    living.map(2, 100)


def test_one_of_a_later_writer_is_not_set_aside(memory: Path) -> None:
    """Which took the store while this one stood still, and was killed: the next writer goes on with it."""
    mine = FolderFiles(memory, URL)
    mine.begin(ID, 3)
    for name, epoch in ((b"a" * 16, 2), (b"b" * 16, 3), (b"c" * 16, 4)):
        left = FolderFiles(memory, URL)
        left.begin(name, epoch)
        left.leave()
    assert mine.set_aside(epoch=3) is not None
    assert [FolderFiles(memory, URL).take(name * 16) for name in (b"a", b"b", b"c")] == ["gone", "gone", "taken"]


def test_one_that_begins_anew_meanwhile_is_not_set_aside(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned off and on again, it is in the same place: what is there now is not what was looked at."""
    mine, living = FolderFiles(memory, URL), FolderFiles(memory, URL)
    mine.begin(OTHER, 1)
    living.begin(ID, 1)

    def begin_anew(path: Path, flags: int) -> int:
        opened = open_own(path, flags)
        living.end()
        living.begin(ID, 1)
        living.map(2, 100)
        return opened

    with monkeypatch.context() as patch:
        patch.setattr(files_module, "open_own", begin_anew)
        assert mine.set_aside(epoch=None) is None
    assert FolderFiles(memory, URL).take(ID) == "held"
    living.leave()
    assert living.take(ID) == "taken"
    assert living.segments() == [2]


@pytest.mark.parametrize("seen", [True, False])
def test_of_one_that_had_ended_nothing_newer_goes(memory: Path, monkeypatch: pytest.MonkeyPatch, seen: bool) -> None:
    """It begins anew right before or behind the moment at which the files in its folder are looked at."""
    mine, living = FolderFiles(memory, URL), FolderFiles(memory, URL)
    mine.begin(OTHER, 1)
    living.begin(ID, 1)
    living.map(1, 100)
    folder = next(path for path in memory.iterdir() if ID.hex() in path.name)
    (folder / "head").unlink()
    look = os.listdir

    def begin_anew(path: Path) -> list[str]:
        names = look(path)
        if path == folder:
            living.begin(ID, 1)
            living.map(2, 100)
        return look(path) if seen else names

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", begin_anew)
        assert mine.set_aside(epoch=None) is None
    living.leave()
    assert living.take(ID) == "taken"
    assert living.segments() == [2]


def test_memory_that_is_kept_for_others_is_not_set_aside(memory: Path) -> None:
    left, mine = FolderFiles(memory, URL), FolderFiles(memory, URL)
    left.begin(ID, 1)
    for number in (1, 2, 3):
        left.map(number, 100)
    left.remove(2)
    left.leave()
    mine.begin(OTHER, 1)
    where = mine.set_aside(epoch=None)
    assert where is not None
    assert sorted(path.name for path in Path(where).iterdir()) == [f"{1:020}.segment", f"{3:020}.segment", "head"]
