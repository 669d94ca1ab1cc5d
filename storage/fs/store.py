"""An open store: its devices and what may be done with them, over its engine and its tree of names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from storage.check.read_run import CheckProgress
from storage.check.read_times import StoredReadTimes
from storage.env import Env
from storage.errors import StorageError
from storage.fs.check import CheckOptions, CheckReport, check_running, start_scrub
from storage.fs.current_status import current_status, device_usage
from storage.fs.devices.device import Device
from storage.fs.devices.filling import Filling
from storage.fs.devices.open_devices import OpenDevices
from storage.fs.file_tree import FileTree
from storage.fs.incarnation import Incarnation
from storage.fs.key_retirement import KeyRetirement
from storage.fs.maintenance import Maintenance
from storage.fs.metadata.device_plans import (
    plan_create_device,
    plan_delete_device,
    plan_rename_device,
    plan_resize_device,
)
from storage.fs.metadata.inodes import Inode
from storage.fs.name_tree import NameTree
from storage.fs.pictures import Pictures
from storage.fs.request_governor import RequestGovernor
from storage.fs.snapshots.clearing import Clearing
from storage.fs.snapshots.scheduling import Scheduling
from storage.fs.snapshots.snapshots import Snapshots
from storage.fs.status import DeviceInfo, DeviceUsage, StoreStatus, UntakenSnapshot, ViewStatus
from storage.fs.store_options import StoreOptions
from storage.fs.store_passwords import StorePasswords
from storage.fs.succession.signs_of_life import SignsOfLife
from storage.fs.succession.stored_attachments import StoredAttachments
from storage.fs.upkeep import Upkeep
from storage.lsm.engine import Engine
from storage.objects.counting import RequestStats
from storage.objects.retry import RetryingStore


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
        signs: SignsOfLife | None = None,
    ) -> None:
        self.created = created
        self.signs = signs
        """Those that it gives for servers that stand by; None: it gives none."""
        stored = None if signs is None else StoredAttachments(objects, engine.key, env, engine.failed)
        self.incarnation = Incarnation(engine.manifests, engine.host, env, stored, engine.look_for_newer)
        self.view: Callable[[], ViewStatus | None] = lambda: None
        """How old it is, if it is one of the views of a store that somebody else writes."""
        self._objects = objects
        self.request_stats = stats
        """What went to the object store and came from it, by verb."""
        self._engine, self._tree, self._env = engine, tree, env
        self._options = options
        self.open_devices = OpenDevices(engine, tree)
        self._resizes: set[asyncio.Task[None]] = set()
        self.opened_at = env.monotonic()
        """By the monotonic clock; of a view, when the following of its store began."""
        self.opening = engine.opening
        refuse_in_use = self.open_devices.refuse_in_use
        self.snapshots = Snapshots(
            engine, tree, env, self.open_devices.refuse_exclusive, refuse_in_use, self.open_devices.device
        )
        self.files = FileTree(engine, tree, env, refuse_in_use)
        self.filling = Filling(
            engine, tree, env, self.snapshots.pins, self.open_devices.device, self._delete, refuse_in_use
        )
        self.pictures = Pictures(engine, tree, self.open_devices)
        self.passwords = StorePasswords(engine, objects, env, options.cost)
        self._retirement = KeyRetirement(engine, objects, env, options.cost, self.passwords.keep_twice)
        self._reads = StoredReadTimes(engine.host, env)
        self.upkeep = Upkeep(
            lambda keep: Scheduling(keep, self.upkeep.untaken, self.snapshots, engine, tree, env).start(),
            lambda seconds: start_scrub(engine, objects, self._reads, seconds),
        )
        self.prices = options.prices
        """Those by which the status says what the store costs; None: it does not."""
        self.governor = RequestGovernor(engine, stats, env)
        self.maintenance = Maintenance(engine, tree, self._reads, env)
        """Maintenance that somebody asks for."""

    def keep_up(self) -> None:
        """From now on, what is to go goes by itself, snapshots are taken as scheduled, all data is
        scrubbed, and a rotation of the data key comes to its end.
        """
        Clearing(self.snapshots, self.filling, self._engine, self._tree, self._env).start()
        self.passwords.keep_twice()
        self.upkeep.begin(self._options.keep, self._options.scrub_seconds)
        self.governor.begin(self._options.request_budget)
        self._retirement.start()
        if (host := self._engine.host) is not None:
            self._engine.background.start(
                "state of this host", partial(host.unsaved.run, self._env), on_failure=self._engine.fail
            )

    @property
    def url(self) -> str:
        """Where the store is, without secrets."""
        return self._objects.url

    @property
    def key_id(self) -> int:
        """Of the data key that this process seals under."""
        return self._engine.key.key_id

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

    def info(self, name: str) -> DeviceInfo:
        """One device; a symbolic link gives what it leads to. NotFound."""
        return self._info(*self._tree.namespace.device(name))

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
        return self.open_devices.device(name)

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
            # Whoever fills it may have to give it back as it was.
            self.open_devices.refuse_exclusive(own_name, "give it another size")
            if size >= namespace.size(inode):
                break
            self.open_devices.refuse_in_use(own_name, "make it smaller")
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
        disk = namespace.identity(inode.number)
        task = asyncio.create_task(self._show_size(device, inode.number, disk, size, changed))
        self._resizes.add(task)
        task.add_done_callback(self._resizes.discard)
        await asyncio.shield(task)

    async def _show_size(self, device: Device, number: int, disk: str, size: int, changed: Awaitable[None]) -> None:
        """Let clients see a size that is in the tree, once that is durable: what they write behind the old end is then.

        A crash before that leaves the old size, and nobody has seen another one.
        """
        await changed
        now = self._tree.namespace.size_of(number)
        # It may be smaller again, rolled back to a size that is shown already, or gone: then it is another disk.
        if now is not None and self._tree.namespace.identity(number) == disk:
            device.size = min(size, now)

    async def rename_device(self, old: str, new: str) -> None:
        """Another name; durable when this returns. NotFound, AlreadyExists; Conflict while clients are attached."""
        self.open_devices.refuse_in_use(old, "rename it")
        await self._engine.change_tree(plan_rename_device(self._tree.namespace, old, new, self._env.wall_clock()))

    async def delete_device(self, name: str) -> None:
        """The device and its data go; durable when this returns. NotFound; Conflict while clients are attached."""
        self.open_devices.refuse_in_use(name, "delete it")
        await self._delete(name)

    def _delete(self, name: str) -> Awaitable[None]:
        """Take a device away, now; that is durable when what this returns was awaited."""
        self._engine.check_alive()
        self._engine.check_writer()
        _, inode = self._tree.namespace.device(name)
        record = plan_delete_device(self._tree.namespace, name, self._env.wall_clock())
        self.open_devices.retire(inode)
        return self._engine.change_tree(record)

    async def flush(self) -> None:
        """Return when everything written so far, to any device, is durable. Closed: the store failed before."""
        await self._engine.flush()

    async def close(self) -> None:
        """Flush, mark the store as closed, and give everything back. Closing a failed store only gives back."""
        self.incarnation.keep_here()
        self.upkeep.end()
        try:
            await self.governor.save()
            await self.passwords.finish()
            await self._engine.close()
        finally:
            if self.signs is not None:
                await self.signs.stop()
            await self._objects.close()

    async def end(self, error: StorageError) -> None:
        """Fail what is still asked of it, without a word to where it lies."""
        self._engine.fail(error)
        await self._engine.close()

    async def count_usage(self) -> None:
        """Count what is used, for `status` and `device_usage`, unless nothing has changed since. In memory only, in
        pieces of half a millisecond: 60 ms for a terabyte of mapped blocks.
        """
        await self._engine.meter.count()

    def device_usage(self, name: str) -> DeviceUsage:
        """What a device uses, as last counted. NotFound."""
        return device_usage(self._engine, self._tree.namespace, self._tree.namespace.device(name)[1])

    async def check(self, options: CheckOptions, progress: CheckProgress) -> CheckReport:
        """Whether all of the store is whole, and what is in memory the same as what lies there. Clients go on."""
        self._engine.check_writer()
        objects = self._objects.with_deadline(self._options.store_deadline_seconds)
        return await check_running(self._engine, self._tree, objects, self._reads, options, progress)

    def status(self) -> StoreStatus:
        """The state of the store now; it may be asked for while the store is closing."""
        status = current_status(
            self._engine,
            self._tree,
            self._objects,
            self.request_stats,
            self._env,
            view=self.view(),
            opened_at=self.opened_at,
            damaged=self._reads.damaged,
            passwords=self.passwords,
            prices=self.prices,
            budget=self.governor.outlook,
        )
        untaken = [UntakenSnapshot(name, each.since, each.reason) for name, each in sorted(self.upkeep.untaken.items())]
        return msgspec.structs.replace(status, rotation=self._retirement.status(), untaken=untaken)
