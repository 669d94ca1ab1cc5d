"""Snapshots of an open store: taken, listed, cloned, rolled back to, deleted, while clients of all devices go on.

Each change is one record of the tree of names, made in the step in which a memtable is sealed. When a call returns, the
change is durable and in the indexes. One that was cancelled may have happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from storage.env import Env
from storage.fs.device import Device
from storage.fs.name_tree import NameTree
from storage.fs.snapshot_plans import (
    find_snapshot,
    plan_clone,
    plan_delete_snapshot,
    plan_rollback,
    plan_snapshot,
    temporary_name,
)
from storage.lsm.engine import Engine


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One snapshot as listed; sizes in bytes, time in seconds since 1970."""

    device: str
    name: str
    size: int
    created: float
    automatic: bool
    exclusive_bytes: int
    """What would be free if it were deleted."""


class Snapshots:
    """Owned by the event loop."""

    def __init__(
        self,
        engine: Engine,
        tree: NameTree,
        env: Env,
        refuse_exclusive: Callable[[str, str], None],
        refuse_in_use: Callable[[str, str], None],
        device: Callable[[str], Device],
    ) -> None:
        """`refuse_exclusive` raises Conflict if somebody has what bears that name for itself, and says what was to be
        done; `refuse_in_use` also if clients are attached to it. `device` gives the device of a name.
        """
        self._engine = engine
        self._tree = tree
        self._env = env
        self._refuse_exclusive = refuse_exclusive
        self._refuse_in_use = refuse_in_use
        self._device = device

    async def list(self, device: str | None = None) -> list[SnapshotInfo]:
        """All snapshots, or those of one device, by device and age. NotFound."""
        names = self._tree.namespace
        devices = names.devices() if device is None else [names.device(device)]
        exclusive = await self._engine.meter.exclusive()
        return [
            SnapshotInfo(
                name, layer.name, layer.size, layer.born / 1e9, layer.automatic, exclusive.get(layer.number, 0)
            )
            for name, inode in devices
            for layer in names.table.trunk(inode.layer)[:-1]
        ]

    async def create(self, devices: Sequence[str], snapshot: str) -> None:
        """A snapshot of each of these devices, at one moment. NotFound, AlreadyExists; Invalid: no such name may be."""

        def plan() -> bytes:
            for device in devices:
                self._refuse_exclusive(device, "take a snapshot of it")
            return plan_snapshot(self._tree.namespace, devices, snapshot, self._env.wall_clock())

        await self._change(devices, plan)

    async def delete(self, device: str, snapshot: str) -> None:
        """A snapshot goes; all others stay as they are. NotFound; Conflict while clients are attached to it."""

        def plan() -> bytes:
            self._refuse_in_use(f"{device}@{snapshot}", "delete it")
            return plan_delete_snapshot(self._tree.namespace, device, snapshot)

        await self._change([device], plan)

    async def roll_back(self, device: str, snapshot: str, *, keep: bool = True) -> str | None:
        """The device shows what its snapshot shows, and has its size. With `keep` what it showed before becomes an
        automatic snapshot, whose name this gives. NotFound; Conflict while clients are attached to the device.
        """
        kept: list[str | None] = []

        def plan() -> bytes:
            self._refuse_in_use(device, "roll it back")
            names, now = self._tree.namespace, self._env.wall_clock()
            record, name = plan_rollback(names, device, snapshot, now, keep=keep)
            kept.append(name)
            self._device(device).size = find_snapshot(names, device, snapshot).size
            return record

        await self._change([device], plan)
        return kept[-1]

    async def clone(self, device: str, snapshot: str, new: str) -> None:
        """A new device that shows what a snapshot shows, or without one what the device shows now. NotFound,
        AlreadyExists; Invalid: no such name may be.
        """
        if snapshot:
            names = self._tree.namespace
            await self._change([device], lambda: plan_clone(names, device, snapshot, new, self._env.wall_clock()))
            return
        taken: list[str] = []

        def plan() -> bytes:
            self._refuse_exclusive(device, "clone it")
            taken.append(temporary_name(self._tree.namespace, device))
            return plan_snapshot(self._tree.namespace, [device], taken[0], self._env.wall_clock())

        await self._change([device], plan)
        # A crash from here on leaves a snapshot, which is listed.
        try:
            await self.clone(device, taken[0], new)
        finally:
            await self.delete(device, taken[0])

    async def _change(self, devices: Iterable[str], plan: Callable[[], bytes]) -> None:
        names = self._tree.namespace

        def planned() -> tuple[bytes, list[int]]:
            record = plan()
            return record, [names.device(device)[1].layer for device in devices]

        await self._engine.change_trunks(planned)
