"""What a host remembers of a store, over a power cut: what is synced before what; and which of several files counts."""

import fcntl
import os
from pathlib import Path

import msgspec
import pytest

from storage.errors import AccessDenied
from storage.lsm.recovery.anchor import Anchor, HostState
from storage.lsm.recovery.locks import leave_note, read_note

TAG = bytes(range(16))
LOCK = f"writer-3-{TAG.hex()}"


def anchor(epoch: int) -> Anchor:
    return Anchor(store_id=b"s" * 16, manifest_number=7, manifest_tag=TAG, epoch=epoch, wal_number=42, exact=True)


@pytest.fixture
def state(tmp_path: Path) -> HostState:
    host = HostState(tmp_path / "state", "s3://bucket/store")
    host.save_memory("reads", b"")  # makes the folders
    return host


@pytest.fixture
def steps(state: HostState, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is locked, synced and renamed from now on, in order; the store's folder is `.`."""
    seen = list[str]()
    sync, rename, lock = os.fsync, os.rename, fcntl.flock

    def name_of(descriptor: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return "." if path.is_dir() else path.name

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        seen.append(f"sync {name_of(descriptor)}")

    def renamed(source: Path, target: Path) -> None:
        rename(source, target)
        seen.append(f"rename to {Path(target).name}")

    def flock(descriptor: int, operation: int) -> None:
        lock(descriptor, operation)
        seen.append(f"lock {name_of(descriptor)}")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(fcntl, "flock", flock)
    return seen


def test_an_anchor_is_durable_under_its_name(state: HostState, steps: list[str]) -> None:
    state.save(anchor(3))
    assert steps == ["sync anchor-3.tmp", "rename to anchor-3.json", "sync ."]


def test_a_claim_is_locked_before_it_has_its_name_and_durable_before_a_manifest_is_sent(
    state: HostState, steps: list[str]
) -> None:
    """Seen unlocked it would be that of a process which has ended, and two would write to the store."""
    lock = state.lock_epoch(3, TAG)
    assert steps == [f"lock {LOCK}.tmp", f"sync {LOCK}.tmp", f"rename to {LOCK}.lock", "sync ."]
    steps.clear()
    lock.confirm()
    assert steps == [f"sync {LOCK}.lock"]
    lock.release()


def test_what_was_forgotten_does_not_come_back(state: HostState, steps: list[str]) -> None:
    """A store that was set back would be refused again, by what it was before."""
    state.save(anchor(3))
    steps.clear()
    state.forget()
    assert steps[-1:] == ["sync ."]
    assert state.load() is None


def test_a_mark_that_was_cut_off_says_nothing(state: HostState, tmp_path: Path) -> None:
    state.save(anchor(3))
    mark = state.mark(3)
    mark.set(43)
    mark.close()
    (path,) = tmp_path.rglob("acknowledged-3")
    assert state.load() == msgspec.structs.replace(anchor(3), wal_number=43)
    path.write_bytes(path.read_bytes()[:5])
    assert state.load() == anchor(3)


def test_the_journal_that_was_named_last_is_a_writers_own(state: HostState) -> None:
    lock = state.lock_epoch(3, TAG, b"first")
    assert state.journal_of(3, TAG) == b"first"
    lock.name_journal(b"other")
    assert state.journal_of(3, TAG) == b"other"
    lock.name_journal(None)
    assert state.journal_of(3, TAG) is None, "none holds all that was answered"
    lock.release()


def test_who_was_attached_last_is_known_whoever_writes_later_and_when_the_store_is_set_back(state: HostState) -> None:
    state.save_attached(5, b"newest")
    state.save_attached(3, b"of a writer that was superseded")
    assert state.load_attached() == (5, b"newest")
    state.forget()
    assert state.load_attached() == (0, b"newest")


def test_nothing_is_kept_where_others_may_write(state: HostState, tmp_path: Path) -> None:
    (folder,) = (tmp_path / "state").iterdir()
    folder.chmod(0o777)
    for keep in (lambda: state.save(anchor(3)), lambda: state.lock_epoch(3, TAG), lambda: state.save_attached(3, b"")):
        with pytest.raises(AccessDenied, match="not safe"):
            keep()
    assert [path.name for path in folder.iterdir()] == ["reads.msgpack"]


def test_the_note_of_who_came_later_stays(tmp_path: Path) -> None:
    first = leave_note(tmp_path, 3, None)
    second = leave_note(tmp_path, 4, None)
    assert first is not None
    assert second is not None
    first.release(remove=True)
    found = read_note(tmp_path)
    assert found is not None
    assert (found[0].epoch, found[1]) == (4, True)
    second.release(remove=True)
    assert read_note(tmp_path) is None


def test_what_is_noted_is_whole_though_the_kernel_takes_a_byte_at_a_time(
    tmp_path: Path, state: HostState, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:1]))
    assert leave_note(tmp_path, 3, None) is not None
    assert read_note(tmp_path) is not None
    state.save(anchor(3))
    assert state.load() == anchor(3)


@pytest.mark.parametrize("field", ["machine", "boot"])
def test_a_note_of_another_machine_says_nothing_of_this_one(tmp_path: Path, field: str) -> None:
    """A folder that several mount: no process here has the number that stands there."""
    note = leave_note(tmp_path, 3, None)
    assert note is not None
    (path,) = tmp_path.iterdir()
    said = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(said | {field: "another"}))
    assert read_note(tmp_path) is None
    note.release(remove=True)
