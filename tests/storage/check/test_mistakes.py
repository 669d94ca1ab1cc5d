"""Mistakes of an engine, planted into its memory, are found: the index says one thing, and the store another."""

from collections.abc import Callable

import pytest

from storage.check.findings import Finding, Kind
from storage.format.blocks import FrameRef
from storage.lsm.compaction.plan import WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import PAGE_MASK, PAGE_SHIFT
from tests.storage.check.test_survey import at_rest, running
from tests.storage.lsm.compaction.test_jobs import BLOCK, SECTOR
from tests.storage.lsm.worlds import World, durable
from tests.support.inside import layers_of, masks

OLD, NEW, PATCHED, ZEROED, WIDE = range(5)
"""Blocks of the device: written once, twice, with a patch over them, discarded, and discarded with many others."""


async def written() -> tuple[World, Engine, dict[int, FrameRef]]:
    """An engine whose blocks were flushed in two steps; the frame that each had after the first one."""
    world = World()
    engine, layer = await world.start()
    for block in (OLD, NEW, PATCHED, ZEROED, WIDE):
        layer.write(block * BLOCK, bytes([block + 1]) * BLOCK)
    await durable(engine, layer)
    await engine.flush_memtable()
    first = {block: frames(engine, block)[0] for block in (OLD, NEW, PATCHED, ZEROED, WIDE)}
    layer.write(NEW * BLOCK, b"\x99" * BLOCK)
    layer.write(PATCHED * BLOCK + 3 * SECTOR, b"\x77" * SECTOR)
    layer.zero(ZEROED * BLOCK, BLOCK, allocated=False)
    layer.write(WIDE * BLOCK + 7 * SECTOR, b"\x55" * SECTOR)  # so that no flush joins the two
    layer.zero(WIDE * BLOCK, 1000 * BLOCK, allocated=False)
    await durable(engine, layer)
    await engine.flush_memtable()
    assert await running(world, engine) == []
    return world, engine, first


def frames(engine: Engine, block: int) -> list[FrameRef]:
    return [found.content for found in head(engine).find(block) if isinstance(found.content, FrameRef)]


def head(engine: Engine) -> BlockMap:
    return layers_of(engine).forest.heads()[1]


def point(index: BlockMap, block: int, frame: FrameRef) -> None:
    index.set_base(block, location=frame.location, length=frame.length, tag=frame.tag)


def shows_old_content(engine: Engine, first: dict[int, FrameRef]) -> None:
    point(head(engine), NEW, first[NEW])


def forgets_a_block(engine: Engine, first: dict[int, FrameRef]) -> None:
    head(engine).set_base(OLD, location=0, length=0, tag=0)


def forgets_a_patch(engine: Engine, first: dict[int, FrameRef]) -> None:
    head(engine).writable(PATCHED >> PAGE_SHIFT).set_head(PATCHED & PAGE_MASK, 0)


def forgets_a_discard(engine: Engine, first: dict[int, FrameRef]) -> None:
    point(head(engine), ZEROED, first[ZEROED])


def forgets_a_wide_discard(engine: Engine, first: dict[int, FrameRef]) -> None:
    point(head(engine), WIDE, first[WIDE])


def mixes_up_two_blocks(engine: Engine, first: dict[int, FrameRef]) -> None:
    (other,) = frames(engine, OLD)
    point(head(engine), NEW, other)


def is_off_by_a_byte(engine: Engine, first: dict[int, FrameRef]) -> None:
    (frame,) = frames(engine, OLD)
    point(head(engine), OLD, FrameRef(frame.location + 1, frame.length, frame.tag, OLD, full=True))


def has_another_tag(engine: Engine, first: dict[int, FrameRef]) -> None:
    (frame,) = frames(engine, OLD)
    point(head(engine), OLD, FrameRef(frame.location, frame.length, 0, OLD, full=True))


def widens_a_patch(engine: Engine, first: dict[int, FrameRef]) -> None:
    index = head(engine)
    row = index.pages[0].head(PATCHED)
    masks(index)[row] |= 1 << 20


def sectors(findings: list[Finding], kind: Kind) -> set[int]:
    return {
        sector
        for finding in findings
        if finding.kind is kind
        for span in finding.ranges
        for sector in range(span.offset // SECTOR, (span.offset + span.length) // SECTOR)
    }


def whole(block: int) -> set[int]:
    return set(range(block * 64, block * 64 + 64))


@pytest.mark.parametrize(
    ("mistake", "where", "at_rest_too"),
    [
        (shows_old_content, whole(NEW), Kind.STALE),
        (forgets_a_block, whole(OLD), None),
        (forgets_a_patch, {PATCHED * 64 + 3}, Kind.STALE),
        (forgets_a_discard, whole(ZEROED), Kind.STALE),
        (forgets_a_wide_discard, whole(WIDE), Kind.STALE),
        (mixes_up_two_blocks, whole(NEW), Kind.REFERENCE),
        (is_off_by_a_byte, whole(OLD), Kind.REFERENCE),
        (has_another_tag, whole(OLD), Kind.REFERENCE),
        (widens_a_patch, {PATCHED * 64 + 20}, Kind.REFERENCE),
    ],
)
async def test_a_mistake_in_memory_is_found_and_so_is_a_checkpoint_of_it(
    mistake: Callable[[Engine, dict[int, FrameRef]], None], where: set[int], at_rest_too: Kind | None
) -> None:
    world, engine, first = await written()
    mistake(engine, first)
    found = await running(world, engine)
    assert sectors(found, Kind.MEMORY) >= where
    assert not [finding for finding in found if finding.fault]
    # A checkpoint takes it for true; what the SSTs themselves say does not.
    await engine.compactor.do(WriteCheckpoint("the test says so"))
    found = await at_rest(world)
    if at_rest_too is not None:
        assert sectors(found, at_rest_too) >= where
        assert not any(finding.kind is Kind.MEMORY for finding in found)
    await world.crash(engine)


async def test_a_place_beside_the_only_frame_there_is_is_found() -> None:
    """All else of it is as the only entry says: nothing but its place is wrong."""
    world = World()
    engine, layer = await world.start()
    layer.write(OLD * BLOCK, b"a" * BLOCK)
    await engine.flush_memtable()
    is_off_by_a_byte(engine, {})
    await engine.compactor.do(WriteCheckpoint("the test says so"))
    assert sectors(await at_rest(world), Kind.REFERENCE) == whole(OLD)
    await world.crash(engine)
