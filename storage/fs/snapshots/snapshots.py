"""Snapshots of an open store: taken, listed, cloned, rolled back to, deleted, while clients of all devices go on.

Each change is one record of the tree of names. When a call returns, the change is durable (it waits for that in
`Engine.change_trunks`); the memtable flush that brings it into the indexes is under way, and the next change waits for
that. One that was cancelled may have happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from storage.env import Env
from storage.errors import Conflict, Invalid, NotFound, StorageError, Unreadable
from storage.fs.devices.device import Device
from storage.fs.devices.history import History
from storage.fs.devices.pins import Pins
from storage.fs.metadata.inodes import LayerRow, SnapshotOrigin
from storage.fs.metadata.snapshot_plans import (
    SnapshotTerms,
    find_snapshot,
    head_above,
    heads_of,
    plan_clone,
    plan_delete_snapshots,
    plan_rollback,
    plan_snapshot,
    temporary_name,
)
from storage.fs.name_tree import NameTree
from storage.lsm.engine import Engine
from storage.lsm.tree_state import TrunkPlan

DELETED_TOGETHER = 1000
"""Snapshots that go by one record at most: the event loop stands still while it is made, planned and applied."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One snapshot as listed; sizes in bytes, times in seconds since 1970."""

    device: str
    name: str
    size: int
    created: float
    expires: float | None
    """When it may be deleted without being asked for."""
    origin: str
    """Who wanted it: one of `SnapshotOrigin`, in small letters."""
    identity: str
    """Of what it holds, as 32 hexadecimal digits: the same in whichever store that is."""
    exclusive_bytes: int
    """What would be free if it were deleted."""


class Snapshots:
    """The snapshots of a store: taken, listed, rolled back to, cloned and deleted. Owned by the event loop."""

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
        self.pins = Pins()
        self.on_change: Callable[[], None] = lambda: None
        """Told when there are other snapshots than before, or fewer are needed."""

    async def list(self, device: str | None = None) -> list[SnapshotInfo]:
        """All snapshots, or those of one device, by device and age. NotFound."""
        names = self._tree.namespace
        devices = names.devices() if device is None else [names.device(device)]
        exclusive = await self._engine.meter.exclusive()
        return [
            SnapshotInfo(
                device=name,
                name=layer.name,
                size=layer.size,
                created=layer.born / 1e9,
                expires=layer.expires / 1e9 if layer.expires else None,
                origin=layer.origin.name.lower(),
                identity=layer.identity.hex(),
                exclusive_bytes=exclusive.get(layer.number, 0),
            )
            for name, inode in devices
            for layer in names.table.trunk(inode.layer)[:-1]
        ]

    def of_device(self, device: str) -> Sequence[LayerRow]:
        """The snapshots of a device, oldest first. NotFound."""
        names = self._tree.namespace
        return names.table.trunk(names.device(device)[1].layer)[:-1]

    async def which_is_held(self, device: str, candidates: Sequence[str], user: str) -> str | None:
        """The first of these snapshots that the device holds exactly, size and content; what may differ is read. A
        candidate that is not there is passed over. NotFound: the device is not. Corrupt, Unreadable.
        """
        names = self._tree.namespace
        # Looked up once: what is compared next is not what the name means by then.
        number = names.device(device)[1].number
        found = {layer.name: layer for layer in self.of_device(device)}
        for layer in (found[name] for name in candidates if name in found):
            if layer.number not in names.layers():
                continue  # deleted while another one was compared, which takes as long as reading
            inode = names.device_file(number)
            history = History(self._engine, self._tree, self._engine.layers[inode.layer])
            with self.pins.pin(layer.number, user):
                if names.size(inode) == layer.size and await history.equals(layer):
                    return layer.name
        return None

    async def create(
        self,
        devices: Sequence[str],
        snapshot: str,
        *,
        lasts: float | None = None,
        origin: SnapshotOrigin = SnapshotOrigin.ASKED,
    ) -> None:
        """A snapshot of each of these devices, at one moment, which is deleted by itself after `lasts` seconds.
        NotFound, AlreadyExists; Invalid: no such name, or no such time, may be.
        """
        if lasts is not None and not 0 < lasts < math.inf:  # nan is no number either
            raise Invalid(f"a snapshot lives for some time, not for {lasts!r} seconds")

        def plan() -> bytes:
            for device in devices:
                self._refuse_exclusive(device, "take a snapshot of it")
            expires = None if lasts is None else self._not_before(devices) + lasts
            return plan_snapshot(self._tree.namespace, devices, snapshot, self._taking(origin, expires=expires))

        await self._change(lambda: (plan(), heads_of(self._tree.namespace, devices)))

    async def delete(self, device: str, snapshot: str) -> None:
        """A snapshot goes; all others stay as they are. NotFound; Conflict while clients are attached to it, or
        something under way needs it.
        """
        names = self._tree.namespace

        def plan() -> tuple[bytes, list[int]]:
            number = find_snapshot(names, device, snapshot).number
            record, heads, stay = plan_delete_snapshots(names, [number], self._refuse_deletion)
            if stay:
                raise stay[number]
            return record, heads

        await self._change(plan)

    async def roll_back(self, device: str, snapshot: str, *, keep: bool = True) -> str | None:
        """The device shows what its snapshot shows, and has its size. With `keep` what it showed before becomes a
        snapshot, whose name this gives. NotFound; Conflict while clients are attached to the device.
        """
        kept: list[str | None] = []
        names = self._tree.namespace

        def plan() -> bytes:
            self._refuse_in_use(device, "roll it back")
            taking = self._taking(SnapshotOrigin.ROLLBACK)
            record, name = plan_rollback(names, device, snapshot, taking, keep=keep)
            kept.append(name)
            return record

        def resize() -> None:
            self._device(device).size = names.size(names.device(device)[1])

        await self._change(lambda: (plan(), heads_of(self._tree.namespace, [device])), resize)
        return kept[-1]

    async def clone(self, device: str, snapshot: str, new: str) -> None:
        """A new device that shows what a snapshot shows, or without one what the device shows now. NotFound,
        AlreadyExists; Invalid: no such name may be.
        """
        names = self._tree.namespace
        if snapshot:
            await self._clone(lambda: find_snapshot(names, device, snapshot).number, new)
            return
        taken: list[int] = []
        given_up, pinned = False, ExitStack()

        def plan() -> bytes:
            if given_up:
                raise Conflict(f"{new!r} is not made any more: who asked for it has gone away")
            self._refuse_exclusive(device, "clone it")
            number = names.device(device)[1].layer
            plan_clone(names, number, new, 0.0)  # what it would be refused for is known before anything is made
            name = temporary_name(names, device, "clone-under-way")
            record = plan_snapshot(names, [device], name, self._taking(SnapshotOrigin.CLONE))
            taken.append(number)
            pinned.enter_context(self.pins.pin(number, "a clone"))
            return record

        # A crash from here on, and whatever else keeps it from its end, leaves a snapshot that is deleted by itself.
        try:
            await self._change(lambda: (plan(), heads_of(self._tree.namespace, [device])))
            await self._clone(lambda: taken[0], new)
        finally:
            given_up = True
            pinned.close()
            self.on_change()
        with suppress(StorageError):  # what has come about is not taken back for what has to be deleted later
            await self.delete_several(taken[:1])

    async def _clone(self, snapshot: Callable[[], int], new: str) -> None:
        names = self._tree.namespace

        def plan() -> tuple[bytes, list[int]]:
            number = snapshot()
            head = head_above(names, number)
            return plan_clone(names, number, new, self._env.wall_clock()), [head]

        await self._change(plan)

    async def delete_several(self, numbers: Sequence[int]) -> dict[int, StorageError]:
        """Snapshots go, whatever their devices are called by now, `DELETED_TOGETHER` by one record: a crash in between
        leaves each, or not. Gives why those that stay do: NotFound, Conflict as `delete` has it, Unreadable.
        """
        refused: dict[int, StorageError] = {}
        going = list(dict.fromkeys(numbers))  # none twice: such a record fits no tree
        for start in range(0, len(going), DELETED_TOGETHER):
            refused |= await self._delete_together(going[start : start + DELETED_TOGETHER])
        return refused

    async def _delete_together(self, numbers: Sequence[int]) -> dict[int, StorageError]:
        """By one record, but for those that are refused."""
        refused: dict[int, StorageError] = {}

        def plan() -> tuple[bytes, list[int]]:
            record, heads, stay = plan_delete_snapshots(self._tree.namespace, numbers, self._refuse_deletion)
            refused.update(stay)
            if not heads:
                raise stay[numbers[0]]
            return record, heads

        try:
            await self._change(plan)
        except (Conflict, NotFound):
            if refused.keys() != set(numbers):
                raise
        except Unreadable as error:
            # The engine refuses all for the sake of one; which, is known when it is alone.
            half = len(numbers) // 2
            if not half:
                return {numbers[0]: error}
            return await self._delete_together(numbers[:half]) | await self._delete_together(numbers[half:])
        return refused

    def free_devices(self) -> Sequence[str]:
        """The devices that nobody has for themselves."""
        return [name for name in self._tree.namespace.names() if self._device(name).exclusive_user is None]

    @contextmanager
    def reading(self, device: str, snapshot: str, user: str) -> Iterator[LayerRow]:
        """A snapshot, which is not deleted in here. NotFound."""
        found = find_snapshot(self._tree.namespace, device, snapshot)
        with self.pins.pin(found.number, user):
            yield found

    def _refuse_deletion(self, number: int, name: str) -> None:
        self._refuse_in_use(name, "delete it")
        user = self.pins.user(number)
        if user is not None:
            raise Conflict(f"{name} is in use by {user}: wait for its end to delete it")

    def _taking(self, origin: SnapshotOrigin, *, expires: float | None = None) -> SnapshotTerms:
        return SnapshotTerms(self._env.wall_clock(), self._env.random_bytes, origin, expires)

    def _not_before(self, devices: Sequence[str]) -> float:
        """When it is now at the earliest: the clock, or when the newest snapshot of these devices was taken. By a clock
        that is behind, what is to live for some time has lived it already when the clock is set; one that was ahead
        only has it live longer.
        """
        return max([self._env.wall_clock(), *(layer.born / 1e9 for each in devices for layer in self.of_device(each))])

    async def _change(self, plan: TrunkPlan, applied: Callable[[], None] | None = None) -> None:
        def made() -> None:
            if applied is not None:
                applied()
            self.on_change()  # here: it is made also if who asked has gone away

        await self._engine.change_trunks(plan, made)
