"""Windows of neighbouring blocks that lie in many places: how they are found, when they are written anew, and that a
device says the same before and after.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

import pytest

from storage.format.blocks import ALLOCATED, HOLE, FrameRef
from storage.format.frame import BLOCK_BYTES
from storage.lsm.compaction.fragments import find_fragmented
from storage.lsm.compaction.plan import (
    WINDOW_BLOCKS,
    Defragment,
    PatchedBlock,
    StoreFacts,
    Window,
    next_job,
)
from storage.lsm.engine import Engine
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.index.trunk import Trunk
from storage.lsm.layer import Layer
from storage.lsm.options import GAP_BYTES_MAX, EngineOptions, MaintenanceOptions, thorough
from storage.lsm.sst.ranges import coalesce
from storage.units import KIB, MIB
from tests.storage.lsm.compaction.test_plan import OPTIONS, sst
from tests.storage.lsm.compaction.test_plan import snapshot as facts
from tests.storage.lsm.worlds import World, durable, read
from tests.support.examples import first_soon

WINDOW_BYTES = WINDOW_BLOCKS * BLOCK_BYTES
BLOCKS = 48


def found_in(
    *trunks: Trunk,
    pieces: int | None = 3,
    behind: tuple[int, int] = (0, 0),
    bytes_max: int | None = None,
    object_bytes: int = 16 * MIB,
    skipped: Collection[tuple[int, int]] = (),
) -> list[Window]:
    async def run(work: Callable[[], list[Window]]) -> list[Window]:
        return work()

    def found() -> Awaitable[list[Window]]:
        return find_fragmented(
            trunks,
            pieces=pieces,
            behind=behind,
            bytes_max=bytes_max,
            object_bytes=object_bytes,
            gap_bytes_max=GAP_BYTES_MAX,
            skipped=skipped,
            run=run,
        )

    return asyncio.run(found())  # type: ignore[arg-type]


def one_by_one(layer: int, index: BlockMap, pieces: int, blocks_of_an_object: int = 64) -> list[Window]:
    """The same with what a reader would ask for, now and when it is written anew, wherever in an object it begins."""
    windows = []
    for first in range(0, 6 * PAGE_BLOCKS, WINDOW_BLOCKS):
        bases = [list(index.find(block))[-1].content for block in range(first, first + WINDOW_BLOCKS)]
        refs = sorted((base for base in bases if isinstance(base, FrameRef)), key=lambda ref: ref.location)
        ends = [start + len(refs) - 1 for start in range(blocks_of_an_object)]
        if len(coalesce(refs)) >= max(pieces, 2 + max(ends) // blocks_of_an_object):
            size = sum(ref.length for ref in refs)
            windows.append(Window(layer, first, len(refs), size, len(coalesce(refs))))
    return windows


def scattered(seed: int, blocks: int = 5 * PAGE_BLOCKS) -> BlockMap:
    """Runs of blocks in SSTs, in any order, over each other, with holes and patches."""
    chance, index = random.Random(seed), BlockMap()
    for number in range(1, 40):
        place = number << 32 | 64
        first = chance.choice([0, 20, PAGE_BLOCKS - 8, chance.randrange(blocks)])
        run = list(range(first, first + chance.choice([1, 2, 16, 60])))
        if chance.random() < 0.3:
            chance.shuffle(run)
        for block in run:
            length = chance.choice([100, 1000, 262_000])
            if chance.random() < 0.1:
                index.set_base(block, location=chance.choice([HOLE, ALLOCATED]), length=0, tag=0)
            elif chance.random() < 0.1:
                index.add_patch(block, mask=2, location=place, length=length, tag=1)
            else:
                index.set_base(block, location=place, length=length, tag=1)
            place += length + chance.choice([0, 0, 0, 64 * KIB, 64 * KIB + 1])
    return index


@pytest.mark.parametrize("seed", first_soon(range(10)))
def test_those_are_found_that_a_reader_would_ask_for_in_many_requests(seed: int) -> None:
    index = scattered(seed)
    for pieces in (2, 3, 8):
        assert found_in(Trunk([7], index), pieces=pieces) == one_by_one(7, index, pieces)
        for blocks in (1, 2, 3, 5, 16):
            size = blocks * BLOCK_BYTES + 1000
            assert found_in(Trunk([7], index), pieces=pieces, object_bytes=size) == one_by_one(7, index, pieces, blocks)
    assert one_by_one(7, index, 2)
    assert found_in(Trunk([7], index), pieces=None) == []


def test_they_are_found_in_turn_round_all_disks_from_the_last_one_on() -> None:
    trunks = [Trunk([7], scattered(1)), Trunk([3], scattered(2))]
    everything = found_in(*trunks)
    assert everything == sorted(everything)
    assert {window.layer for window in everything} == {3, 7}
    for at, window in enumerate(everything):
        behind = (window.layer, window.first)
        assert found_in(*trunks, behind=behind) == everything[at + 1 :] + everything[: at + 1]
    limited = found_in(*trunks, bytes_max=everything[0].size)
    assert limited == everything[:2], "more than a job may have, so that it takes all it may"
    left_out = everything[1].layer, everything[1].first + 5
    assert found_in(*trunks, skipped={left_out}) == [everything[0], *everything[2:]]


def test_what_a_snapshot_or_a_clone_may_show_too_is_left_where_it_is() -> None:
    assert found_in(Trunk([7], scattered(1)))
    assert not found_in(Trunk([7], scattered(1), shares=True))
    with_snapshot = Trunk([6, 7], scattered(1), deltas=[None])  # type: ignore[list-item]
    assert not found_in(with_snapshot)


# --- the plan


def window(number: int, *, size: int = WINDOW_BYTES, pieces: int = 12, blocks: int = WINDOW_BLOCKS) -> Window:
    return Window(1, number * WINDOW_BLOCKS, blocks, size, pieces)


def at_rest(*windows: Window, live: int = 900 * MIB, listed: int = 900 * MIB) -> StoreFacts:
    ssts = [sst(n, live // 8) for n in range(1, 9)]
    return replace(facts(*ssts, at_rest=True), fragmented=windows, listed_bytes=listed)


@pytest.mark.fast
def test_windows_are_written_anew_at_rest_and_last_of_all() -> None:
    seen = at_rest(window(1), window(5))
    assert next_job(seen, OPTIONS) == Defragment((window(1), window(5)))
    assert next_job(replace(seen, at_rest=False), OPTIONS) is None
    assert next_job(replace(seen, at_rest=False, listed_bytes=0), thorough(OPTIONS)) == Defragment(
        (window(1), window(5))
    )
    patched = (PatchedBlock(1, 3, OPTIONS.patches_max_at_rest, 5),)
    assert not isinstance(next_job(replace(seen, patched=patched), OPTIONS), Defragment)


def test_no_more_is_written_anew_than_was_written() -> None:
    windows = tuple(window(n) for n in range(3))
    for listed, expected in ((3 * WINDOW_BYTES, 3), (3 * WINDOW_BYTES - 1, 2), (WINDOW_BYTES, 1)):
        assert next_job(at_rest(*windows, listed=listed), OPTIONS) == Defragment(windows[:expected])
    assert next_job(at_rest(*windows, listed=WINDOW_BYTES - 1), OPTIONS) is None


def test_no_more_than_a_job_may_hold() -> None:
    windows = tuple(window(n) for n in range(40))
    job = next_job(at_rest(*windows), OPTIONS)
    assert isinstance(job, Defragment)
    assert len(job.windows) == OPTIONS.job_bytes_max // WINDOW_BYTES


def test_it_never_takes_a_store_over_its_target() -> None:
    """Not even a small one, for which the slack of the target is large."""
    live = 100 * MIB
    for extra, expected in ((0, 1), (1, 0)):
        used = int(live * OPTIONS.space_factor) - WINDOW_BYTES + extra
        dead = used - live - 2 * 300
        seen = replace(
            facts(sst(1, live), sst(2, 0, frames=dead, merged=False), at_rest=True),
            fragmented=(window(1), window(2)),
            listed_bytes=MIB << 10,
        )
        options = MaintenanceOptions(unmerged_dead_bytes_min_at_rest=1 << 40)
        assert next_job(seen, options) == (Defragment((window(1),)) if expected else None)


# --- the job


async def scatter(engine: Engine, layer: Layer, chance: random.Random) -> bytearray:
    """Write a disk in order, and then block by block in any order, each in an SST of its own."""
    content = bytearray(os.urandom(BLOCKS * BLOCK_BYTES))
    layer.write(0, bytes(content))
    await flushed(engine, layer)
    order = list(range(BLOCKS))
    chance.shuffle(order)
    for block in order:
        data = os.urandom(BLOCK_BYTES)
        layer.write(block * BLOCK_BYTES, data)
        content[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = data
        await flushed(engine, layer)
    return content


async def flushed(engine: Engine, layer: Layer) -> None:
    await durable(engine, layer)
    await engine.flush_memtable(always=True)


def pieces_of(layer: Layer, *windows: int) -> int:
    """Requests that it takes to read these windows, or all of the disk, one by one."""
    total = 0
    for window in windows or range(BLOCKS // WINDOW_BLOCKS):
        first = window * WINDOW_BLOCKS
        bases = [list(layer.index.find(block))[-1].content for block in range(first, first + WINDOW_BLOCKS)]
        total += len(coalesce(sorted((b for b in bases if isinstance(b, FrameRef)), key=lambda ref: ref.location)))
    return total


RESTING = MaintenanceOptions(look_seconds=3600.0, rest_seconds=0.0, pack_count=1 << 30)
"""The SSTs of so small a disk would all be packed into one."""


@pytest.mark.fast
@pytest.mark.thorough
async def test_a_disk_that_was_overwritten_at_random_lies_in_order_after_a_rest() -> None:
    world = World(options=EngineOptions(maintenance=RESTING))
    engine, layer = await world.start()
    content = await scatter(engine, layer, random.Random(3))
    assert pieces_of(layer) > 20
    written = sum(len(data) for name, data in world.store.objects.items() if name.startswith("compacted/"))
    for _ in range(30):
        if not await engine.compactor.step():
            break
        assert await read(layer, 0, len(content)) == content
    assert engine.compactor.progress.jobs["Defragment"] >= 1
    assert engine.compactor.progress.uploaded_bytes < 2 * written
    assert pieces_of(layer) <= 6
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    assert pieces_of(layer) <= 6
    assert await read(layer, 0, len(content)) == content
    await engine.close()


async def test_what_is_written_meanwhile_stays_above_also_after_a_crash() -> None:
    world = World(options=EngineOptions(maintenance=RESTING))
    engine, layer = await world.start()
    content = await scatter(engine, layer, random.Random(4))
    windows = (await engine.compactor.look(thorough(RESTING))).fragmented
    assert windows
    hold = world.store.hold("create", "compacted/")
    job = asyncio.ensure_future(engine.compactor.do(Defragment(tuple(windows))))
    await hold.someone_waits()
    first = windows[0].first * BLOCK_BYTES
    layer.write(first, b"p" * 4 * KIB)
    layer.write(first + BLOCK_BYTES, b"w" * BLOCK_BYTES)
    layer.zero(first + 2 * BLOCK_BYTES, BLOCK_BYTES, allocated=False)
    content[first : first + 4 * KIB] = b"p" * 4 * KIB
    content[first + BLOCK_BYTES : first + 3 * BLOCK_BYTES] = b"w" * BLOCK_BYTES + bytes(BLOCK_BYTES)
    world.store.holds.remove(hold)  # what waits goes on waiting
    await flushed(engine, layer)
    hold.release()
    await job
    assert await read(layer, 0, len(content)) == content
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, len(content)) == content
    await engine.close()


async def test_a_device_with_a_snapshot_is_left_as_it_is() -> None:
    world = World(options=EngineOptions(maintenance=RESTING))
    engine, layer = await world.start()
    await scatter(engine, layer, random.Random(5))
    assert (await engine.compactor.look(thorough(RESTING))).fragmented
    await world.change_trunks(engine, "freeze", 1, 2)
    assert not (await engine.compactor.look(thorough(RESTING))).fragmented
    await engine.close()
