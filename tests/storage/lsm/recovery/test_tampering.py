"""Every object of a small store damaged, cut, deleted, exchanged: an error that names it, or exactly the right data.

The store holds every kind of object: keys; take-over, ordinary and old manifests; fences below and behind the replay
point; log objects with writes, zeroes, tree changes and locators; SSTs of the flush (full frames, patches, ranges) and
of the bulk bypass; the tree. Compacted, it holds a checkpoint too, and what was repacked and consolidated. What may be
damaged without an error is said in `Sample.irrelevant`, and why.
"""

import asyncio
import random
import shutil
from pathlib import Path

import pytest

from storage.crypto import keys
from storage.errors import Corrupt, Fenced, RolledBack, StorageError, Unsupported
from storage.format.blocks import FrameRef
from storage.format.envelope import HEADER_BYTES, ObjectKind
from storage.format.frame import BLOCK_BYTES
from storage.format.names import MANIFESTS, TABLES, WALS, wal_name, wal_number
from storage.lsm.engine import Engine
from storage.lsm.recovery.anchor import HostState
from tests.storage.lsm.recovery.sample_store import COST, PASSWORD, SIZE, URL, Sample, make
from tests.storage.lsm.worlds import World, join
from tests.support.inside import sst_of

CUTS = (0, 1, 50, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 10, -100, -17, -1)


@pytest.fixture(scope="module", params=["flushed", pytest.param("compacted", marks=pytest.mark.slow)])
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return asyncio.run(make(tmp_path_factory.mktemp("state"), compacted=request.param == "compacted"))


async def look(objects: dict[str, bytes], *, host: HostState | None = None, writer: bool = False) -> dict[int, bytes]:
    """Open the store by its password and read all of it."""
    world = World(host=host)
    world.store.objects.update(objects)
    key, number = await keys.load(world.store, PASSWORD, world.env, COST)
    engine = await world.open(key=key, keys_number=number, read_only=not writer)
    try:
        return {
            number: join(await layer.read(0, SIZE)) if number == 1 else b"" for number, layer in engine.layers.items()
        }
    finally:
        await world.crash(engine)


async def outcome(
    objects: dict[str, bytes], *, host: HostState | None = None, writer: bool = False
) -> dict[int, bytes] | StorageError:
    try:
        return await look(objects, host=host, writer=writer)
    except StorageError as error:
        return error


async def judge(
    sample: Sample, changed: dict[str, bytes], name: str, *, host: HostState | None = None, writer: bool = False
) -> bool:
    """Whether the change was noticed. It fails the test if wrong data came, or an error that does not help."""
    found = await outcome(changed, host=host, writer=writer)
    if isinstance(found, (Corrupt, Unsupported)):
        assert name in str(found), f"the error does not name {name}: {found}"
        return True
    if isinstance(found, RolledBack) and host is not None:
        return True
    assert found == sample.truth, f"{name} was changed, and other data came without an error"
    return False


async def test_the_untouched_store_opens(sample: Sample) -> None:
    assert await look(sample.objects) == sample.truth
    assert await look(sample.objects, writer=True) == sample.truth


def test_the_sample_has_every_kind_of_object(sample: Sample) -> None:
    kinds = {content[10] for name, content in sample.objects.items()}
    assert kinds >= {1, 2, 3, 4, 5, 6}
    assert len(sample.irrelevant) < len(sample.objects) - 8
    why = set(sample.irrelevant.values())
    assert why - {"an older tree"} == {"an older manifest", "a fence below the replay point"}  # that may be deleted yet


def header_that_counts(content: bytes) -> int:
    """Where the header of an object is that a start believes: of an SST or a checkpoint it is the second one."""
    return int.from_bytes(content[92:96], "little") if content[10] in (ObjectKind.DATA, ObjectKind.CHECKPOINT) else 0


reader_soon = pytest.mark.parametrize("writer", [False, pytest.param(True, marks=pytest.mark.slow)])
one_of_each_kind_soon = pytest.mark.parametrize("of_each_kind", [True, pytest.param(False, marks=pytest.mark.slow)])


@one_of_each_kind_soon
@reader_soon
@pytest.mark.thorough
async def test_no_header_can_be_changed(sample: Sample, writer: bool, of_each_kind: bool) -> None:
    for name in sample.some(of_each_kind=of_each_kind):
        if name in sample.merged:
            continue
        content = sample.objects[name]
        begin = header_that_counts(content)
        for position in range(begin, begin + HEADER_BYTES):
            damaged = bytearray(content)
            damaged[position] ^= 1 << position % 8
            noticed = await judge(sample, {**sample.objects, name: bytes(damaged)}, name, writer=writer)
            assert noticed, f"byte {position} of {name}"


@pytest.mark.parametrize("writer", [False, True])
async def test_nothing_rests_on_the_first_header_of_an_sst_that_is_named(sample: Sample, writer: bool) -> None:
    tables = [name for name in sample.relevant() if header_that_counts(sample.objects[name])]
    assert tables
    for name in tables:
        damaged = bytearray(sample.objects[name])
        damaged[:HEADER_BYTES] = bytes(HEADER_BYTES)
        assert not await judge(sample, {**sample.objects, name: bytes(damaged)}, name, writer=writer)


@one_of_each_kind_soon
async def test_no_bit_anywhere_can_be_changed(sample: Sample, of_each_kind: bool) -> None:
    """A frame that newer writes cover wholly is not read, so its damage has no consequence."""
    chance = random.Random(9)
    for name in sample.some(of_each_kind=of_each_kind):
        content = sample.objects[name]
        count = 15 if of_each_kind else 60
        end = header_that_counts(content) if name in sample.merged else len(content)
        last = [end - back for back in range(1, count)]
        positions = last + [chance.randrange(HEADER_BYTES, end) for _ in range(count)]
        unnoticed = 0
        for position in positions:
            damaged = bytearray(content)
            damaged[position] ^= 1 << chance.randrange(8)
            unnoticed += not await judge(sample, {**sample.objects, name: bytes(damaged)}, name)
        if not name.startswith(TABLES):
            assert not unnoticed
        else:
            assert unnoticed < len(positions) / 2, "only frames that nothing reads"


@reader_soon
async def test_nothing_can_be_cut_off(sample: Sample, writer: bool) -> None:
    for name in sample.relevant():
        for cut in CUTS:
            shorter = {**sample.objects, name: sample.objects[name][:cut]}
            assert await judge(sample, shorter, name, writer=writer), f"{name} cut at {cut}"


async def test_what_is_added_is_noticed_or_not_read(sample: Sample) -> None:
    """An SST is read by ranges that its reference pins; anything else is read whole."""
    for name in sample.relevant():
        noticed = await judge(sample, {**sample.objects, name: sample.objects[name] + b"\0"}, name)
        assert noticed or name.startswith(TABLES)


@pytest.mark.parametrize("writer", [False, True])
async def test_nothing_can_be_missing(sample: Sample, writer: bool, tmp_path: Path) -> None:
    """With what the host remembers: the end of the log and the newest manifest are missed by nobody else."""
    for number, name in enumerate(sample.relevant()):
        rest = {other: content for other, content in sample.objects.items() if other != name}
        shutil.copytree(sample.state, tmp_path / str(number))
        host = HostState(tmp_path / str(number), URL)
        if name.startswith(keys.KEYS_PREFIX):
            with pytest.raises(StorageError, match="no key object"):
                await look(rest, host=host, writer=writer)
            continue
        assert await judge(sample, rest, name, host=host, writer=writer), f"{name} is missing"


@reader_soon
async def test_no_two_objects_can_be_exchanged(sample: Sample, writer: bool) -> None:
    """Also with one that is irrelevant in its own place."""
    names = sorted(sample.objects)
    for first in names:
        for second in names:
            folder = first.split("/")[0]
            if first < second and folder == second.split("/")[0] and not {first, second} <= set(sample.irrelevant):
                a, b = sample.objects[first], sample.objects[second]
                found = await outcome({**sample.objects, first: b, second: a}, writer=writer)
                assert isinstance(found, (Corrupt, Unsupported)), f"{first} and {second} were exchanged"
                assert first in str(found) or second in str(found)


@one_of_each_kind_soon
@reader_soon
async def test_no_object_can_stand_in_for_another(sample: Sample, writer: bool, of_each_kind: bool) -> None:
    """One object under the name of another, of any kind."""
    for name in sample.some(of_each_kind=of_each_kind):
        for other in sorted(sample.objects):
            if other != name:
                changed = {**sample.objects, name: sample.objects[other]}
                assert await judge(sample, changed, name, writer=writer), f"{other} under the name {name}"


async def test_nothing_can_be_put_behind_the_log(sample: Sample) -> None:
    """A copy of any object under the next numbers."""
    last = max((wal_number(name) or 0) for name in sample.objects if name.startswith(WALS))
    for other in sorted(sample.objects):
        for number in (last + 1, last + 2):
            changed = {**sample.objects, wal_name(number): sample.objects[other]}
            assert await judge(sample, changed, wal_name(number))


@one_of_each_kind_soon
async def test_what_is_irrelevant_changes_nothing(sample: Sample, of_each_kind: bool) -> None:
    one_of_each = {reason: name for name, reason in sample.irrelevant.items()}
    for name in one_of_each.values() if of_each_kind else sample.irrelevant:
        reason = sample.irrelevant[name]
        damaged = bytearray(sample.objects[name])
        damaged[70] ^= 1
        rest = {other: content for other, content in sample.objects.items() if other != name}
        for changed in (rest, {**sample.objects, name: bytes(damaged)}, {**sample.objects, name: b""}):
            for writer in (False, True):
                assert await outcome(changed, writer=writer) == sample.truth, reason


async def test_a_damaged_frame_is_an_error_of_its_block_only(sample: Sample) -> None:
    world = World()
    world.store.objects.update(sample.objects)
    key, _ = await keys.load(world.store, PASSWORD, world.env, COST)
    engine = await world.open(key=key)
    layer = engine.layers[1]
    damaged_blocks = set()
    for block in range(SIZE // BLOCK_BYTES):
        base = layer.active.blocks[block].base if block in layer.active.blocks else None
        for ref in [found.content for found in layer.index.find(block)] + [base]:
            if not isinstance(ref, FrameRef):
                continue
            name = sst_of(engine, ref.location)
            damaged = bytearray(sample.objects[name])
            damaged[(ref.location & 0xFFFFFFFF) + 30] ^= 4
            world.store.objects[name] = bytes(damaged)
            assert await unreadable(engine, sample.truth[1], name) <= {block}
            damaged_blocks |= await unreadable(engine, sample.truth[1], name)
            world.store.objects[name] = sample.objects[name]
    assert len(damaged_blocks) > 15
    assert not engine.failed.done()
    await world.crash(engine)


async def unreadable(engine: Engine, truth: bytes, name: str) -> set[int]:
    """The blocks that end in an error naming the object, when nothing is cached; all others are right."""
    for location in list(engine.cache.entries):
        engine.cache.discard(location)
    bad = set()
    for block in range(SIZE // BLOCK_BYTES):
        at = block * BLOCK_BYTES
        try:
            data = join(await engine.layers[1].read(at, BLOCK_BYTES))
        except Corrupt as error:
            bad.add(block)
            if error.object_name != name:
                raise
        else:
            assert data == truth[at : at + BLOCK_BYTES]
    return bad


async def test_a_writer_that_meets_damage_leaves_the_store_as_it_was(sample: Sample) -> None:
    """It may have taken the store over; nothing else is written, and nothing deleted."""
    name = next(n for n in sample.relevant() if n.startswith(WALS))
    world = World()
    world.store.objects.update({**sample.objects, name: sample.objects[name][:-1]})
    key, _ = await keys.load(world.store, PASSWORD, world.env, COST)
    for _ in range(2):
        with pytest.raises((Corrupt, Fenced)):
            await world.open(key=key)
    assert set(sample.objects) <= set(world.store.objects)
    new = set(world.store.objects) - set(sample.objects)
    assert all(other.startswith(MANIFESTS) for other in new)
    world.store.objects[name] = sample.objects[name]
    assert await look(dict(world.store.objects), writer=True) == sample.truth
