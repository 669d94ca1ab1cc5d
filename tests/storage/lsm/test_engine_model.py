"""The real engine against a byte array: any writes, zeroes, flushes, crashes and reopenings, in any interleaving.

The limits are made small, so that every way through the engine is taken with little data: bulk from two blocks on,
several objects of the log per flush. After a crash the disk must hold a prefix of the operations that has at least all
acknowledged ones.
"""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from storage.bucket.pace import ObjectSizes
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import EngineOptions
from storage.lsm.read.extents import ExtentState
from storage.units import KIB
from tests.storage.lsm.worlds import MIB, World, durable, join, record
from tests.support.idle import turns

T = TypeVar("T")

BLOCKS = 20
SIZE = BLOCKS * BLOCK_BYTES - 3 * 512

offsets = st.one_of(
    st.integers(0, SIZE - 1),
    st.builds(lambda block, delta: block * BLOCK_BYTES + delta, st.integers(0, BLOCKS - 1), st.integers(-600, 600)),
    st.integers(0, SIZE // SECTOR_BYTES - 1).map(lambda sector: sector * SECTOR_BYTES),
    st.integers(0, BLOCKS - 1).map(lambda block: block * BLOCK_BYTES),
).map(lambda offset: min(max(offset, 0), SIZE - 1))
lengths = st.one_of(
    st.integers(1, 600),
    st.sampled_from([SECTOR_BYTES, 2 * SECTOR_BYTES, BLOCK_BYTES, 3 * BLOCK_BYTES, 5 * BLOCK_BYTES, SIZE]),
    st.integers(1, 3 * BLOCK_BYTES),
    st.integers(1, 80).map(lambda sectors: sectors * SECTOR_BYTES),
)


SMALL = ObjectSizes(bulk_bytes_min=2 * BLOCK_BYTES, inline_bytes_max=256 * KIB)


class EngineAgainstBytes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.run(self.begin())
        self.kept = bytearray(SIZE)
        """The disk after the newest operation that is known to be acknowledged or was found after a crash."""
        self.since: list[tuple[int, int, bytes]] = []
        """(sequence, offset, data) of the operations after that."""
        self.disk = bytearray(SIZE)
        self.flushing: asyncio.Task[None] | None = None
        self.others = 0

    async def begin(self) -> None:
        self.world = World(options=EngineOptions(cache_bytes=2 * MIB, sizes=SMALL))
        self.engine: Engine
        self.layer: Layer
        self.engine, self.layer = await self.world.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(60):
                return await work

        return self.runner.run(limited())

    def teardown(self) -> None:
        self.run(self.world.crash(self.engine))
        self.runner.close()

    # --- operations

    @initialize(seed=st.integers(0, 2**32))
    def shuffle(self, seed: int) -> None:
        chance = random.Random(seed)
        self.world.store.passes = lambda: chance.randrange(12)

    @rule(offset=offsets, length=lengths, fill=st.sampled_from(["stamp", "stamp", "noise", "zeros"]))
    def write(self, offset: int, length: int, fill: str) -> None:
        length = min(length, SIZE - offset)
        number = self.engine.writes.sequence
        if fill == "stamp":
            data = (b"%016d" % number * (length // 16 + 1))[:length]
        else:
            data = random.Random(number).randbytes(length) if fill == "noise" else bytes(length)

        async def link() -> int:
            return self.layer.write(offset, data)

        self.note(self.run(link()), offset, data)

    @rule(offset=offsets, length=lengths, allocated=st.booleans())
    def zero(self, offset: int, length: int, allocated: bool) -> None:
        length = min(length, SIZE - offset)

        async def link() -> int:
            return self.layer.zero(offset, length, allocated=allocated)

        self.note(self.run(link()), offset, bytes(length))

    @rule(first=st.integers(0, BLOCKS - 3), order=st.randoms(use_true_random=False))
    def fill_blocks_by_sectors(self, first: int, order: random.Random) -> None:
        """Three whole blocks in shuffled writes of a sector: they become bulk."""
        sectors = list(range(first * 64, (first + 3) * 64))
        order.shuffle(sectors)

        async def link() -> None:
            for sector in sectors:
                data = b"%08d" % self.engine.writes.sequence * (SECTOR_BYTES // 8)
                offset = sector * SECTOR_BYTES
                if offset + SECTOR_BYTES <= SIZE:
                    self.note(self.layer.write(offset, data), offset, data)

        self.run(link())

    def note(self, sequence: int, offset: int, data: bytes) -> None:
        self.disk[offset : offset + len(data)] = data
        self.since.append((sequence, offset, data))

    @rule()
    def flush(self) -> None:
        self.run(durable(self.engine, self.layer))
        self.all_kept()

    def all_kept(self) -> None:
        self.kept[:] = self.disk
        self.since.clear()

    @rule(passes=st.integers(1, 60))
    def let_it_run(self, passes: int) -> None:
        self.run(turns(passes))

    @rule()
    def ask_for_durability(self) -> None:
        async def ask() -> None:
            self.layer.queue.want_durable(self.layer.last_sequence)

        self.run(ask())

    @rule()
    def start_memtable_flush(self) -> None:
        async def start() -> None:
            self.flushing = asyncio.ensure_future(self.engine.flush_memtable())
            await asyncio.sleep(0)

        self.run(start())

    @precondition(lambda self: self.flushing is not None)
    @rule()
    def end_memtable_flush(self) -> None:
        async def end() -> None:
            assert self.flushing is not None
            await self.flushing

        self.run(end())
        self.flushing = None

    @rule()
    def another_layer(self) -> None:
        """Another layer comes, is written and goes: the tree changes beside everything else."""

        async def come_and_go() -> None:
            number = self.world.tree.next
            await self.engine.change_tree(record("create", number))
            self.engine.layers[number].write(5, b"x" * 3 * BLOCK_BYTES)
            if number % 2:
                await self.engine.change_tree(record("drop", number))

        self.run(come_and_go())

    # --- ends

    @rule()
    def crash(self) -> None:
        acked = self.layer.queue.acked_sequence

        async def again() -> bytes:
            self.engine, self.layer = await self.world.reopen(self.engine)
            return join(await self.layer.read(0, SIZE))

        found = self.run(again())
        self.flushing = None
        state = bytearray(self.kept)
        sizes = [state == found and not any(s <= acked for s, _, _ in self.since)]
        for sequence, offset, data in self.since:
            state[offset : offset + len(data)] = data
            if sequence >= acked and state == found:
                sizes.append(True)
                break
        assert any(sizes), "the disk is no prefix of its operations that holds all acknowledged ones"
        self.disk[:] = found
        self.all_kept()

    @rule()
    def close(self) -> None:
        async def close() -> None:
            await self.engine.close()
            writes = self.engine.writes
            assert (writes.unlogged_bytes, writes.memtable_bytes) == (0, 0)
            self.engine = await self.world.open(take_over=False)
            self.layer = self.engine.layers[1]

        self.run(close())
        self.flushing = None
        self.all_kept()
        self.whole_disk_reads()

    @rule()
    def a_reader_sees_what_is_durable(self) -> None:
        async def look() -> bytes:
            await durable(self.engine, self.layer)
            tree = self.world.tree
            reader = await self.world.open(read_only=True)
            self.world.tree = tree
            return join(await reader.layers[1].read(0, SIZE))

        assert self.run(look()) == self.disk
        self.all_kept()

    # --- looking

    @rule(offset=offsets, length=lengths)
    def read(self, offset: int, length: int) -> None:
        length = min(length, SIZE - offset)

        async def both() -> tuple[bytes, bytes | None]:
            before = self.layer.read_cached(offset, length)
            whole = join(await self.layer.read(offset, length))
            assert before is None or join(before) == whole
            cached = self.layer.read_cached(offset, length)
            return whole, None if cached is None else join(cached)

        whole, cached = self.run(both())
        expected = bytes(self.disk[offset : offset + length])
        assert whole == expected
        assert cached is None or cached == expected

    @rule()
    def whole_disk_reads(self) -> None:
        assert self.run(self._whole()) == self.disk

    async def _whole(self) -> bytes:
        return join(await self.layer.read(0, SIZE))

    @rule(offset=offsets, length=lengths)
    def extents_cover_exactly_and_call_no_data_zero(self, offset: int, length: int) -> None:
        length = min(length, SIZE - offset)
        found = self.layer.extents(offset, length)
        assert sum(size for size, _ in found) == length
        assert all(size > 0 for size, _ in found)
        for size, state in found:
            if state is not ExtentState.DATA:
                assert not any(self.disk[offset : offset + size]), f"data at {offset} is said to be {state!r}"
            offset += size

    @invariant()
    def alive(self) -> None:
        assert not self.engine.failed.done(), self.engine.failed.result()
        writes = self.engine.writes
        sealed = writes.sealed
        assert writes.memtable_bytes == writes.memtable.bytes + (sealed.bytes if sealed else 0)
        assert writes.unlogged_bytes >= 0


class TestBriefly(EngineAgainstBytes.TestCase):  # type: ignore[valid-type,misc]
    settings = settings(max_examples=2, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
class TestAtLength(EngineAgainstBytes.TestCase):  # type: ignore[valid-type,misc]
    settings = settings(max_examples=16, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))
