"""Each kind of damage to each object of a maintained store is found, with the ranges where it shows."""

from collections.abc import Callable

import pytest

from storage.check.findings import Finding, Kind
from storage.format.envelope import HEADER_BYTES
from storage.lsm.engine import Engine
from tests.storage.check.damaged import (
    Objects,
    checkpoint_of,
    log_needed,
    maintained,
    tables,
    unmerged_in,
    unreadable_sectors,
)
from tests.storage.check.test_survey import at_rest, running
from tests.storage.lsm.compaction.test_jobs import SECTOR
from tests.storage.lsm.worlds import World
from tests.support.examples import first_soon


def lost(name: str, objects: Objects) -> None:
    del objects[name]


def cut(name: str, objects: Objects) -> None:
    objects[name] = objects[name][:-1]


def halved(name: str, objects: Objects) -> None:
    objects[name] = objects[name][: len(objects[name]) // 2]


def emptied(name: str, objects: Objects) -> None:
    objects[name] = b""


def end_flipped(name: str, objects: Objects) -> None:
    objects[name] = objects[name][:-1] + bytes([objects[name][-1] ^ 1])


def first_header_flipped(name: str, objects: Objects) -> None:
    objects[name] = objects[name][:70] + bytes([objects[name][70] ^ 1]) + objects[name][71:]


def exchanged(name: str, objects: Objects) -> None:
    names = tables(objects)
    other = names[(names.index(name) + 1) % len(names)]
    objects[name], objects[other] = objects[other], objects[name]


def replaced(name: str, objects: Objects) -> None:
    names = tables(objects)
    objects[name] = objects[names[names.index(name) - 1]]


async def damaged(
    world: World, name: str, how: Callable[[str, Objects], None], engine: Engine | None = None
) -> tuple[list[Finding], set[int]]:
    """What a check finds, beside a running engine or at rest, and which sectors a reader cannot read, when an object is
    damaged."""
    sound, changed = dict(world.store.objects), dict(world.store.objects)
    how(name, changed)
    sectors = await unreadable_sectors(world, changed)
    world.store.objects.update(changed)
    for gone in sound.keys() - changed.keys():
        del world.store.objects[gone]
    try:
        return (await running(world, engine) if engine else await at_rest(world)), sectors
    finally:
        world.store.objects.update(sound)


def sectors_of(findings: list[Finding]) -> set[int]:
    return {
        sector
        for finding in findings
        for span in finding.ranges
        for sector in range(span.offset // SECTOR, (span.offset + span.length) // SECTOR)
    }


@pytest.mark.parametrize("how", first_soon([lost, cut, halved, emptied]))
async def test_what_is_gone_is_found_with_its_ranges(how: Callable[[str, Objects], None]) -> None:
    world = await maintained()
    unmerged = await unmerged_in(world)
    shown = 0
    for name in tables(world.store.objects):
        findings, sectors = await damaged(world, name, how)
        found = [finding for finding in findings if finding.object == name]
        assert found, name
        assert not all(finding.fault for finding in found)
        if name in unmerged:
            assert "nobody knows" in found[0].sentence
        else:
            assert sectors_of(found) == sectors, name
            shown += bool(sectors)
    assert shown or how is cut


async def test_beside_its_writer_the_ranges_of_every_sst_are_known() -> None:
    world = await maintained()
    engine = await world.open()
    shown = 0
    for name in tables(world.store.objects):
        findings, sectors = await damaged(world, name, lost, engine)
        assert sectors_of([finding for finding in findings if finding.object == name]) == sectors, name
        assert not {finding.kind for finding in findings} & {Kind.MEMORY, Kind.REFERENCE, Kind.STALE}
        shown += bool(sectors)
    assert shown
    await engine.close()


@pytest.mark.parametrize("how", first_soon([end_flipped, exchanged, replaced]))
async def test_an_object_with_another_end_is_found(how: Callable[[str, Objects], None]) -> None:
    world = await maintained()
    (checkpoint,) = [name for name in tables(world.store.objects) if name == await checkpoint_of(world)]
    for name in tables(world.store.objects):
        findings, _ = await damaged(world, name, how)
        # Without its checkpoint nothing more of a store can be known.
        assert {name, checkpoint} & {finding.object for finding in findings}, name


async def test_a_first_header_that_was_changed_is_a_fault_and_no_more() -> None:
    world = await maintained()
    for name in tables(world.store.objects):
        findings, sectors = await damaged(world, name, first_header_flipped)
        assert [finding.object for finding in findings] == [name]
        tree = findings[0].kind is Kind.INDEX
        assert (findings[0].kind is Kind.HEADER and findings[0].fault) or tree
        assert not sectors or tree
    assert HEADER_BYTES > 70


@pytest.mark.parametrize("how", first_soon([lost, halved, end_flipped]))
async def test_damage_to_a_manifest_or_the_log_is_found(how: Callable[[str, Objects], None]) -> None:
    world = await maintained()
    log = await log_needed(world)
    assert len(log) > 2
    # The last of a log that nobody knows more of is the end of it.
    names = [n for n in world.store.objects if n.startswith("manifest/")] + sorted(log)
    for name in names[:-1] if how is lost else names:
        findings, _ = await damaged(world, name, how)
        assert findings, name
