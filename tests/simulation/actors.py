"""The clients of one session: they write, discard, flush and read, and make, resize and delete disks.

An actor attaches to a disk for a few requests, as a connection does; disks that somebody is attached to are not deleted
or made smaller. Every answer to a read is compared with the model at once, every flush is told to the oracle when it
is answered, whether its actor waited for it or not.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial

from storage.errors import StorageError
from storage.lsm.read.extents import ExtentState
from tests.simulation.attached import SECTOR, Attached, Work
from tests.simulation.changes import KINDS, Operator
from tests.simulation.disk_history import BLOCK_BYTES, Image
from tests.support.inside import engine_of


class Actor(Attached):
    """One client."""

    def __init__(self, work: Work, chance: random.Random, name: str) -> None:
        super().__init__(work, chance, name)
        self._changes = Operator(work, random.Random(chance.random()), name, self._fill_new)
        weights = {kind: weight for kind, weight in work.profile.weights.items() if weight}
        self._kinds = list(weights)
        self._weights = list(weights.values())
        self._habits: dict[str, Callable[[], Awaitable[None]]] = {
            "sector": self._sector,
            "odd": self._odd,
            "medium": self._medium,
            "block": self._whole_block,
            "run": self._run,
            "blank": self._blank,
            "rewrite": self._rewrite,
            "trim": self._trim,
            "zeroes": self._zeroes,
            "wide": self._wide,
            "flush": self._flush,
            "read": self._read,
            "scan": self._scan,
            "hang_up": self._hang_up,
            "extents": self._extents,
            "prefetch": self._prefetch,
            "checkpoint": self._checkpoint,
            "past": self._past,
        }

    async def run(self) -> None:
        """Do requests until the session's budget is spent or the store has failed."""
        work = self._work
        while self._goes_on() and work.spend(counts=True):
            await asyncio.sleep(work.profile.think_seconds * self._chance.expovariate(1.0))
            names = self._free()
            if not names or self._chance.random() < 0.02:
                await self._tree("create", names)
                continue
            await self._attach(self._chance.choice(names))

    async def _attach(self, name: str) -> None:
        """Do some requests on one disk, or change the tree."""
        habits = []
        for _ in range(self._chance.choice([1, 3, 10])):
            kind = self._chance.choices(self._kinds, self._weights)[0]
            if kind in KINDS:
                break
            habits.append(self._habits[kind])
        await self.use(name, habits)
        if kind in KINDS and self._goes_on():
            await self._tree(kind, self._free())

    async def use(self, name: str, habits: list[Callable[[], Awaitable[None]]]) -> None:
        """Be attached to a disk, and do some requests."""
        work = self._work
        self._device = work.store.device(name)
        self._limiter = self._device.gate.rate_limiter(asyncio.get_running_loop().time)
        self._on = name
        # The layer of a snapshot is always the same, and its device may get another name meanwhile.
        self._snapshot = work.layer_of(name) if "@" in name else None
        work.users[name] = work.users.get(name, 0) + 1
        try:
            for habit in habits:
                if not self._goes_on() or not work.spend(counts=habit != self._scan):
                    break
                await habit()
                if self._chance.random() < 0.5:
                    await asyncio.sleep(work.profile.think_seconds * self._chance.expovariate(1.0))
        except StorageError as error:
            if not work.store.failed.done() and not work.oracle.superseded(work.session):
                what = f"{type(error).__name__}: {error}"
                work.violate(f"{self._name}: a request to {name} failed with {what}")
        finally:
            work.users[name] -= 1

    async def _sector(self) -> None:
        first = self._block() * 64 + self._chance.randrange(64)
        await self._write(first * SECTOR, SECTOR * self._chance.choice([1, 1, 1, 2, 5]))

    async def _odd(self) -> None:
        """Neither begins nor ends where a sector does, mostly."""
        offset = self._block() * BLOCK_BYTES + self._chance.choice(
            [self._chance.randrange(2 * SECTOR), self._chance.randrange(BLOCK_BYTES), BLOCK_BYTES - 700]
        )
        step = self._chance.choice([1, 512])
        length = self._chance.choice([1, 512, 3000, 4096, 6000, 9000])
        await self._write(offset // step * step, max(length // step * step, step))

    async def _medium(self) -> None:
        await self._write(self._block() * BLOCK_BYTES + self._chance.randrange(4) * 64 * 1024, 64 * 1024)

    async def _whole_block(self) -> None:
        await self._write(self._block() * BLOCK_BYTES, BLOCK_BYTES)

    async def _run(self) -> None:
        """A run of blocks, in one request or in several that fill them."""
        first = self._block() * BLOCK_BYTES
        length = self._chance.choice([2, 2, 3, 5, 17]) * BLOCK_BYTES
        step = self._chance.choice([length, length, BLOCK_BYTES, 64 * 1024, 96 * 1024])
        if length > 5 * BLOCK_BYTES:
            step = max(step, BLOCK_BYTES)
        for at in range(0, length, step):
            if first + at < self._device.size:
                await self._write(first + at, min(step, length - at))

    async def _blank(self) -> None:
        """A write of nothing but zeros is data to the client and costs the store nothing."""
        length = self._chance.choice([SECTOR, 64 * 1024, BLOCK_BYTES, 2 * BLOCK_BYTES])
        await self._write(self._block() * BLOCK_BYTES, length, bytes(length))

    async def _rewrite(self) -> None:
        """The same place several times, with parts of it between."""
        block = self._block() * BLOCK_BYTES
        for _ in range(self._chance.choice([2, 3])):
            await self._write(block, BLOCK_BYTES)
            at = self._chance.randrange(64) * SECTOR
            if self._chance.random() < 0.5:
                await self._write(block + at, SECTOR)
            elif self._chance.random() < 0.5:
                await self._write(block + at + 100, 1000)

    async def _trim(self, *, allocated: bool = False) -> None:
        offset = self._block() * BLOCK_BYTES
        kind = self._chance.random()
        if kind < 0.3:
            await self._zero(offset + self._chance.randrange(BLOCK_BYTES), 1000, allocated=allocated)
        elif kind < 0.6:
            sectors = self._chance.choice([1, 3, 40])
            await self._zero(offset + self._chance.randrange(64) * SECTOR, sectors * SECTOR, allocated=allocated)
        else:
            await self._zero(offset, self._chance.choice([1, 1, 2, 3]) * BLOCK_BYTES, allocated=allocated)

    async def _zeroes(self) -> None:
        await self._trim(allocated=True)

    async def _wide(self) -> None:
        """From somewhere to far behind it, or the whole disk."""
        allocated = self._chance.random() < 0.3
        size = self._device.size
        if allocated:
            size = min(size, 3 * 1024**3)
        start = self._chance.choice([0, 0, self._chance.randrange(BLOCK_BYTES), BLOCK_BYTES])
        if start < size:
            length = self._chance.choice([size - start, 3 * BLOCK_BYTES + 5000, 4 * BLOCK_BYTES])
            await self._zero(start, length, allocated=allocated)

    # --- durability

    async def _flush(self) -> None:
        # What was answered before the flush is admitted, and so in the history by now.
        waits = self._chance.random() < 0.7
        await self._durable(self._device.last_sequence, len(self._disk.ops), waits=waits)

    # --- reads

    async def _read(self) -> None:
        offset, length = self._place_to_read()
        device, disk = self._device, self._disk
        found = device.read_cached(offset, length)
        if found is not None:
            self._compare("cached", offset, found, disk.live.read(offset, length))
        else:
            await self._fetch(offset, length)

    async def _scan(self) -> None:
        """Many short looks at what is in memory, while whatever else goes on."""
        for _ in range(self._chance.choice([10, 40])):
            if not self._goes_on():
                return
            offset, length = self._place_to_read()
            found = self._device.read_cached(offset, length)
            if found is None:
                await self._fetch(offset, length)
            else:
                self._compare("cached", offset, found, self._disk.live.read(offset, length))
            await asyncio.sleep(self._chance.choice([0, 0, 0, 0.0001, self._work.profile.faults.seconds / 5]))

    async def watch(self) -> None:
        """Look hard whenever a manifest was committed: that is when memory changes under the readers."""
        while True:
            await self._work.next_commit()
            names = self._free()
            if names and self._goes_on():
                await self.use(self._chance.choice(names), [self._scan] * 2)

    async def _hang_up(self) -> None:
        """A client goes away while its read is under way; nobody else may notice."""
        offset, length = self._cut(self._block() * BLOCK_BYTES, 2 * BLOCK_BYTES)
        first, end = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1
        disk, history = self._disk, len(self._disk.ops)
        reading = asyncio.ensure_future(self._device.read(offset, length))
        await asyncio.sleep(self._work.profile.faults.seconds * self._chance.expovariate(1.0))
        reading.cancel()
        await asyncio.wait({reading})
        if reading.cancelled() or (error := reading.exception()) is None:
            return
        if not self._work.damage.excuses(error, self._work.session, disk, history, first, end):
            raise error

    async def _extents(self) -> None:
        """Of a few blocks, or of everything from somewhere on."""
        length = self._chance.choice([BLOCK_BYTES, 10 * BLOCK_BYTES, self._device.size])
        offset, length = self._cut(self._block() * BLOCK_BYTES, length)
        runs = self._device.extents(offset, length)
        check_extents(runs, offset, length, self._disk.live, self._work.violate)

    async def _prefetch(self) -> None:
        self._device.prefetch(*self._cut(self._block() * BLOCK_BYTES, 4 * BLOCK_BYTES))

    async def _past(self) -> None:
        """Somebody reads a snapshot: it shows what it showed."""
        names = [name for name in self._work.session.devices[-1] if "@" in name]
        if names:
            other = self._neighbour()
            await other.use(self._chance.choice(sorted(names)), [other._read, other._read, other._scan, other._extents])

    async def _checkpoint(self) -> None:
        """Somebody asks for a memtable flush (a change of password does), and perhaps does not wait for its end."""
        flushing = asyncio.ensure_future(engine_of(self._work.store).flush_memtable(always=True))
        if self._chance.random() < 0.5:
            await flushing
            return
        await asyncio.sleep(self._work.profile.faults.seconds * self._chance.expovariate(0.3))
        flushing.cancel()
        await asyncio.wait({flushing})
        if not flushing.cancelled() and (error := flushing.exception()) is not None:
            raise error

    # --- the tree

    async def _tree(self, kind: str, names: list[str]) -> None:
        """Change the tree, perhaps in the midst of what a neighbour does on a disk."""
        if not names or self._chance.random() >= self._work.profile.crossings:
            await self._changes.make(kind, names)
            return
        name = self._chance.choice(names)
        if kind == "delete":
            idle = [name for name in names if not self._work.users.get(name)]
            if not idle or len(names) < 2:
                return
            # What is about to go has something in the memtable, and that is durable.
            doomed = self._chance.choice(idle)
            client = self._neighbour()
            await client.use(doomed, [client._sector, client._flush])
            names = [doomed]
            others = [other for other in self._free() if other != doomed]
            if not others:
                return
            name = self._chance.choice(others)
            self._work.watch_closely()
        neighbour = self._neighbour()
        await neighbour.use(name, [partial(neighbour.cross, lambda: self._changes.make(kind, names))])

    def _neighbour(self) -> "Actor":
        return Actor(self._work, random.Random(self._chance.random()), f"{self._name}'s neighbour")

    def _free(self) -> list[str]:
        """The disks that a client may attach to."""
        store = self._work.store
        return [info.name for info in store.devices() if store.device(info.name).exclusive_user is None]

    async def _fill_new(self, name: str) -> None:
        """Write to a disk that is being imported, and want it durable, as imports do."""
        neighbour = self._neighbour()
        await neighbour.use(name, [neighbour._sector, neighbour._whole_block, neighbour._run, neighbour._flush])

    async def cross(self, change: Callable[[], Coroutine[None, None, None]]) -> None:
        """Let a change of the tree be on its way to the log when a memtable is sealed, and keep the log busy before and
        behind that: then one WAL object holds operations of both sides, and of several queues.
        """
        await self._pushes()
        if self._goes_on():
            flushing = engine_of(self._work.store).flush_memtable(always=True)
            await asyncio.gather(self._soon(change), flushing, self._pushes())

    async def _soon(self, change: Callable[[], Coroutine[None, None, None]]) -> None:
        """Before the memtable is sealed, or while its flush waits for the log."""
        if self._chance.random() < 0.5:
            for _ in range(self._chance.choice([2, 3, 10])):
                await asyncio.sleep(0)
            await asyncio.sleep(self._work.profile.faults.seconds * self._chance.choice([0, 0, 0.3, 1]))
        await change()

    async def _pushes(self) -> None:
        """Write a few times, and want it durable, but do not wait for that."""
        for _ in range(self._chance.choice([1, 2, 4])):
            await self._sector()
            if self._goes_on():
                await self._durable(self._device.last_sequence, len(self._disk.ops), waits=False)
            await asyncio.sleep(self._work.profile.faults.seconds * self._chance.choice([0, 0.1, 0.5]))


def check_extents(
    runs: list[tuple[int, ExtentState]], offset: int, length: int, image: Image, violate: Callable[[str], None]
) -> None:
    """Block status may call zeros data, never the reverse; it says something, and not more than was asked."""
    covered = sum(size for size, _ in runs)
    if not 0 < covered <= length:
        violate(f"block status of {offset}+{length} covers {covered} bytes")
    for size, state in runs:
        if state is not ExtentState.DATA and not image.is_zero(offset, size):
            violate(f"block status calls data at {offset}+{size} {state.name}")
        offset += size
