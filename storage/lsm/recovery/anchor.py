"""The anchor, what a host remembers of a store: how far it has seen it, and which of its processes wrote it.

Guarantees: what `save` has returned for is found by `load` after any crash; a process that is gone is never
taken for alive, nor a living one for gone; and nobody is taken for this host's own who was not. All
functions block on the local disk: call them through `env.run("store", ...)`.

In the state folder every store has a folder of its own, named by a hash of its URL, with six kinds of files:

    anchor-<epoch>.json          what the writer of that epoch has seen last; the highest epoch counts
    acknowledged-<epoch>         the highest WAL number that writer acknowledged, 8 bytes, written and never synced
    writer-<epoch>-<tag>.lock    a process of this host that took, or tried to take, the store with that epoch
    attached-<epoch>.json        who had attached which export when that writer was last seen (`nbdserver.attachments`)
    reads.msgpack                when the data in each SST was last read by a check or a scrub (`storage.check`)
    requests.msgpack             what was asked of the store this month, of a server with a budget (`request_budget`)

Every file but the last two, which may be lost, has one writer, so no two processes ever disturb each other. A lock file
is made, locked (`flock`) and synced *before* its take-over manifest is sent, and confirmed after that has landed. The
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import msgspec

from storage.errors import AccessDenied, Corrupt, OutOfSpace, StorageError
from storage.journal.files import boot
from storage.lsm.recovery.durable_files import create_hidden, give_folder, replace, sync_folder, write
from storage.lsm.recovery.locks import (
    LockHolder,
    WriterLock,
    first_lines,
    is_locked,
    journal_in,
    leave_note,
    lock_holder_in,
    lock_path,
    locks_in,
    neighbour,
    other_state_folders,
)
from storage.lsm.recovery.mark import MARK, Mark
from storage.lsm.recovery.unsaved import Unsaved
from storage.trusted_files import trusted_folder, users_trusted_in

ANCHOR_VERSION = 1

READS_MAX = 100
"""Times in a row that a newer writer may replace the anchor while it is read."""

Memory = Literal["reads", "requests"]

_ADVICE = "name another folder with --state-folder or NBDSERVER_STATE_FOLDER"

_ANCHOR_NAME = re.compile(r"anchor-(\d+)\.json")
_ATTACHED_NAME = re.compile(r"attached-(\d+)\.json")
_MARK_NAME = re.compile(r"acknowledged-(\d+)")


class Anchor(msgspec.Struct, frozen=True):
    """The furthest state of a store that a writer of this host has seen.

    `manifest_tag` is the tag of manifest `manifest_number`, `identity` what that says, `key_id` the data key that it is
    sealed under (0: not known); `wal_number` the highest acknowledged. `exact`: nothing that was noted is forgotten,
    since the machine has not stopped in between; not saved, but found when the anchor is loaded.
    """

    store_id: bytes
    manifest_number: int
    manifest_tag: bytes
    epoch: int
    wal_number: int
    exact: bool = False
    identity: bytes = b""
    key_id: int = 0


class _AnchorFile(msgspec.Struct, frozen=True):
    version: int
    store: str
    boot: str  # which life of the machine it was saved in
    anchor: Anchor


class HostState:
    """What this host remembers of one store."""

    def __init__(self, state_folder: Path, store_url: str, admin_socket: Path | None = None) -> None:
        """`admin_socket` is where commands of this host reach the server that this process is, or is going to be."""
        self._store_url = store_url
        self._admin_socket = admin_socket
        self._folder = state_folder / hashlib.sha256(store_url.encode()).hexdigest()[:24]
        parts = urlsplit(store_url)
        self.unsaved = Unsaved()
        self._beside = Path(unquote(parts.path)) if parts.scheme == "file" else None

    def load(self) -> Anchor | None:
        """The newest anchor, or None if this host has never written the store. Corrupt if it cannot be read."""
        with _explained(self._folder):
            self._check_folder()
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
                if file.version != ANCHOR_VERSION or file.store != self._store_url:
                    raise Corrupt(str(path), _damaged_anchor("it is of another store or version"))
                anchor = file.anchor
                marked = self._marked(anchor.epoch)
                return msgspec.structs.replace(
                    anchor, wal_number=max(anchor.wal_number, marked), exact=file.boot == boot()
                )
            raise Corrupt(str(path), _damaged_anchor("it is listed, and is not there"))

    def save(self, anchor: Anchor) -> None:
        """Remember, durably on return, what the writer of `anchor.epoch` has seen. Files of lower epochs go, but for
        locks of living processes."""
        data = msgspec.json.encode(_AnchorFile(ANCHOR_VERSION, self._store_url, boot(), anchor))
        with _explained(self._folder):
            self._make_folder()
            replace(self._folder / f"anchor-{anchor.epoch}.json", data)
            for pattern in (_ANCHOR_NAME, _MARK_NAME):
                for epoch, old in self._numbered(pattern).items():
                    if epoch < anchor.epoch:
                        old.unlink(missing_ok=True)
            self._sweep_locks(below=anchor.epoch)

    def forget(self) -> None:
        """Drop the anchor and all locks of processes that are gone: a rolled-back store uses its epochs again, so that
        who was attached is kept as by epoch 0."""
        with _explained(self._folder):
            for _, path in sorted(self._numbered(_ATTACHED_NAME).items()):
                path.rename(self._folder / "attached-0.json")  # the newest, as the last: older than any of its new life
            for pattern in (_ANCHOR_NAME, _MARK_NAME):
                for path in self._numbered(pattern).values():
                    path.unlink(missing_ok=True)
            self._sweep_locks(below=None)
            if self._folder.is_dir():
                sync_folder(self._folder)

    def forget_damaged(self) -> None:
        """Drop an anchor that cannot be read: somebody has agreed to trust the store instead."""
        try:
            self.load()
        except Corrupt:
            self.forget()

    def mark(self, epoch: int) -> Mark:
        """Where the writer of `epoch` notes the highest number of the log that it acknowledges, after `save` for it."""
        with _explained(self._folder):
            return Mark(self._folder / f"acknowledged-{epoch}")

    def _marked(self, epoch: int) -> int:
        try:
            raw = (self._folder / f"acknowledged-{epoch}").read_bytes()
        except FileNotFoundError:
            return 0
        return int(MARK.unpack(raw)[0]) if len(raw) == MARK.size else 0

    def journal_of(self, epoch: int, newest_tag: bytes) -> bytes | None:
        """The id of the journal of the writer that holds or held `epoch`, which the newest manifest, whose tag is
        `newest_tag`, says is the store's. None: it had none, or was another host's.
        """
        with _explained(self._folder):
            return journal_in(self._folder, epoch, newest_tag)

    def lock_epoch(self, epoch: int, takeover_tag: bytes, journal_id: bytes | None = None) -> WriterLock:
        """Claim `epoch`, before the take-over manifest whose tag is `takeover_tag` is sent. `journal_id`: the journal
        that the claimer goes on with, which is its own from the moment the manifest lands.

        Durable on return.
        """
        with _explained(self._folder):
            self._make_folder()
            path = lock_path(self._folder, epoch, takeover_tag)
            # Locked under a name nobody looks for, so that a look never meets it unlocked.
            hidden = path.with_suffix(".tmp")
            descriptor = create_hidden(hidden)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                write(descriptor, first_lines(os.getpid(), journal_id))
                hidden.rename(path)
                sync_folder(self._folder)
            except BaseException:
                os.close(descriptor)
                raise
            note = None if self._beside is None else leave_note(self._beside, epoch, self._admin_socket)
            return WriterLock(path, descriptor, note)

    def holder(self, epoch: int, newest_tag: bytes) -> LockHolder:
        """Who holds `epoch`, which the newest manifest, whose tag is `newest_tag`, says is the store's."""
        with _explained(self._folder):
            holder = lock_holder_in(self._folder, epoch, newest_tag)
        if holder.state != "elsewhere":
            return holder if holder.state == "held" else LockHolder("gone")
        others = [folder / self._folder.name for folder in other_state_folders()]
        return neighbour(epoch, newest_tag, beside=self._beside, folders=others)

    def load_memory(self, of: Memory) -> bytes | None:
        """What `save_memory` kept; None: nothing yet."""
        with _explained(self._folder):
            self._check_folder()
            try:
                return (self._folder / f"{of}.msgpack").read_bytes()
            except FileNotFoundError:
                return None

    def save_memory(self, of: Memory, data: bytes) -> None:
        """Keep it. A crash leaves this or what was there before."""
        with _explained(self._folder):
            self._make_folder()
            replace(self._folder / f"{of}.msgpack", data)

    def load_attached(self) -> tuple[int, bytes] | None:
        """The highest epoch, and what its writer kept with `save_attached`; None: nothing."""
        with _explained(self._folder):
            self._check_folder()
            found = self._numbered(_ATTACHED_NAME)
            return (max(found), found[max(found)].read_bytes()) if found else None

    def save_attached(self, epoch: int, data: bytes) -> None:
        """Keep who is attached in `epoch`, durably on return. A crash leaves this or what was there before."""
        with _explained(self._folder):
            self._make_folder()
            path = self._folder / f"attached-{epoch}.json"
            replace(path, data)
            for number, old in self._numbered(_ATTACHED_NAME).items():
                if number < epoch:
                    old.unlink(missing_ok=True)

    def _make_folder(self) -> None:
        """Make the store's folder, durably with its parents, readable by its owner only."""
        missing = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder == self._folder:
                give_folder(folder)
            sync_folder(folder.parent)
        self._check_folder()

    def _check_folder(self) -> None:
        """AccessDenied: somebody else could write here what this host is to remember."""
        if not self._folder.exists():
            return
        try:
            trusted_folder(self._folder, users=users_trusted_in(self._folder.parent))
        except AccessDenied as error:
            raise AccessDenied(f"the state folder is not safe: {error}; {_ADVICE}") from error

    def _numbered(self, pattern: re.Pattern[str]) -> dict[int, Path]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return {}
        return {int(match[1]): self._folder / name for name in names if (match := pattern.fullmatch(name))}

    def _sweep_locks(self, *, below: int | None) -> None:
        for epoch, _, path in locks_in(self._folder):
            if (below is None or epoch < below) and not is_locked(path):
                path.unlink(missing_ok=True)


def _damaged_anchor(reason: object) -> str:
    return f"{reason}; if the store is as it should be, start once with --accept-rollback to write a new one"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say in one sentence what is wrong with the state folder and how to name another."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE
        kind: type[StorageError] = AccessDenied
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            kind = OutOfSpace
            advice = "make room, or " + advice
        where = error.filename or path
        raise kind(f"the state folder cannot be used, {where}: {os.strerror(error.errno or 0)}; {advice}") from error
