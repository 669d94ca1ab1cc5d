"""Locks: which process of this host has a store open as its writer, by lock files in a state folder, and a note beside
the objects of a store that is a folder.

A lock (flock) is held as long as its process lives and ends with it, also by kill -9; process ids are used again. The
locks in this user's own state folder decide whether a store may be taken over. Those of other users and the note only
say who it is: they keep a living writer from being taken for one of another host, and tell a command whom to ask.
"""

import contextlib
import fcntl
import os
import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from storage.errors import AccessDenied
from storage.trusted_files import create_new, owner_to_keep, write_all

NOTE_NAME = "~writer"
"""In the folder of a store; no object's name begins like that."""

NOTE_BYTES_MAX = 1 << 16

_JOURNAL_LINE = re.compile(r"journal ((?:[0-9a-f]{2})+|none)")
_LOCK_NAME = re.compile(r"writer-(\d+)-([0-9a-f]+)\.(lock|tmp)")


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who holds an epoch, as far as this host can tell.

    "held": a process of this host, alive, with this `pid`; `uid` if it is another user's. "gone": a process of this
    host and user that has ended. "left": one of another user that has ended. "elsewhere": another host, or nothing is
    known.
    """

    state: Literal["gone", "held", "left", "elsewhere"]
    pid: int | None = None
    uid: int | None = None


class Note(msgspec.Struct, frozen=True):
    """What a writer says of itself beside the store: process, user, the epoch it claims, and where its admin socket is
    or will be. `machine` and `boot` tell this host from others that see the same folder."""

    pid: int
    uid: int
    epoch: int
    socket: str | None
    machine: str
    boot: str


def read_note(folder: Path) -> tuple[Note, bool] | None:
    """What the last writer of a store in this folder said of itself, and whether it lives. None: there is no note of
    this host's. Whoever can write to the folder can have written it.
    """
    try:
        descriptor = os.open(folder / NOTE_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        note = msgspec.json.decode(os.read(descriptor, NOTE_BYTES_MAX), type=Note)
        machine, boot = _this_host()
        alive = _is_held(descriptor)
    except (OSError, msgspec.MsgspecError):
        return None
    finally:
        os.close(descriptor)
    if note.machine != machine or (alive and note.boot != boot):
        return None
    return note, alive


class LeftNote:
    """Our note beside a store, locked as long as this process lives."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def release(self, *, remove: bool) -> None:
        """Give up the lock, and the file with `remove`; without it whoever comes next can tell who we were."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            if remove and os.path.samestat(self._path.lstat(), os.fstat(self._descriptor)):
                self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1


def leave_note(folder: Path, epoch: int, socket: Path | None) -> LeftNote | None:
    """Say beside a store who writes it from now on. None: that is not possible here, and no harm, since nothing is
    decided by it. A crash leaves the note, unlocked, or a hidden file that nobody looks for.
    """
    machine, boot = _this_host()
    note = Note(os.getpid(), os.geteuid(), epoch, None if socket is None else str(socket), machine, boot)
    hidden = folder / f"{NOTE_NAME}.{os.getpid()}"
    try:
        hidden.unlink(missing_ok=True)
        descriptor = create_new(hidden, 0o644)
    except OSError:
        return None
    try:
        give_to_owner(descriptor, folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        write_all(descriptor, msgspec.json.encode(note))
        hidden.rename(folder / NOTE_NAME)
    except OSError:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            hidden.unlink()
        return None
    return LeftNote(folder / NOTE_NAME, descriptor)


class WriterLock:
    """This process's claim on an epoch. It ends with the process."""

    def __init__(self, path: Path, descriptor: int, note: LeftNote | None) -> None:
        self._path = path
        self._descriptor = descriptor
        self._note = note

    def confirm(self) -> None:
        """The take-over manifest has landed: from now on this process is known as the holder of the epoch."""
        try:
            os.write(self._descriptor, b"confirmed\n")
            os.fsync(self._descriptor)
        except OSError as error:
            raise AccessDenied(f"the lock {self._path} cannot be written: {error.strerror}") from error

    def name_journal(self, journal_id: bytes | None) -> None:
        """From now on the journal of this writer is that one; None: there is none that holds all that it answered. A
        crash before it leaves the name of the one before.
        """
        try:
            os.write(self._descriptor, _journal_line(journal_id))
        except OSError as error:
            raise AccessDenied(f"the lock {self._path} cannot be written: {error.strerror}") from error

    def release(self) -> None:
        """Give up the lock and leave the file: the store was not closed, and this host may take it over
        again.
        """
        self._release(remove=False)

    def discard(self) -> None:
        """Give up the lock and its file: the race was lost, or the store was closed cleanly."""
        self._path.unlink(missing_ok=True)
        self._release(remove=True)

    def _release(self, *, remove: bool) -> None:
        if self._note is not None:
            self._note.release(remove=remove)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def lock_path(folder: Path, epoch: int, takeover_tag: bytes) -> Path:
    """The lock file of a claim on `epoch` by the take-over manifest of that tag."""
    return folder / f"writer-{epoch}-{takeover_tag.hex()}.lock"


def first_lines(pid: int, journal_id: bytes | None) -> bytes:
    """What a lock file begins with: the process, and the journal that it goes on with, if any."""
    return f"pid {pid}\n".encode() + (b"" if journal_id is None else _journal_line(journal_id))


def _journal_line(journal_id: bytes | None) -> bytes:
    return f"journal {'none' if journal_id is None else journal_id.hex()}\n".encode()


def lock_holder_in(folder: Path, epoch: int, newest_tag: bytes) -> LockHolder:
    """Who holds `epoch` by the lock files in a store's part of a state folder. OSError: it may not be read."""
    found = _lock_of(folder, epoch, newest_tag)
    if found is None:
        return LockHolder("elsewhere")
    path, lines = found
    return LockHolder("held" if is_locked(path) else "gone", _pid(lines))


def journal_in(folder: Path, epoch: int, newest_tag: bytes) -> bytes | None:
    """The id of the journal of the writer that holds or held `epoch`, by the same files. None: it had none, or was none
    of this host's. OSError.
    """
    found = _lock_of(folder, epoch, newest_tag)
    named = [] if found is None else [match[1] for line in found[1] if (match := _JOURNAL_LINE.fullmatch(line))]
    return bytes.fromhex(named[-1]) if named and named[-1] != "none" else None


def _lock_of(folder: Path, epoch: int, newest_tag: bytes) -> tuple[Path, list[str]] | None:
    """The lock file of the claim on `epoch` that counts, and its lines."""
    for claimed, tag, path in locks_in(folder):
        if claimed != epoch:
            continue
        try:
            lines = path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            continue
        if "confirmed" in lines or tag == newest_tag.hex():
            return path, lines
    return None


def locks_in(folder: Path) -> Iterator[tuple[int, str, Path]]:
    """Epoch, tag and path of every lock file, also of claims that did not get their final name."""
    if not folder.is_dir():
        return
    for name in sorted(os.listdir(folder)):
        if match := _LOCK_NAME.fullmatch(name):
            yield int(match[1]), match[2], folder / name


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock of this file; a file that is not there is not locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return _is_held(descriptor)
    finally:
        os.close(descriptor)


def neighbour(epoch: int, newest_tag: bytes, *, beside: Path | None, folders: list[Path]) -> LockHolder:
    """The process of another user of this host that holds `epoch`: by the note in the folder of the store, if it has
    one, by the lock files in other state folders, as far as this user may see them, and by what processes have open,
    which root may see. `folders` are named after the store, like its part of any state folder.
    """
    found = None if beside is None else read_note(beside)
    if found is not None and (found[1] or found[0].epoch == epoch):
        note, alive = found
        return LockHolder("held" if alive else "left", note.pid, note.uid)
    for folder in folders:
        try:
            holder = lock_holder_in(folder, epoch, newest_tag)
            uid = folder.stat().st_uid
        except OSError:
            continue
        if holder.state != "elsewhere":
            return LockHolder("held" if holder.state == "held" else "left", holder.pid, uid)
    return _process_with_lock(epoch, folders[0].name)


def _process_with_lock(epoch: int, store: str) -> LockHolder:
    """The process that has a lock file of that epoch of the store open, in whatever state folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is not ours to look into
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    opened = Path(os.readlink(descriptor))
                    named = _LOCK_NAME.fullmatch(opened.name) if opened.parent.name == store else None
                    if named is not None and int(named[1]) == epoch and is_locked(opened):
                        return LockHolder("held", int(process.name), process.stat().st_uid)
    return LockHolder("elsewhere")


def other_state_folders() -> list[Path]:
    """Where the servers of other users of this host keep their state, unless told otherwise."""
    folders = [Path("/var/lib/nbdserver"), Path("/var/lib/private/nbdserver")]
    if os.geteuid() == 0:
        homes = sorted({entry.pw_dir for entry in pwd.getpwall()})
        folders += [Path(home) / ".local" / "state" / "nbdserver" for home in homes]
    return folders


def give_to_owner(descriptor: int, folder: Path) -> None:
    """Have a file that root makes belong to the owner of the folder it is in, who could not use it otherwise."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if (owner := owner_to_keep(opened)) is not None:
            os.fchown(descriptor, *owner)
    finally:
        os.close(opened)


def _is_held(descriptor: int) -> bool:
    """Asked with a shared lock, so that two who ask at once do not take each other for the holder."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _pid(lines: list[str]) -> int | None:
    match = re.fullmatch(r"pid (\d+)", lines[0]) if lines else None
    return int(match[1]) if match else None


def _this_host() -> tuple[str, str]:
    """The machine and its boot; empty where the system does not say."""
    found = []
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        try:
            found.append(Path(path).read_text().strip())
        except OSError:
            found.append("")
    return found[0], found[1]
