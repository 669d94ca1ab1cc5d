"""This file knows what a host remembers of a store: how far it has seen it, and which of its processes
wrote it.

Guarantees: what `save` has returned for is found by `load` after any crash; a process that is gone is never
taken for alive, nor a living one for gone; and nobody is taken for this host's own who was not. All
functions block on the local disk: call them through `env.run("store", ...)`.

In the state folder every store has a folder of its own, named by a hash of its URL, with three kinds of files:

    anchor-<epoch>.json          what the writer of that epoch has seen last; the highest epoch counts
    acknowledged-<epoch>         the highest WAL number that writer acknowledged, 8 bytes, written and never synced
    writer-<epoch>-<tag>.lock    a process of this host that took, or tried to take, the store with that epoch

Every file has one writer, so no two processes ever disturb each other. A lock file is made, locked
(`flock`) and synced *before* its take-over manifest is sent, and confirmed after that has landed. The
stories this prevents:

- A process sends its take-over, loses the race against another host and dies. Its lock file is not
  confirmed and its tag is not the manifest's, so the other host's writer is not mistaken for it.
- A process dies between the landing of its take-over and the confirmation. The newest manifest is still
  that very one, the tag shows it, and the host may take over without being asked.
- Process ids are used again; a lock is not, and it goes with the process, even by kill -9 or a power cut.
"""

import errno
import fcntl
import hashlib
import os
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from storage.errors import AccessDenied, Corrupt, OutOfSpace, StorageError

VERSION = 1

READS_MAX = 100
"""Times in a row that a newer writer may replace the anchor while it is read."""

_LOCK_NAME = re.compile(r"writer-(\d+)-([0-9a-f]+)\.(lock|tmp)")
_ANCHOR_NAME = re.compile(r"anchor-(\d+)\.json")
_MARK_NAME = re.compile(r"acknowledged-(\d+)")
_MARK = struct.Struct("<Q")


class Anchor(msgspec.Struct, frozen=True):
    """The furthest state of a store that a writer of this host has seen.

    `manifest_tag` is the tag of manifest `manifest_number`; `wal_number` the highest acknowledged; `probed`
    says that the store has passed the probe.
    """

    store_id: bytes
    manifest_number: int
    manifest_tag: bytes
    epoch: int
    wal_number: int
    probed: bool


class _AnchorFile(msgspec.Struct, frozen=True):
    version: int
    store: str
    anchor: Anchor


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds an epoch, as far as this host can tell.

    "held": a process of this host, alive, with this `pid`. "gone": a process of this host that has ended.
    "elsewhere": another host, or nothing is known.
    """

    state: Literal["gone", "held", "elsewhere"]
    pid: int | None = None


class WriterLock:
    """This process's claim on an epoch. It ends with the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def confirm(self) -> None:
        """The take-over manifest has landed: from now on this process is known as the holder of the epoch."""
        with _explained(self._path):
            os.write(self._descriptor, b"confirmed\n")
            os.fsync(self._descriptor)

    def release(self) -> None:
        """Give up the lock and leave the file: the store was not closed, and this host may take it over
        again.
        """
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Give up the lock and its file: the race was lost, or the store was closed cleanly."""
        self._path.unlink(missing_ok=True)
        self.release()


class Mark:
    """The highest WAL number that this writer acknowledged, known to this host from the moment it is set.

    Setting it is one write into the page cache: two microseconds on the way of a flush, and it survives kill -9. A
    power cut may set it back to an earlier number, and so does a full disk; then the end of the log can be cut off
    unnoticed since that one. (Mapped memory is cheaper still, but there a full disk ends the process by a signal.)
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def set(self, number: int) -> None:
        """`number` exists in the store and is about to be acknowledged."""
        with suppress(OSError):
            os.pwrite(self._descriptor, _MARK.pack(number), 0)

    def close(self) -> None:
        """Give back the file; what was set stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class HostState:
    """What this host remembers of one store."""

    def __init__(self, state_folder: Path, store_url: str) -> None:
        self._store_url = store_url
        self._folder = state_folder / hashlib.sha256(store_url.encode()).hexdigest()[:24]

    def load(self) -> Anchor | None:
        """The newest anchor, or None if this host has never written the store.

        Corrupt if it cannot be read.
        """
        with _explained(self._folder):
            for _ in range(READS_MAX):
                found = self._numbered(_ANCHOR_NAME)
                if not found:
                    return None
                path = found[max(found)]
                try:
                    file = msgspec.json.decode(path.read_bytes(), type=_AnchorFile)
                except FileNotFoundError:
                    continue  # a writer of a higher epoch has just replaced it
                except msgspec.MsgspecError as error:
                    raise Corrupt(str(path), _damaged_anchor(error)) from error
                if file.version != VERSION or file.store != self._store_url:
                    raise Corrupt(str(path), _damaged_anchor("it is of another store or version"))
                anchor = file.anchor
                marked = self._marked(anchor.epoch)
                return msgspec.structs.replace(anchor, wal_number=max(anchor.wal_number, marked))
            raise Corrupt(str(path), _damaged_anchor("it is listed, and is not there"))

    def save(self, anchor: Anchor) -> None:
        """Remember, durably on return, what the writer of `anchor.epoch` has seen.

        Files of lower epochs go, except locks of processes that are alive.
        """
        data = msgspec.json.encode(_AnchorFile(VERSION, self._store_url, anchor))
        with _explained(self._folder):
            self._make_folder()
            path = self._folder / f"anchor-{anchor.epoch}.json"
            descriptor = _create(path.with_suffix(".tmp"))
            try:
                _write(descriptor, data)
            finally:
                os.close(descriptor)
            path.with_suffix(".tmp").rename(path)
            _sync_folder(self._folder)
            for pattern in (_ANCHOR_NAME, _MARK_NAME):
                for epoch, old in self._numbered(pattern).items():
                    if epoch < anchor.epoch:
                        old.unlink(missing_ok=True)
            self._sweep_locks(below=anchor.epoch)

    def forget(self) -> None:
        """Drop the anchor and all locks of processes that are gone: a rolled-back store uses its epochs
        again.
        """
        with _explained(self._folder):
            for pattern in (_ANCHOR_NAME, _MARK_NAME):
                for path in self._numbered(pattern).values():
                    path.unlink(missing_ok=True)
            self._sweep_locks(below=None)
            if self._folder.is_dir():
                _sync_folder(self._folder)

    def forget_damaged(self) -> None:
        """Drop an anchor that cannot be read: somebody has agreed to trust the store instead."""
        try:
            self.load()
        except Corrupt:
            self.forget()

    def mark(self, epoch: int) -> Mark:
        """Where the writer of `epoch` notes what it acknowledges; call it after `save` for that epoch."""
        with _explained(self._folder):
            return Mark(self._folder / f"acknowledged-{epoch}")

    def _marked(self, epoch: int) -> int:
        try:
            raw = (self._folder / f"acknowledged-{epoch}").read_bytes()
        except FileNotFoundError:
            return 0
        return int(_MARK.unpack(raw)[0]) if len(raw) == _MARK.size else 0

    def lock_epoch(self, epoch: int, takeover_tag: bytes) -> WriterLock:
        """Claim `epoch`, before the take-over manifest whose tag is `takeover_tag` is sent.

        Durable on return.
        """
        with _explained(self._folder):
            self._make_folder()
            path = self._folder / f"writer-{epoch}-{takeover_tag.hex()}.lock"
            # Locked under a name nobody looks for, so that a look never meets it unlocked.
            hidden = path.with_suffix(".tmp")
            descriptor = _create(hidden)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _write(descriptor, f"pid {os.getpid()}\n".encode())
                hidden.rename(path)
                _sync_folder(self._folder)
            except BaseException:
                os.close(descriptor)
                raise
            return WriterLock(path, descriptor)

    def holder(self, epoch: int, newest_tag: bytes) -> Holder:
        """Who holds `epoch`, which the newest manifest, whose tag is `newest_tag`, says is the store's."""
        with _explained(self._folder):
            for claimed, tag, path in self._locks():
                if claimed != epoch:
                    continue
                try:
                    lines = path.read_text(errors="replace").splitlines()
                except FileNotFoundError:
                    continue
                if "confirmed" not in lines and tag != newest_tag.hex():
                    continue
                if _is_locked(path):
                    return Holder("held", _pid(lines))
                return Holder("gone")
        return Holder("elsewhere")

    def _make_folder(self) -> None:
        """Make the store's folder, durably with its parents, readable by its owner only."""
        missing = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(folder.parent)

    def _numbered(self, pattern: re.Pattern[str]) -> dict[int, Path]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return {}
        return {int(match[1]): self._folder / name for name in names if (match := pattern.fullmatch(name))}

    def _locks(self) -> Iterator[tuple[int, str, Path]]:
        """Epoch, tag and path of every lock file, also of claims that did not get their final name."""
        if not self._folder.is_dir():
            return
        for name in sorted(os.listdir(self._folder)):
            if match := _LOCK_NAME.fullmatch(name):
                yield int(match[1]), match[2], self._folder / name

    def _sweep_locks(self, *, below: int | None) -> None:
        for epoch, _, path in self._locks():
            if (below is None or epoch < below) and not _is_locked(path):
                path.unlink(missing_ok=True)


def default_state_folder(environ: Mapping[str, str]) -> Path:
    """Where services and users keep state: systemd's folder, the system's for root, else the user's own."""
    if folder := environ.get("STATE_DIRECTORY"):
        return Path(folder.split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/nbdserver")
    if folder := environ.get("XDG_STATE_HOME"):
        return Path(folder) / "nbdserver"
    return Path.home() / ".local" / "state" / "nbdserver"


def _damaged_anchor(reason: object) -> str:
    return f"{reason}; if the store is as it should be, start once with --accept-rollback to write a new one"


def _pid(lines: list[str]) -> int | None:
    match = re.fullmatch(r"pid (\d+)", lines[0]) if lines else None
    return int(match[1]) if match else None


def _is_locked(path: Path) -> bool:
    """Whether a living process holds the lock of this file; a file that is not there is not locked.

    Asked with a shared lock, so that two who ask at once do not take each other for the holder.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _create(path: Path) -> int:
    """An empty file under a temporary name; what a crash may have left there goes."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say in one sentence what is wrong with the state folder and how to name another."""
    try:
        yield
    except OSError as error:
        advice = "name another folder with --state-folder or NBDSERVER_STATE_FOLDER"
        kind: type[StorageError] = AccessDenied
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            kind = OutOfSpace
            advice = "make room, or " + advice
        where = error.filename or path
        raise kind(f"the state folder cannot be used, {where}: {os.strerror(error.errno or 0)}; {advice}") from error
