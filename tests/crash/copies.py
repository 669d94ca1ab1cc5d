"""Partial copies of small stores:  python -m tests.crash.copies --cases 10000

A store lives for a while (writes, flushes, jobs of maintenance, crashes at bad moments, take-overs, clean stops), and a
part of its objects is copied elsewhere: cut short in the order of names or against it, folder by folder, at random,
without one object, with an older manifest. The copy is then served three times on a host that has never seen the store,
each time after days, so that only the rules of the sweep protect what lies there and not its age.

The promise: the copy is refused by name and nothing is written to it, or it holds exactly what the store held at some
moment. What the whole store names is swept from a copy only where the copy holds all that was acknowledged when that
object was made: then a crash would have left the very same objects, and the log still has what it said.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from storage.bucket.pace import ObjectSizes
from storage.crypto import keys
from storage.errors import Corrupt, NotFound
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.format.names import sst_name
from storage.fs.unlocking import unlock
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import LEFTOVER_SECONDS_MIN, EngineOptions
from storage.lsm.recovery.completeness import named_by
from storage.objects.memory import MemoryStore
from storage.units import MIB
from tests.storage.lsm.compaction.test_jobs import possible
from tests.storage.lsm.worlds import StageStore, World, durable, read
from tests.support.idle import idle

SECTORS = 12
BULK_BLOCKS = 2
DISK_BYTES = (1 + BULK_BLOCKS) * BLOCK_BYTES

KEYS_NAME = keys.keys_name(1)

OPTIONS = EngineOptions(cache_bytes=16 * MIB, sizes=ObjectSizes(bulk_bytes_min=BLOCK_BYTES), manifests_kept=3)
"""Small stores in which everything occurs."""

EVENTS = {"sector": 8, "bulk": 2, "flush": 3, "job": 4, "crash": 2, "close": 1, "torn": 2}
"""What happens to a store, and how often beside the others."""

State = tuple[int, ...]
"""The first byte of each of the first sectors, and of each block that is written as a whole."""


@dataclass(slots=True)
class Sample:
    """A store at some moment, and all it ever held."""

    objects: dict[str, bytes] = field(default_factory=dict)
    states: list[State] = field(default_factory=lambda: [(0,) * (SECTORS + BULK_BLOCKS)])
    """After each write, all of which were acknowledged one by one."""
    acknowledged: dict[str, int] = field(default_factory=dict)
    """How many writes were acknowledged when an object was made."""
    named: set[str] = field(default_factory=set)
    """Data objects that the whole store names, in its newest manifest or its log."""


class WatchedStore(StageStore):
    """Writes down what was acknowledged when each object was made."""

    def __init__(self, inner: MemoryStore, sample: Sample) -> None:
        super().__init__(inner)
        self._sample = sample

    async def create(self, name: str, data: bytes | bytearray | memoryview) -> None:
        self._sample.acknowledged.setdefault(name, len(self._sample.states) - 1)
        await super().create(name, data)


class Life:
    """Makes a sample: what happens to a store is drawn from `chance`."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._sample = Sample()
        self._world = World(options=OPTIONS)
        self._world.store = WatchedStore(self._world.store.inner, self._sample)
        self._value = 0

    async def live(self) -> Sample:
        """A store after a few dozen events, at rest or as a crash left it."""
        engine, layer = await self._world.start()
        for _ in range(self._chance.randrange(2, 25)):
            event = self._chance.choices([*EVENTS], [*EVENTS.values()])[0]
            engine, layer = await self._happen(event, engine, layer)
        if self._chance.random() < 0.5:
            await engine.close()
        else:
            await self._world.crash(engine)
        return await self._at_rest()

    async def _happen(self, event: str, engine: Engine, layer: Layer) -> tuple[Engine, Layer]:
        if event in ("sector", "bulk"):
            await self._write(engine, layer, bulk=event == "bulk")
        elif event == "flush":
            await engine.flush_memtable()
        elif event == "crash":
            return await self._reopened(engine)
        elif event == "job":
            await self._job(engine)
        elif event == "close":
            await engine.close()
            return await self._reopened(engine)
        else:
            return await self._torn(engine, layer)
        return engine, layer

    async def _write(self, engine: Engine, layer: Layer, *, bulk: bool) -> None:
        self._value = self._value % 255 + 1
        state = list(self._sample.states[-1])
        if bulk:
            block = self._chance.randrange(BULK_BLOCKS)
            layer.write((1 + block) * BLOCK_BYTES, bytes([self._value]) * BLOCK_BYTES)
            state[SECTORS + block] = self._value
        else:
            sector = self._chance.randrange(SECTORS)
            layer.write(sector * SECTOR_BYTES, bytes([self._value]) * SECTOR_BYTES)
            state[sector] = self._value
        await durable(engine, layer)
        self._sample.states.append(tuple(state))

    async def _job(self, engine: Engine) -> None:
        """One job of maintenance that would be right now, worth it or not, and what it leaves is deleted."""
        async with engine.compactor.working:
            jobs = await possible(engine)
            if jobs:
                await engine.compactor.do(self._chance.choice(jobs))
        engine.compactor.delete_replaced()
        await idle()

    async def _torn(self, engine: Engine, layer: Layer) -> tuple[Engine, Layer]:
        """A crash between two steps of a memtable flush: before its manifest, or before the log is deleted."""
        await self._write(engine, layer, bulk=self._chance.random() < 0.3)
        held = self._world.store.hold(*self._chance.choice([("create", "manifest/"), ("delete", "wal/")]))
        flushing = asyncio.ensure_future(engine.flush_memtable())
        await held.someone_waits()
        reopened = await self._reopened(engine)
        await asyncio.gather(flushing, return_exceptions=True)
        return reopened

    async def _reopened(self, engine: Engine) -> tuple[Engine, Layer]:
        await self._world.crash(engine)
        if self._chance.random() < 0.5:
            self._world.now += LEFTOVER_SECONDS_MIN
        engine = await self._world.open()
        await idle()
        return engine, engine.layers[1]

    async def _at_rest(self) -> Sample:
        sample = self._sample
        sample.objects = {**self._world.store.objects, KEYS_NAME: b"the keys"}
        reader = await self._world.open(read_only=True)
        sample.named = {sst_name(sst.decode()) for sst in named_by(reader.manifests).ids.tolist()}
        sample.named |= {sst_name(table.id) for table in reader.writes.memtable.ssts}
        assert await look(reader) == sample.states[-1]
        return sample


async def look(engine: Engine) -> State:
    """What a store holds, every byte of it."""
    if 1 not in engine.layers:
        return (0,) * (SECTORS + BULK_BLOCKS)
    data = await read(engine.layers[1], 0, DISK_BYTES)
    pieces = [data[at * SECTOR_BYTES : (at + 1) * SECTOR_BYTES] for at in range(SECTORS)]
    pieces += [data[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES] for at in range(1, 1 + BULK_BLOCKS)]
    assert all(piece == piece[:1] * len(piece) for piece in pieces), "a sector or block that nobody ever wrote"
    return tuple(piece[0] for piece in pieces)


@dataclass(frozen=True, slots=True)
class Copy:
    """A part of a store, and how it was chosen."""

    how: str
    names: frozenset[str]


def cut(sample: Sample, chance: random.Random) -> Copy:
    """A partial copy."""
    names = sorted(sample.objects)
    how = chance.choice(
        ["in order", "reversed", "shuffled", "folder by folder", "folders", "some", "without one", "old"]
    )
    kept = names
    if how in ("in order", "reversed", "shuffled"):
        kept = kept[::-1] if how == "reversed" else chance.sample(kept, len(kept)) if how == "shuffled" else kept
        kept = kept[: chance.randrange(len(kept) + 1)]
    elif how in ("folder by folder", "folders"):
        folders = chance.sample(["compacted", "keys", "manifest", "spare", "wal"], 5)
        if how == "folders":
            folders = folders[: chance.randrange(1, 6)]
        kept = [name for folder in folders for name in names if name.startswith(folder + "/")]
        if how == "folder by folder":
            kept = kept[: chance.randrange(len(kept) + 1)]
    elif how == "some":
        share = chance.random()
        kept = [name for name in names if chance.random() < share]
    elif how == "without one":
        missing = chance.choice(names)
        kept = [name for name in names if name != missing]
    else:
        manifests = [name for name in names if name.startswith("manifest/")]
        gone = set(manifests[chance.randrange(len(manifests)) :])
        gone |= {name for name in names if name.startswith("spare/") and chance.random() < 0.7}
        share = chance.choice([0.0, 0.1, 0.5])
        kept = [name for name in names if name not in gone and (chance.random() >= share or name == KEYS_NAME)]
    return Copy(how, frozenset(kept))


Outcome = Literal["whole", "older state", "refused", "empty place"]


class Served:
    """A copy in a place of its own."""

    def __init__(self, sample: Sample, copy: Copy) -> None:
        self._sample = sample
        self._world = World(options=OPTIONS)
        self._copied = {name: sample.objects[name] for name in copy.names}

    async def judge(self) -> Outcome:
        """What becomes of the copy. AssertionError: it broke the promise."""
        for name, content in self._copied.items():
            await self._world.store.put(name, content)
        if KEYS_NAME not in self._copied:
            return await self._without_keys()
        self._world.now += 2 * LEFTOVER_SECONDS_MIN
        state = await self._read()
        for _ in range(3):
            if await self._serve() != state:
                raise AssertionError("a reader and a writer, or one writer and the next, do not see the same")
            self._world.now += 2 * LEFTOVER_SECONDS_MIN
        if state is None:
            assert self._world.store.objects == self._copied, "something was written to a store that was refused"
            return "refused"
        held = [number for number, found in enumerate(self._sample.states) if found == state]
        assert held, "it holds what the store never held"
        swept = self._sample.named & self._copied.keys() - self._world.store.objects.keys()
        for name in swept:
            made = self._sample.acknowledged[name]
            assert made <= held[-1], f"{name} was swept, and what was acknowledged before it is not all there"
        return "whole" if state == self._sample.states[-1] else "older state"

    async def _without_keys(self) -> Outcome:
        world = self._world
        try:
            await unlock(world.store, b"password", world.env, None, create=False, accept_rollback=False)
        except Corrupt:
            assert self._copied
            return "refused"
        except NotFound:
            assert not self._copied, "a part of a store was taken for an empty place"
            return "empty place"
        finally:
            assert world.store.objects == self._copied
        raise AssertionError("a store without keys was unlocked")

    async def _read(self) -> State | None:
        try:
            reader = await self._world.open(read_only=True)
        except Corrupt:
            return None
        return await look(reader)

    async def _serve(self) -> State | None:
        """Open, let the sweep do what it does, look, and crash or close."""
        try:
            engine = await self._world.open()
        except Corrupt:
            return None
        await idle()
        state = await look(engine)
        await self._world.crash(engine)
        return state


async def run_cases(seed: int, count: int, *, copies_each: int = 20) -> Iterator[tuple[Copy, Outcome]]:
    """`count` copies of stores that are made anew every `copies_each`; a failure names its seed."""
    done: list[tuple[Copy, Outcome]] = []
    while len(done) < count:
        chance = random.Random(f"copies {seed}")
        sample = await Life(chance).live()
        for number in range(min(copies_each, count - len(done))):
            copy = cut(sample, chance)
            try:
                done.append((copy, await Served(sample, copy).judge()))
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, copy {number} ({copy.how}): {error}") from error
        seed += 1
    return iter(done)


def main() -> int:
    parser = argparse.ArgumentParser(description="serve partial copies of stores, and see that nothing is lost")
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.monotonic()
    counts: Counter[tuple[str, str]] = Counter()
    try:
        for copy, became in asyncio.run(run_cases(arguments.seed, arguments.cases)):
            counts[copy.how, became] += 1
    except AssertionError as error:
        print(f"FAILED: {error}")
        return 1
    for (how, outcome), count in sorted(counts.items()):
        print(f"{how:18} {outcome:12} {count}")
    print(f"{sum(counts.values())} copies, {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
