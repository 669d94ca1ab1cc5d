"""The files of a journal: whose they are, and what is left of them."""

import resource
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from storage.crypto.memory_cipher import MemoryCipher
from storage.errors import AccessDenied, Invalid
from storage.format.journal_batch import decode
from storage.journal import files as files_module
from storage.journal.files import (
    SPARE_BYTES_MAX,
    SPARES_KEPT,
    SPARES_MAX,
    TRIMMED_MAX,
    FolderFiles,
    lies_in_memory,
)
from storage.secret import Secret
from tests.storage.objects.children import child, finish
from tests.support.requirements import require

URL, ID, OTHER = "file:///store", b"1" * 16, b"2" * 16


def test_what_one_left_the_next_one_takes(memory: Path) -> None:
    first = FolderFiles(memory, URL)
    first.begin(ID, 1)
    for number in (1, 2, 3):
        first.map(number, 100)[50:54] = b"abc%d" % number
    first.remove(2)
    second = FolderFiles(memory, URL)
    assert second.take(ID) == "held", "a living process has it"
    first.leave()
    assert second.take(OTHER) == "gone"
    assert second.take(ID) == "taken"
    assert second.take(ID) == "taken", "it has it already"
    assert second.segments() == [1, 3]
    assert second.read(1)[50:54] == b"abc1"
    assert not list(memory.rglob("*.spare")), "it would take room for nothing"
    second.map(4, 100)
    second.remove(1)
    assert second.segments() == [3, 4]
    second.end()
    assert list(memory.iterdir()) == []
    assert FolderFiles(memory, URL).take(ID) == "gone"


def test_nobody_else_can_read_it(memory: Path) -> None:
    folder = memory / "made"
    files = FolderFiles(folder, URL)
    files.begin(ID, 1)
    files.map(1, 100)[50:69] = b"what a client wrote"
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
    files.begin(ID, 1)
    files.leave()
    assert FolderFiles(memory, "file:///other").take(ID) == "gone"
    with monkeypatch.context() as patch:
        patch.setattr(files_module, "boot", lambda: "another life")
        assert files.take(ID) == "gone"
    assert files.take(ID) == "taken"
    files.leave()
    (head,) = memory.rglob("head")
    head.unlink()
    assert files.take(ID) == "gone"


def test_the_memory_of_one_that_was_dropped_is_taken_for_the_next(memory: Path) -> None:
    files = FolderFiles(memory, URL)
    files.begin(ID, 1)
    for number in range(1, SPARES_MAX + 3):
        files.map(number, 100)[50:55] = b"dirty"
    (folder,) = memory.iterdir()
    before = {path.stat().st_ino for path in folder.glob("*.segment")}
    for number in range(1, SPARES_MAX + 3):
        files.remove(number)
    assert files.segments() == []
    assert len(list(folder.glob("*.spare"))) == SPARES_MAX
    other = files.map(2000, 200)
    assert len(list(folder.glob("*.spare"))) == SPARES_MAX, "none of them has that size"
    mapped = files.map(2100, 100)
    assert {path.stat().st_ino for path in folder.glob("*2100.segment")} <= before
    assert files.read(2100) == bytes(mapped)
    assert decode("a segment", files.read(2100), MemoryCipher(Secret(bytes(32))), 2100) == []
    other[:4] = b"same"
    assert files.read(2000)[:4] == b"same"
    assert files.segments() == [2000, 2100]


def test_memory_that_no_segment_took_lately_is_given_back_piece_by_piece(memory: Path) -> None:
    files = FolderFiles(memory, URL)
    files.begin(ID, 1)
    (folder,) = memory.iterdir()

    def spares() -> int:
        return len(list(folder.glob("*.spare")))

    for number in range(1, SPARES_MAX + 1):
        files.map(number, 100)
    for number in range(1, SPARES_MAX + 1):
        files.remove(number)
    assert files.trim()
    assert spares() == SPARES_MAX, "all of it was in use since"
    taken = SPARES_MAX - TRIMMED_MAX // 2
    for number in range(1000, 1000 + taken):
        files.map(number, 100)
    for number in range(1000, 1000 + taken):
        files.remove(number)
    assert files.trim()
    left = SPARES_MAX - TRIMMED_MAX // 2
    assert spares() == left, "only what nobody took goes"
    more = True
    while more:
        more, left = files.trim(), max(left - TRIMMED_MAX, SPARES_KEPT)
        assert spares() == left, "no more at once: each takes a millisecond of the event loop"
    assert spares() == SPARES_KEPT
    assert not files.trim()
    files.map(2200, 100)
    assert spares() == SPARES_KEPT - 1


def test_the_memory_of_a_large_one_is_given_back(memory: Path) -> None:
    """Operations of many sizes would fill all there is with segments that fit none of them."""
    files = FolderFiles(memory, URL)
    files.begin(ID, 1)
    for number, size in enumerate((SPARE_BYTES_MAX, SPARE_BYTES_MAX + 1, 2 * SPARE_BYTES_MAX), 1):
        files.map(number, size)
        files.remove(number)
    (spare,) = memory.rglob("*.spare")
    assert spare.stat().st_size == SPARE_BYTES_MAX


def test_memory_that_is_not_there_is_told_before_anything_is_written(memory: Path) -> None:
    """A store to mapped memory that tmpfs has not would end the process."""
    files = FolderFiles(memory, URL)
    files.begin(ID, 1)
    files.map(1, 10 << 20)
    (segment,) = memory.rglob("*.segment")
    assert segment.stat().st_blocks * 512 >= 10 << 20
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.map(2, 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files.segments() == [1]
    assert not list(memory.rglob("*.spare"))
    files.map(2, 100)


SMALL = """
import subprocess
from pathlib import Path
from storage.journal.files import FolderFiles
MIB = 1 << 20
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m,mode=0700", "none", folder], check=True)
files = FolderFiles(Path(folder), "file:///store")
files.begin(b"1" * 16, 1)
written = [files.map(number, 4 * MIB) for number in range(1, 5)]
for number in range(1, 5):
    files.remove(number)
large = files.map(5, 18 * MIB)
large[18 * MIB - 1] = 1
files.remove(5)
files.map(6, 18 * MIB)[18 * MIB - 1] = 1
try:
    files.map(7, 4 * MIB)
except OSError:
    assert files.segments() == [6]
    print("done")
"""


def test_memory_kept_for_others_is_no_reason_to_turn_a_large_one_away(tmp_path: Path) -> None:
    """On a small tmpfs, as of a container: what was dropped makes room, also while its writer still holds it."""
    require("unshare", "mount")
    under = ("unshare", "--mount", "--map-root-user")
    if subprocess.run([*under, "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        require("the right to mount in a namespace")
    assert finish(child(SMALL, tmp_path, under=under)) == "done\n"


def test_each_segment_is_a_new_one(memory: Path) -> None:
    files = FolderFiles(memory, URL)
    files.begin(ID, 1)
    files.map(1, 100)[50:51] = b"a"
    files.leave()
    assert files.take(ID) == "taken"
    with pytest.raises(FileExistsError):
        files.map(1, 100)
    assert files.read(1)[50:51] == b"a"


class KilledHere(Exception):
    """In the place of a kill."""


def killed(*_: object, **__: object) -> None:
    raise KilledHere


def test_a_kill_while_memory_is_used_again_leaves_nothing_of_what_was_in_it(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment with the batches of another one would pass for damaged, and the journal with it."""
    files = FolderFiles(memory, URL)
    files.begin(ID, 1)
    files.map(1, 100)[:] = b"d" * 100
    files.remove(1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)  # the next step behind the name of the segment
        with pytest.raises(KilledHere):
            files.map(2, 100)
    files.leave()
    again = FolderFiles(memory, URL)
    assert again.take(ID) == "taken"
    assert again.segments() == [2]
    assert decode("a segment", again.read(2), MemoryCipher(Secret(bytes(32))), 2) == []


def test_a_kill_while_one_ends_leaves_none_that_passes_for_whole(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FolderFiles(memory, URL)
    files.begin(ID, 1)
    files.map(1, 100)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KilledHere):
            files.end()
    assert FolderFiles(memory, URL).take(ID) == "gone"


def test_one_that_begins_anew_has_nothing_of_the_one_before(memory: Path) -> None:
    """As when there was no room for a while: memory that was kept went with it."""
    files = FolderFiles(memory, URL)
    files.begin(ID, 1)
    files.map(1, 100)
    files.remove(1)
    files.end()
    files.begin(ID, 1)
    files.map(2, 100)[:4] = b"here"
    assert files.read(2)[:4] == b"here"
    assert files.segments() == [2]


def test_a_disk_is_no_memory(memory: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        if lies_in_memory(Path(folder)):
            pytest.skip("all folders for temporary files lie in memory here")
        with pytest.raises(Invalid, match="tmpfs"):
            FolderFiles(Path(folder) / "journal", URL)
    assert lies_in_memory(memory)
