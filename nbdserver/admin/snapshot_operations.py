"""Operations on snapshots, as `operations` has them of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from nbdserver.admin.asked import NO_CLIENTS, Answer, Clients

if TYPE_CHECKING:
    from storage import Store


RANGES_AT_ONCE = 50_000
"""In one answer, or somewhat more: two megabytes of JSON."""


class ListSnapshots(msgspec.Struct, frozen=True, tag="list-snapshots"):
    """All snapshots, or those of one device, by device and age."""

    device: str | None
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        return {"snapshots": [msgspec.to_builtins(one) for one in await store.snapshots.list(self.device)]}


class DiffSnapshot(msgspec.Struct, frozen=True, tag="diff-snapshot"):
    """What may differ between a snapshot and another one of its device, or, without one, what the device holds now: a
    part of the ranges, from `offset` on, `ranges_max` of them or somewhat more, and where the next part begins.
    """

    device: str
    snapshot: str
    other: str
    offset: int
    ranges_max: int = RANGES_AT_ONCE
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        import asyncio  # a command that only asks a server does without

        device = store.device(f"{self.device}@{self.other}" if self.other else self.device)
        changes, size, at = device.history.since(self.snapshot), device.size, self.offset
        ranges: list[list[int]] = []
        while at < size and len(ranges) < max(self.ranges_max, 1):
            for length, changed in changes.extents(at, size - at):
                if changed and ranges and sum(ranges[-1]) == at:
                    ranges[-1][1] += length
                elif changed:
                    ranges.append([at, length])
                at += length
            await asyncio.sleep(0)
        return {"size": size, "ranges": ranges, "next": at if at < size else None}


class CreateSnapshot(msgspec.Struct, frozen=True, tag="create-snapshot"):
    """A snapshot of each of these devices, at one moment; of all if there are none. It is deleted by itself `lasts`
    seconds from now.
    """

    devices: list[str]
    snapshot: str
    lasts: float | None = None
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        devices = self.devices or list(store.names())
        await store.snapshots.create(devices, self.snapshot, lasts=self.lasts)
        return {"snapshots": [f"{device}@{self.snapshot}" for device in devices]}


class DeleteSnapshot(msgspec.Struct, frozen=True, tag="delete-snapshot"):
    """A snapshot goes."""

    device: str
    snapshot: str
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.snapshots.delete(self.device, self.snapshot)
        return {"name": f"{self.device}@{self.snapshot}"}


class RollBackDevice(msgspec.Struct, frozen=True, tag="roll-back-device"):
    """A device shows what its snapshot shows; what it showed becomes a snapshot with `keep`."""

    device: str
    snapshot: str
    keep: bool
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        kept = await store.snapshots.roll_back(self.device, self.snapshot, keep=self.keep)
        return {"name": self.device, "kept": None if kept is None else f"{self.device}@{kept}"}


class CloneDevice(msgspec.Struct, frozen=True, tag="clone-device"):
    """A new device that shows what a snapshot shows, or, without one, what a device shows now."""

    device: str
    snapshot: str
    new: str
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.snapshots.clone(self.device, self.snapshot, self.new)
        return {"name": self.new, "size": store.device(self.new).size}
