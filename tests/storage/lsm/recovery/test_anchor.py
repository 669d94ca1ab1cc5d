"""What a host remembers of a store: anchors over crashes, and locks of real processes that are killed."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from storage.errors import AccessDenied, Corrupt
from storage.lsm.recovery.anchor import Anchor, HostState
from storage.lsm.recovery.locks import LockHolder

URL = f"file:///srv/store-{os.getpid()}"
"""Of this process alone: who has a lock of a store is looked for among all that run, and others run these tests."""
TAG = bytes(range(16))
OTHER = bytes(16)
GONE = LockHolder("gone")
ELSEWHERE = LockHolder("elsewhere")


def anchor(epoch: int, manifest: int = 7) -> Anchor:
    return Anchor(
        store_id=b"s" * 16,
        manifest_number=manifest,
        manifest_tag=TAG,
        epoch=epoch,
        wal_number=42,
        exact=True,
    )


@pytest.fixture
def state(tmp_path: Path) -> HostState:
    return HostState(tmp_path / "state" / "nbdserver", URL)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_host_that_never_saw_the_store_knows_nothing(state: HostState, tmp_path: Path) -> None:
    assert state.load() is None
    assert state.holder(1, TAG) == ELSEWHERE
    state.forget()
    assert list(tmp_path.iterdir()) == []


def test_what_is_saved_is_loaded(state: HostState, tmp_path: Path) -> None:
    state.save(anchor(3))
    state.save(anchor(3, manifest=8))
    assert HostState(tmp_path / "state" / "nbdserver", URL).load() == anchor(3, manifest=8)
    assert files(tmp_path) == ["anchor-3.json"]


def test_after_the_machine_stopped_what_was_noted_may_be_forgotten(
    state: HostState, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.save(anchor(3))
    monkeypatch.setattr("storage.lsm.recovery.anchor.boot", lambda: "another life")
    assert state.load() == msgspec.structs.replace(anchor(3), exact=False)


def test_stores_do_not_share(state: HostState, tmp_path: Path) -> None:
    state.save(anchor(3))
    assert HostState(tmp_path / "state" / "nbdserver", URL + "2").load() is None


def test_only_the_owner_can_read(state: HostState, tmp_path: Path) -> None:
    state.save(anchor(1))
    state.lock_epoch(1, TAG).release()
    for path in (tmp_path / "state").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_superseded_writer_does_not_turn_the_memory_back(state: HostState) -> None:
    state.save(anchor(4, manifest=20))
    state.save(anchor(3, manifest=30))
    assert state.load() == anchor(4, manifest=20)


def test_a_crash_while_saving_leaves_the_old_anchor(
    state: HostState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.save(anchor(3))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("fsync", "write"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, die)
            with pytest.raises(KeyboardInterrupt):
                state.save(anchor(3, manifest=9))
        assert state.load() == anchor(3)
    state.save(anchor(3, manifest=9))
    assert files(tmp_path) == ["anchor-3.json"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"\0" * 60, b'{"version":1,"store":"x","anchor":{}}'])
def test_a_damaged_anchor_is_said_and_can_be_forgotten(state: HostState, tmp_path: Path, damage: bytes) -> None:
    state.save(anchor(3))
    (path,) = tmp_path.rglob("anchor-3.json")
    path.write_bytes(damage)
    with pytest.raises(Corrupt, match="--accept-rollback"):
        state.load()
    state.forget_damaged()
    assert state.load() is None


def test_an_anchor_that_is_whole_is_not_forgotten(state: HostState) -> None:
    state.save(anchor(3))
    state.forget_damaged()
    assert state.load() == anchor(3)


def test_the_anchor_of_another_store_or_version_is_refused(state: HostState, tmp_path: Path) -> None:
    state.save(anchor(3))
    (path,) = tmp_path.rglob("anchor-3.json")
    good = msgspec.json.decode(path.read_bytes())
    for change in ({"version": 2}, {"store": "file:///other"}):
        path.write_bytes(msgspec.json.encode(good | change))
        with pytest.raises(Corrupt, match="another store or version"):
            state.load()


def test_a_living_process_holds_its_epoch(state: HostState) -> None:
    lock = state.lock_epoch(5, TAG)
    lock.confirm()
    assert state.holder(5, OTHER) == LockHolder("held", os.getpid())
    assert state.holder(4, OTHER) == ELSEWHERE
    assert state.holder(6, OTHER) == ELSEWHERE
    lock.release()
    assert state.holder(5, OTHER) == GONE


def test_a_clean_close_leaves_no_claim(state: HostState, tmp_path: Path) -> None:
    lock = state.lock_epoch(5, TAG)
    lock.confirm()
    lock.discard()
    lock.release()
    assert files(tmp_path) == []
    assert state.holder(5, TAG) == ELSEWHERE


def test_a_lost_race_is_not_mistaken_for_the_winner(state: HostState) -> None:
    """Our process tried epoch 5 and died; the newest manifest is another host's, with the same epoch."""
    state.lock_epoch(5, TAG).release()
    assert state.holder(5, OTHER) == ELSEWHERE


def test_a_take_over_that_landed_unconfirmed_is_known_by_its_tag(state: HostState) -> None:
    state.lock_epoch(5, TAG).release()
    assert state.holder(5, TAG) == GONE


def test_a_second_attempt_at_an_epoch_does_not_hide_the_first(state: HostState) -> None:
    """The first attempt's manifest lands late, after its process died and while the second is under way."""
    state.lock_epoch(5, TAG).release()
    second = state.lock_epoch(5, OTHER)
    assert state.holder(5, TAG) == GONE
    second.discard()


def test_an_attempt_that_is_repeated_with_the_same_tag(state: HostState) -> None:
    first = state.lock_epoch(5, TAG)
    first.release()
    second = state.lock_epoch(5, TAG)
    assert state.holder(5, TAG) == LockHolder("held", os.getpid())
    second.release()


def test_saving_sweeps_lower_epochs_but_never_a_living_lock(state: HostState, tmp_path: Path) -> None:
    alive = state.lock_epoch(3, TAG)
    state.lock_epoch(4, TAG).release()
    state.save(anchor(4))
    mine = state.lock_epoch(5, TAG)
    assert state.holder(4, TAG) == GONE
    state.save(anchor(5))
    assert files(tmp_path) == ["anchor-5.json", f"writer-3-{TAG.hex()}.lock", f"writer-5-{TAG.hex()}.lock"]
    alive.release()
    mine.release()
    state.forget()
    assert files(tmp_path) == []


@contextmanager
def another_process(folder: Path, *, confirm: bool) -> Iterator[subprocess.Popen[bytes]]:
    program = f"""if True:
        import pathlib, sys
        from storage.lsm.recovery.anchor import HostState
        lock = HostState(pathlib.Path({str(folder)!r}), {URL!r}).lock_epoch(9, {TAG!r})
        if {confirm}:
            lock.confirm()
        print("ready", flush=True)
        sys.stdin.read()
    """
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


def test_kill_9_frees_the_epoch_and_a_stopped_process_keeps_it(tmp_path: Path) -> None:
    state = HostState(tmp_path, URL)
    with another_process(tmp_path, confirm=True) as process:
        assert state.holder(9, OTHER) == LockHolder("held", process.pid)
        process.send_signal(signal.SIGSTOP)
        assert state.holder(9, OTHER) == LockHolder("held", process.pid)
        process.kill()
        process.wait()
        assert state.holder(9, OTHER) == GONE


def test_asking_twice_at_once_does_not_look_like_holding(state: HostState, tmp_path: Path) -> None:
    """Two askers must not see each other's question as the lock."""
    import fcntl

    state.lock_epoch(5, TAG).release()
    (path,) = tmp_path.rglob("writer-*.lock")
    with path.open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert state.holder(5, TAG) == GONE


def test_a_lock_is_not_inherited(state: HostState) -> None:
    lock = state.lock_epoch(5, TAG)
    program = "print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        lock.release()
        held = state.holder(5, TAG)
        child.communicate(b"\n")
    assert held == GONE


def test_a_state_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", Path("/proc/nbdserver")):
        state = HostState(folder, URL)
        for use in (partial(state.save, anchor(1)), partial(state.lock_epoch, 1, TAG)):
            with pytest.raises(AccessDenied, match=r"--state-folder or NBDSERVER_STATE_FOLDER") as caught:
                use()
            assert str(folder) in str(caught.value)


def test_what_was_acknowledged_is_known_without_a_save(tmp_path: Path) -> None:
    state = HostState(tmp_path, URL)
    state.save(anchor(3))
    mark = state.mark(3)
    mark.set(1234)
    mark.close()
    mark.close()
    mark.set(5)
    found = HostState(tmp_path, URL).load()
    assert found is not None
    assert found.wal_number == 1234
    state.save(anchor(4))
    later = HostState(tmp_path, URL).load()
    assert later == anchor(4), "a mark belongs to its writer's epoch"


def test_a_mark_never_sets_back_what_was_saved(tmp_path: Path) -> None:
    state = HostState(tmp_path, URL)
    state.save(anchor(3))
    state.mark(3).close()
    assert state.load() == anchor(3)


def test_a_given_up_rollback_gives_up_the_marks_too(tmp_path: Path) -> None:
    state = HostState(tmp_path, URL)
    state.save(anchor(3))
    mark = state.mark(3)
    mark.set(99_999)
    mark.close()
    state.forget()
    state.save(anchor(3))
    assert state.load() == anchor(3)


def test_a_full_disk_costs_the_mark_and_not_the_process(tmp_path: Path, require: Callable[..., None]) -> None:
    """A store to mapped memory that finds no room ends the process by SIGBUS."""
    require("root", "mount")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], check=True)
    try:
        HostState(folder, URL).save(anchor(3))
        (folder / "fill").touch()
        code = (
            "import sys, pathlib; from storage.lsm.recovery.anchor import HostState\n"
            f"state = HostState(pathlib.Path({str(folder)!r}), {URL!r})\n"
            "mark = state.mark(3)\n"
            f"fill = open({str(folder / 'fill')!r}, 'wb', buffering=0)\n"
            "try:\n"
            "    while True: fill.write(bytes(4096))\n"
            "except OSError: pass\n"
            "mark.set(1234)\n"
            "print('alive')\n"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (0, "alive\n")
        assert HostState(folder, URL).load() == anchor(3)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
