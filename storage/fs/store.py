"""An open store: its devices and what may be done with them, over its engine and its tree of names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from weakref import WeakValueDictionary

import msgspec

from storage.check.read_run import CheckProgress
from storage.check.read_times import KeptReadTimes
from storage.env import Env
from storage.errors import Conflict, NotFound, StorageError
from storage.format.frame import BLOCK_BYTES
from storage.fs.check import CheckOptions, CheckReport, check_running, device_names, start_scrub
from storage.fs.clearing import Clearing
from storage.fs.device import Device
from storage.fs.device_plans import plan_create_device, plan_delete_device, plan_rename_device, plan_resize_device
from storage.fs.file_tree import FileTree
from storage.fs.filling import Filling
from storage.fs.incarnation import Incarnation
from storage.fs.inodes import Inode
from storage.fs.maintenance import Maintenance
from storage.fs.name_tree import NameTree
from storage.fs.scheduling import Scheduling
from storage.fs.snapshot_plans import find_snapshot, split_snapshot
from storage.fs.snapshots import Snapshots
from storage.fs.status import DeviceUsage, FailingRequest, GarbageStatus, StoreFailure, StoreStatus, unreadable
from storage.fs.store_options import StoreOptions
from storage.fs.store_passwords import StorePasswords
from storage.lsm.compaction.usage import LayerUsage
from storage.lsm.engine import Engine
from storage.lsm.read.extents import allocated_bytes
from storage.objects.counting import RequestStats
from storage.objects.retry import RetryingStore


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One device as listed; size in bytes, times in seconds since 1970."""

    name: str
    size: int
    read_only: bool
    created: float
    modified: float
    mode: int
    uid: int
    gid: int


class Store:
    """An open store. `failed` resolves with the reason when it can go on no more: drop clients, end."""

    def __init__(
        self,
        *,
        objects: RetryingStore,
        stats: RequestStats,
        engine: Engine,
        tree: NameTree,
        env: Env,
        options: StoreOptions,
        created: bool,
    ) -> None:
        self.created = created
        self.incarnation = Incarnation(engine.manifests, engine.host, env)
        self.clients_of: Callable[[str], list[str]] = lambda name: []
        """What the clients that are attached to a device are called; set by the server."""
        self._objects = objects
        self.request_stats = stats
        """What went to the object store and came from it, by verb."""
        self._engine = engine
        self._tree = tree
        self._env = env
        self._options = options
        self._devices: WeakValueDictionary[str, Device] = WeakValueDictionary()
        """As long as anybody has one."""
        self._resizes: set[asyncio.Task[None]] = set()
        self._opened_at = env.monotonic()
        self.opening = engine.opening
        self.snapshots = Snapshots(engine, tree, env, self._refuse_exclusive, self._refuse_in_use, self.device)
        self.files = FileTree(engine, tree, env, self._refuse_in_use)
        self.filling = Filling(engine, tree, env, self.snapshots.pins, self.device, self._delete, self._refuse_in_use)
        self.passwords = StorePasswords(engine, objects, env, options.cost)
        self._reads = KeptReadTimes(engine.host, env)
        self.maintenance = Maintenance(engine, tree, self._reads, env)
        """Maintenance that somebody asks for."""

    def keep_up(self) -> None:
        """From now on, what is to go goes by itself, snapshots are taken as scheduled, and all data is scrubbed."""
        Clearing(self.snapshots, self.filling, self._engine, self._tree, self._env).start()
        if self._options.keep:
            Scheduling(self._options.keep, self.snapshots, self._engine, self._tree, self._env).start()
        if self._options.scrub_seconds is not None:
            start_scrub(self._engine, self._objects, self._reads, self._options.scrub_seconds)

    @property
    def url(self) -> str:
        """Where the store is, without secrets."""
        return self._objects.url

    @property
    def epoch(self) -> int:
        """This writer's epoch."""
        return self._engine.epoch

    @property
    def failed(self) -> asyncio.Future[StorageError]:
        """Resolves when the store is fenced, poisoned or closed."""
        return self._engine.failed

    def devices(self) -> list[DeviceInfo]:
        """All devices, by name."""
        return [self._info(name, inode) for name, inode in self._tree.namespace.devices()]

    def names(self) -> tuple[str, ...]:
        """The names of all devices, in order; the same object until that changes."""
        return self._tree.namespace.names()

    def _info(self, name: str, inode: Inode) -> DeviceInfo:
        return DeviceInfo(
            name=name,
            size=self._tree.namespace.size(inode),
            read_only=self._engine.read_only,
            created=inode.born / 1e9,
            modified=inode.mtime / 1e9,
            mode=inode.mode,
            uid=inode.uid,
            gid=inode.gid,
        )

    def device(self, name: str) -> Device:
        """A device or, `NAME@SNAPSHOT`, a snapshot; no name means the only device. Links are followed. NotFound."""
        name, snapshot = split_snapshot(name)
        if not name:
            names = self.names()
            if len(names) != 1:
                raise NotFound(f"there are {len(names)} devices, so a name is needed")
            name = names[0]
        inode = self._tree.namespace.device(name)[1]
        record, key = self._tree.namespace.layers()[inode.layer], f"inode {inode.number}"
        identity = partial(self._tree.namespace.identity, inode.number)
        if snapshot:
            record = find_snapshot(self._tree.namespace, name, snapshot)
            key = f"layer {record.number}"
            identity = partial("@{}".format, record.number)  # nothing it shows is ever replaced
        device = self._devices.get(key)
        if device is None:
            device = self._devices[key] = Device.of(self._engine, self._tree, record, identity)
        return device

    async def create_device(self, name: str, size: int) -> None:
        """A new device of `size` bytes that reads as zeros; durable when this returns. AlreadyExists; Invalid: no such
        name or size may be; AccessDenied: the store was opened to be read only.
        """
        await self._engine.change_tree(plan_create_device(self._tree.namespace, name, size, self._env.wall_clock()))

    async def resize_device(self, name: str, size: int, *, shrink: bool = False) -> None:
        """Another size, in bytes, a multiple of SIZE_STEP_BYTES; durable when this returns. Making it smaller needs
        `shrink` and no client (else Conflict), and zeroes what it cuts off. NotFound; Invalid: no device may have it.
        """
        self._engine.check_alive()
        self._engine.check_writer()
        namespace = self._tree.namespace
        while True:
            # Looked up again after each wait: the name may mean another device by then.
            own_name, inode = namespace.device(name)
            if size >= namespace.size(inode):
                break
            self._refuse_in_use(own_name, "make it smaller")
            queue = self._engine.layers[inode.layer].queue
            if queue.is_durable:
                break
            # The record must come behind every earlier write of the layer, in the log too.
            await self._engine.durable(queue, queue.last_sequence)
        record = plan_resize_device(namespace, name, size, self._env.wall_clock(), shrink=shrink)
        device = self.device(name)
        changed = self._engine.change_tree(record)
        device.size = min(device.size, size)
        # To its end, also if who asked for it goes away: the log has the new size, and clients must come to see it.
        task = asyncio.create_task(self._show_size(device, inode.number, size, changed))
        self._resizes.add(task)
        task.add_done_callback(self._resizes.discard)
        await asyncio.shield(task)

    async def _show_size(self, device: Device, number: int, size: int, changed: Awaitable[None]) -> None:
        """Let clients see a size that is in the tree, once that is durable: what they write behind the old end is then.

        A crash before that leaves the old size, and nobody has seen another one.
        """
        await changed
        now = self._tree.namespace.size_of(number)
        if now is not None:  # it may be smaller again, or gone
            device.size = min(size, now)

    async def rename_device(self, old: str, new: str) -> None:
        """Another name; durable when this returns. NotFound, AlreadyExists; Conflict while clients are attached."""
        self._refuse_in_use(old, "rename it")
        await self._engine.change_tree(plan_rename_device(self._tree.namespace, old, new, self._env.wall_clock()))

    async def delete_device(self, name: str) -> None:
        """The device and its data go; durable when this returns. NotFound; Conflict while clients are attached."""
        self._refuse_in_use(name, "delete it")
        await self._delete(name)

    def _delete(self, name: str) -> Awaitable[None]:
        """Take a device away, now; that is durable when what this returns was awaited."""
        self._engine.check_alive()
        self._engine.check_writer()
        _, inode = self._tree.namespace.device(name)
        record = plan_delete_device(self._tree.namespace, name, self._env.wall_clock())
        device = self._devices.pop(f"inode {inode.number}", None)
        if device is not None:
            device.retire()
        return self._engine.change_tree(record)

    @contextmanager
    def hold(self, name: str, user: str) -> Iterator[Device]:
        """The device of that name, which is neither deleted, renamed nor made smaller meanwhile, nor should be attached
        (see `Device.exclusive_user`). `user` is what refusals say. NotFound; Conflict if it is attached or held.
        """
        self._refuse_in_use(name, f"hand it to {user}")
        device = self.device(name)
        device.exclusive_user = user
        try:
            yield device
        finally:
            device.exclusive_user = None

    def _refuse_exclusive(self, name: str, action: str) -> None:
        user = self.device(name).exclusive_user
        if user is not None:
            raise Conflict(f"{name!r} is in use by {user}: wait for its end to {action}")

    def _refuse_in_use(self, name: str, action: str) -> None:
        self._refuse_exclusive(name, action)
        clients = self.clients_of(name)
        if clients:
            others = f" and {len(clients) - 1} more" if len(clients) > 1 else ""
            raise Conflict(f"{name!r} is attached by {clients[0]}{others}: detach first to {action}")

    async def flush(self) -> None:
        """Return when everything written so far, to any device, is durable. Closed: the store failed before."""
        await self._engine.flush()

    async def close(self) -> None:
        """Flush, mark the store as closed, and give everything back. Closing a failed store only gives back."""
        try:
            await self._engine.close()
        finally:
            await self._objects.close()

    async def count_usage(self) -> None:
        """Count what is used, for `status` and `device_usage`, unless nothing has changed since. In memory only, in
        pieces of half a millisecond: 60 ms for a terabyte of mapped blocks.
        """
        await self._engine.meter.count()

    def device_usage(self, name: str) -> DeviceUsage:
        """What a device uses, as last counted. NotFound."""
        return self._usage(self._tree.namespace.device(name)[1])

    def _usage(self, inode: Inode) -> DeviceUsage:
        layer, size = self._engine.layers[inode.layer], self._tree.namespace.size(inode)
        used = self._engine.meter.usage.layers.get(inode.layer, LayerUsage(0, 0, 0))
        # A block that was written as one frame reaches beyond the end of the device.
        behind = allocated_bytes(layer.extents(size, -size % BLOCK_BYTES)) if size % BLOCK_BYTES else 0
        return DeviceUsage(
            logical_bytes=size,
            allocated_bytes=max(used.allocated - behind, 0),
            live_bytes=used.live,
            memtable_bytes=used.memtable,
            unlogged_bytes=layer.queue.unlogged_bytes,
            written_bytes=layer.written_bytes,
        )

    async def check(self, options: CheckOptions, progress: CheckProgress) -> CheckReport:
        """Whether all of the store is whole, and what is in memory the same as what lies there. Clients go on."""
        objects = self._objects.with_deadline(self._options.store_deadline_seconds)
        return await check_running(self._engine, self._tree, objects, self._reads, options, progress)

    def status(self) -> StoreStatus:
        """The state of the store now; it may be asked for while the store is closing."""
        engine = self._engine
        failing = self._objects.health.failing
        numbers = engine.numbers()
        devices = self._tree.namespace.devices()
        return StoreStatus(
            url=self.url,
            store_id=engine.store_id.hex(),
            epoch=engine.epoch,
            read_only=engine.read_only,
            devices=len(devices),
            logical_bytes=sum(self._tree.namespace.size(inode) for _, inode in devices),
            allocated_bytes=sum(self._usage(inode).allocated_bytes for _, inode in devices),
            space_amplification=_ratio(numbers.stored_bytes, numbers.live_bytes),
            write_amplification=_ratio(self.request_stats.bytes_up, numbers.written_bytes),
            garbage_objects=len(engine.garbage),
            uptime_seconds=round(self._env.monotonic() - self._opened_at, 3),
            failing=None if failing is None else StoreFailure(self._moment(failing.since), failing.reason),
            failing_requests=[
                FailingRequest(each.request, each.name, self._moment(each.since), each.reason)
                for each in self._objects.health.failing_alone()
            ],
            **msgspec.structs.asdict(numbers),
            unreadable=[unreadable(one, device_names(self._tree), self._moment) for one in engine.suspects()],
            damaged=self._reads.damaged,
            lost=engine.lost(),
            garbage=self._garbage(),
            maintenance=engine.maintenance_job,
            flushing=engine.flushing,
            closing=engine.closing,
            requests=dict(self.request_stats.requests),
            request_errors=self.request_stats.errors,
            bytes_up=self.request_stats.bytes_up,
            bytes_down=self.request_stats.bytes_down,
        )

    def _garbage(self) -> GarbageStatus:
        garbage = self._engine.garbage
        failing = garbage.failing
        if failing is None:
            return GarbageStatus(len(garbage), None, "")
        return GarbageStatus(len(garbage), self._moment(failing.since), failing.reason)

    def _moment(self, monotonic: float) -> float:
        """The wall clock's time of a moment of the monotonic clock."""
        return round(self._env.wall_clock() - (self._env.monotonic() - monotonic), 3)


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 3) if whole else 0.0
