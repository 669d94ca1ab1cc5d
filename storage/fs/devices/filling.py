"""Filling: a device takes a whole content from somewhere, held by who fills it, wholly or not at all.

A new device is `filling` in the tree of names from the record that makes it on, and one that goes on from a snapshot
from a record before the first write. One record ends that, or makes a snapshot of what was filled in, when all of it
is durable. So after a crash the tree says of a device that it has not all: nobody gets it then, and the next writer
deletes it, or rolls it back to the snapshot it went on from. What has failed is undone in the same way at once.

A device whose content another one is to replace goes on from a snapshot that is taken for that, and that is deleted by
itself when nothing goes on from it any more.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import msgspec

from storage.env import Env
from storage.errors import AccessDenied, AlreadyExists, Conflict, NotFound, StorageError
from storage.fs.devices.device import Device
from storage.fs.devices.history import History
from storage.fs.devices.pins import Pins
from storage.fs.metadata.device_plans import plan_create_device
from storage.fs.metadata.inodes import (
    SIZE_STEP_BYTES,
    Edit,
    FreezeLayer,
    Inode,
    LayerRow,
    PutInode,
    PutLayer,
    RollBackLayer,
    SnapshotOrigin,
)
from storage.fs.metadata.records import encode_edits
from storage.fs.metadata.snapshot_plans import (
    SnapshotTerms,
    plan_delete_snapshots,
    plan_snapshot,
    split_snapshot,
    temporary_name,
)
from storage.fs.name_tree import NameTree
from storage.lsm.engine import Engine


@dataclass(frozen=True, slots=True)
class IncomingSnapshot:
    """A snapshot that comes from elsewhere: what it is called, its identity, its size in bytes, and when it was taken,
    in nanoseconds since 1970."""

    name: str
    identity: bytes
    size: int
    born: int


class Filling:
    """Fills the devices of one open store from elsewhere, wholly or not at all. Owned by the event loop."""

    def __init__(
        self,
        engine: Engine,
        tree: NameTree,
        env: Env,
        pins: Pins,
        device: Callable[[str], Device],
        delete: Callable[[str], Awaitable[None]],
        refuse_in_use: Callable[[str, str], None],
    ) -> None:
        """`device` gives the device of a name; `delete` takes one away now,
        and what it gives says when that is durable; `refuse_in_use` raises Conflict if somebody has it.
        """
        self._engine = engine
        self._tree = tree
        self._env = env
        self._pins = pins
        self._device = device
        self._delete = delete
        self._refuse_in_use = refuse_in_use
        self._under_way: set[int] = set()
        """The layers that are being filled now."""
        self.on_cut_short: Callable[[], None] = lambda: None
        """Told when something was not filled to its end, and could not be undone at once."""

    def left(self) -> list[int]:
        """The layers that are not filled to their end, and that nobody fills."""
        layers = self._tree.namespace.layers().values()
        return sorted(layer.number for layer in layers if layer.filling and layer.number not in self._under_way)

    async def undo_new(self) -> None:
        """The devices that an earlier writer was making, and did not fill to their end, go: nobody is to find one of
        that name. A crash leaves them to the next writer.
        """
        for number in self.left():
            if not self._layer(number).base:
                await self.undo(number)

    def check_new(self, name: str) -> None:
        """Raise what a new device of that name would be refused for now. AlreadyExists, Conflict, Invalid."""
        plan_create_device(self._tree.namespace, name, SIZE_STEP_BYTES, self._env.wall_clock())

    @asynccontextmanager
    async def new(
        self, name: str, size: int, user: str, arrival: IncomingSnapshot | None = None
    ) -> AsyncIterator[Device]:
        """A new device, held from its first moment by `user`, who fills it in here; gone again if that fails. What it
        holds is durable at the end, and is the snapshot `arrival` if there is one. AlreadyExists.
        """
        names = self._tree.namespace
        record = plan_create_device(names, name, size, self._env.wall_clock(), filling=True)
        created = self._engine.change_tree(record)
        device = self._device(name)
        device.exclusive_user = user
        number = names.device(name)[1].layer
        self._under_way.add(number)
        try:
            await created
            yield device
            await self._finish(number, arrival)
        except BaseException:
            # Deleted in this very turn, so that nobody gets it between its user and the end.
            with suppress(StorageError):
                await asyncio.shield(self._take_away(number))
            raise
        finally:
            self._give_back(device, number)

    @asynccontextmanager
    async def onto(self, name: str, base: bytes, user: str, arrival: IncomingSnapshot) -> AsyncIterator[Device]:
        """A device that holds what its snapshot of identity `base` holds, to make `arrival` of it in here. It is as it
        was if that fails. Conflict: it holds something else, or has no such snapshot. AlreadyExists: it has that one,
        or another of its name.
        """
        self._refuse_in_use(name, f"hand it to {user}")
        device = self._device(name)
        device.exclusive_user = user
        number = self._tree.namespace.device(name)[1].layer
        self._under_way.add(number)
        try:
            origin = self._origin(name, base, arrival)
            with self._pins.pin(origin.number, user):
                await self._refuse_changed(name, origin)
                async with self._going_on(device, number, origin, arrival.size, arrival):
                    yield device
        finally:
            self._give_back(device, number)

    @asynccontextmanager
    async def over(self, name: str, user: str, check: Callable[[Device], Awaitable[None]]) -> AsyncIterator[Device]:
        """A device whose content is replaced in here, once `check` has raised nothing. It is as it was if that fails;
        until the end the store has both. Nobody else changes it meanwhile, nor attaches it. Conflict: somebody has it.
        AccessDenied: it is a snapshot.
        """
        if split_snapshot(name)[1]:
            raise AccessDenied(f"{name!r} is a snapshot, and read-only: import into a device")
        self._refuse_in_use(name, f"hand it to {user}")
        device, file = self._device(name), self._tree.namespace.device(name)[1].number
        device.exclusive_user = user
        number = 0
        try:
            await check(device)
            with ExitStack() as pinned:
                origin = await self._set_aside(name, file, user, pinned)
                # By its number: the name may be a link, and lead to another device by now.
                number = self._tree.namespace.device_file(file).layer
                self._under_way.add(number)
                async with self._going_on(device, number, origin, device.size, None):
                    yield device
            with suppress(StorageError):  # what has come about is not taken back for what has to be deleted later
                await self._delete_aside(origin.number)
        finally:
            self._give_back(device, number)

    @asynccontextmanager
    async def _going_on(
        self, device: Device, number: int, origin: LayerRow, size: int, arrival: IncomingSnapshot | None
    ) -> AsyncIterator[None]:
        """What is filled in from `origin` on, which is what the device is again if that fails."""
        try:
            await self._begin(number, origin, size)
            device.size = size
            yield
            await self._finish(number, arrival)
        except BaseException:
            with suppress(StorageError):
                await asyncio.shield(self.undo(number))
            raise

    def _give_back(self, device: Device, number: int) -> None:
        """Nobody fills it any more; what could not be undone is nobody's until it is."""
        self._under_way.discard(number)
        if number not in self.left():
            device.exclusive_user = None
        self.on_cut_short()

    async def _set_aside(self, name: str, file: int, user: str, pinned: ExitStack) -> LayerRow:
        """A snapshot of a device as it is now, which stays as long as it is `pinned`. A crash leaves one that is
        deleted by itself. Conflict: its name means another one than the `file` that is to be filled.
        """
        names, taken, given_up = self._tree.namespace, list[int](), False

        def plan() -> tuple[bytes, list[int]]:
            if given_up:
                raise Conflict(f"{name!r} is not filled any more: who asked for it has gone away")
            inode = names.device(name)[1]
            if inode.number != file:
                raise Conflict(f"{name!r} became the name of another device meanwhile: nothing was written, try again")
            number = inode.layer
            terms = SnapshotTerms(self._env.wall_clock(), self._env.random_bytes, SnapshotOrigin.CLONE, None)
            record = plan_snapshot(names, [name], temporary_name(names, name, "import-under-way"), terms)
            pinned.enter_context(self._pins.pin(number, user))
            taken.append(number)
            return record, [number]

        try:
            await self._engine.change_trunks(plan)
        finally:
            given_up = True
        return names.layers()[taken[0]]

    async def _delete_aside(self, number: int) -> None:
        """It has served its turn. NotFound: it went already; Conflict: somebody has it, and it goes later."""
        names = self._tree.namespace

        def refuse(number: int, name: str) -> None:
            self._refuse_in_use(name, "delete it")
            if number in self._pins:
                raise Conflict("somebody reads it")

        def plan() -> tuple[bytes, list[int]]:
            record, heads, stay = plan_delete_snapshots(names, [number], refuse)
            if stay:
                raise stay[number]
            return record, heads

        await self._engine.change_trunks(plan)

    def _origin(self, name: str, base: bytes, arrival: IncomingSnapshot) -> LayerRow:
        """The snapshot to go on from."""
        own_name, inode = self._tree.namespace.device(name)
        snapshots = {layer.identity: layer for layer in self._tree.namespace.table.trunk(inode.layer)[:-1]}
        if arrival.identity in snapshots:
            raise AlreadyExists(f"{own_name}@{snapshots[arrival.identity].name} holds all of this already")
        if base not in snapshots:
            newest = f"its newest is {list(snapshots.values())[-1].name!r}" if snapshots else "it has none"
            raise Conflict(
                f"{own_name!r} has no snapshot with the content that this goes on from (identity {base.hex()}); "
                f"{newest}: import what lies in between first"
            )
        origin = snapshots[base]
        if arrival.name in {layer.name for layer in snapshots.values()}:
            raise AlreadyExists(f"there is a {own_name}@{arrival.name} already, with another content")
        return origin

    async def _refuse_changed(self, name: str, origin: LayerRow) -> None:
        """Conflict: the device does not hold what that snapshot of it holds, which is kept meanwhile."""
        own_name, inode = self._tree.namespace.device(name)
        history = History(self._engine, self._tree, self._engine.layers[inode.layer])
        if self._tree.namespace.size(inode) != origin.size or not await history.equals(origin):
            raise Conflict(
                f"{own_name!r} was changed since its snapshot {origin.name!r}, which this goes on from: "
                f"roll it back first, with: nbdserver snapshot rollback {own_name}@{origin.name}"
            )

    async def _begin(self, number: int, origin: LayerRow, size: int) -> None:
        """The layer is being filled from now on, and has its size to be. A crash after that has it rolled back."""
        # The record must come behind every earlier write of the layer, in the log too: it may cut something off.
        await self._engine.flush()
        layer, inode = self._layer(number), self._inode(number)
        changed = msgspec.structs.replace(layer, size=size, filling=True, base=origin.number)
        other = msgspec.structs.replace(inode, generation=inode.generation + 1)
        await self._engine.change_tree(encode_edits([PutLayer(changed), PutInode(other)]))

    async def _finish(self, number: int, arrival: IncomingSnapshot | None) -> None:
        """It has all. A crash before the record leaves it to be undone; the record is in the log behind all that was
        filled in.
        """
        await self._engine.flush()
        if arrival is None:
            whole = msgspec.structs.replace(self._layer(number), filling=False, base=0)
            await self._engine.change_tree(encode_edits([PutLayer(whole)]))
            return

        def plan() -> tuple[bytes, list[int]]:
            if self._layer(number).size != arrival.size:
                raise Conflict("the device got another size while it was filled")
            (child,) = self._tree.namespace.next_layers(1)
            inode = self._inode(number)
            frozen = FreezeLayer(inode.number, child, arrival.name, arrival.born, arrival.identity)
            return encode_edits([frozen]), [number]

        await self._engine.change_trunks(plan)

    async def undo(self, number: int) -> None:
        """What was not filled to its end is as it was before, or gone if it was not there. Unreadable: not now."""
        layer = self._tree.namespace.layers().get(number)
        if layer is None or not layer.filling:
            return
        if not layer.base:
            await self._take_away(number)
            return
        name, inode = self._file_of(number)
        device = self._device(name)

        def plan() -> tuple[bytes, list[int]]:
            layer = self._layer(number)
            if not layer.filling:
                raise NotFound("it was filled to its end")
            (child,) = self._tree.namespace.next_layers(1)
            edits: list[Edit] = [RollBackLayer(inode.number, layer.base, child)]
            return encode_edits(edits), [number]

        def applied() -> None:
            device.size = self._tree.namespace.size(self._tree.namespace.device_file(inode.number))
            device.exclusive_user = None

        await self._engine.change_trunks(plan, applied)

    def _take_away(self, number: int) -> Awaitable[None]:
        """A new device that is not filled goes now, by its own name; that is durable when what this gives was awaited.
        NotFound: it has gone, or was filled to its end.
        """
        if not self._layer(number).filling:
            raise NotFound("it was filled to its end")
        return self._delete(self._file_of(number)[0])

    def _layer(self, number: int) -> LayerRow:
        """NotFound: it was frozen, or dropped."""
        layer = self._tree.namespace.layers().get(number)
        if layer is None or layer.frozen:
            raise NotFound(f"nobody writes to layer {number} any more")
        return layer

    def _inode(self, number: int) -> Inode:
        """The device file of a layer that is written to."""
        return self._file_of(number)[1]

    def _file_of(self, number: int) -> tuple[str, Inode]:
        """The same, with its own name."""
        return next(found for found in self._tree.namespace.devices() if found[1].layer == number)
