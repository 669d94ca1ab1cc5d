"""Attachments: which client that comes back is refused, because what it was answered may be lost: who was attached,
as this host remembers it.

The promise: after something that was answered may be lost, no client that was attached then goes on unaware. Whoever
attaches an export and may write it is remembered, durably, before its first request is carried out, and until it has
left and the store has all that it wrote. The record carries the incarnation of the store in which it was written: if
that is not gone on with (see `storage.fs.incarnation`), the next server of this host refuses who stands in it that
export, until somebody has accepted it (`nbdserver client accept`).

A client is known by the export and by its address; all of this machine are one, and those of another boot are gone. A
crash before a record is written finds a client that was answered nothing; one after it has left refuses it in vain at
worst. A host that cannot keep the record says so once, and serves.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import msgspec

from storage.errors import StorageError

logger = logging.getLogger("nbdserver")

HERE = "this host"
"""What all clients of this machine are known by."""

VERSION = 1


class Attachment(msgspec.Struct, frozen=True, order=True):
    """An export, and the address that a client has attached it from."""

    export: str
    client: str


class Record(msgspec.Struct, frozen=True):
    """What is kept: who is attached, in an incarnation and in a boot of this machine, and who is refused."""

    version: int
    incarnation: str
    boot: str
    attached: list[Attachment]
    refused: list[Attachment]


class WrittenDevice(Protocol):
    """What is asked of a device whose client has left."""

    @property
    def last_sequence(self) -> int:
        """Number of the newest write."""

    def want_durable(self, sequence: int) -> bool:
        """Whether every write up to this one is durable. If not, it will be soon, and who listens is told."""

    def listen(self, listener: Callable[[int], None]) -> None:
        """From now on call `listener` with the number of the newest durable write whenever that grows."""

    def unlisten(self, listener: Callable[[int], None]) -> None:
        """Do not call it any more."""


def read_record(raw: bytes | None) -> Record | None:
    """The record that was kept; None: there is none, or none that this version can read."""
    if raw is None:
        return None
    try:
        found = msgspec.json.decode(raw, type=Record)
    except msgspec.MsgspecError as error:
        logger.warning("attachments_not_read", extra={"error": str(error)})
        return None
    return found if found.version == VERSION else None


def refused_after(record: Record | None, boot: str, is_unbroken_since: Callable[[str], bool]) -> set[Attachment]:
    """Who is to be refused by the server that comes next: those that were, and all that were attached if something may
    be lost since. Of another boot, clients of this machine are gone."""
    if record is None:
        return set()
    lost = [] if is_unbroken_since(record.incarnation) else record.attached
    return {each for each in (*record.refused, *lost) if each.client != HERE or record.boot == boot}


class Attachments:
    """Those of one server. Owned by the event loop."""

    def __init__(
        self,
        keep: Callable[[bytes], Awaitable[None]] | None,
        *,
        incarnation: str = "",
        boot: str = "",
        refused: Iterable[Attachment] = (),
    ) -> None:
        """`keep` writes the record, durably; None: nobody remembers it."""
        self._keep = keep
        self._incarnation, self._boot = incarnation, boot
        self._refused = set(refused)
        self._attached: set[Attachment] = set()
        """Those that the record is to have."""
        self._recorded: set[Attachment] = set()
        """Those of them that it has, and had ever since they attached."""
        self._connections: Counter[Attachment] = Counter()
        self._leaving: Counter[Attachment] = Counter()
        """How often each has left with something that the store does not have yet: it may come back, write more, and
        leave again meanwhile, and by a link it may have been another device.
        """
        self._changed = False
        self._saving: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._failing = False

    @property
    def refused(self) -> list[Attachment]:
        """Who is refused, in order."""
        return sorted(self._refused)

    def refusal(self, wanted: Attachment) -> str | None:
        """Why this client may not have this export now."""
        if wanted not in self._refused:
            return None
        return (
            f"{wanted.export} was attached from here when its server was lost, and writes that were answered and not "
            "flushed may be missing: detach it, have its filesystem checked, and let clients in again with: "
            f"nbdserver client accept {wanted.export}"
        )

    def attach(self, who: Attachment) -> asyncio.Future[None] | None:
        """A client attached. Its requests are to wait for what this gives, if anything."""
        self._connections[who] += 1
        if self._keep is None or who in self._recorded:
            return None
        self._attached.add(who)
        recorded = asyncio.get_running_loop().create_future()
        self._waiting.append(recorded)
        self._save_soon()
        return recorded

    def leave(self, who: Attachment, device: WrittenDevice) -> None:
        """One of its connections is gone. With the last of them it is forgotten, once all that it wrote is durable."""
        self._connections[who] -= 1
        if self._connections[who] or self._keep is None:
            return
        del self._connections[who]
        wanted = device.last_sequence

        def durable(sequence: int) -> None:
            if sequence >= wanted:
                device.unlisten(durable)
                self._leaving[who] -= 1
                self._forget(who)

        if device.want_durable(wanted):
            self._forget(who)
        else:
            self._leaving[who] += 1
            device.listen(durable)

    async def accept(self, export: str) -> list[str]:
        """Refuse nobody this export any more, durably on return; gives whom it was refused."""
        accepted = {each for each in self._refused if each.export == export}
        self._refused -= accepted
        if accepted and self._keep is not None:
            recorded = asyncio.get_running_loop().create_future()
            self._waiting.append(recorded)
            self._save_soon()
            await recorded
        return sorted(each.client for each in accepted)

    async def write(self) -> None:
        """Have the record written as it is now: before anybody attaches, and at the end."""
        self._save_soon()
        while self._saving is not None:
            await asyncio.shield(self._saving)

    def _forget(self, who: Attachment) -> None:
        if not self._connections[who] and not self._leaving[who]:
            del self._leaving[who]
            self._attached.discard(who)
            self._recorded.discard(who)
            self._save_soon()

    def _save_soon(self) -> None:
        self._changed = True
        if self._saving is None:
            self._saving = asyncio.get_running_loop().create_task(self._save())

    async def _save(self) -> None:
        """Write until there is nothing new. A crash anywhere: who waits was answered nothing."""
        try:
            while self._changed and self._keep is not None:
                self._changed = False
                waiting, self._waiting = self._waiting, []
                attached = set(self._attached)
                record = Record(VERSION, self._incarnation, self._boot, sorted(attached), self.refused)
                try:
                    await self._keep(msgspec.json.encode(record))
                    self._failing = False
                except StorageError as error:
                    if not self._failing:
                        logger.warning("attachments_not_kept", extra={"error": str(error)})
                    self._failing = True
                self._recorded |= attached & self._attached
                for each in waiting:
                    if not each.done():
                        each.set_result(None)
        finally:
            self._saving = None
