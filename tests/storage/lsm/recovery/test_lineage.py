"""Since which incarnations nothing that was answered is lost: what each kind of end and of start makes of it."""

import sys
from functools import partial
from pathlib import Path

import pytest

from storage.errors import Unavailable
from storage.format.frame import SECTOR_BYTES
from storage.format.manifest import INCARNATION_BYTES, LINEAGE_MAX
from storage.journal.files import FolderFiles
from storage.journal.journal import SEGMENT_BYTES_MAX
from storage.lsm.engine import Engine
from storage.lsm.recovery.anchor import HostState
from storage.lsm.recovery.take_over import next_lineage
from storage.lsm.wal.fence import Fence
from tests.storage.lsm.worlds import World, durable

URL = "memory://"


@pytest.fixture
def world(tmp_path: Path, memory: Path) -> World:
    made = World(host=HostState(tmp_path / "here", URL))
    made.journals = partial(FolderFiles, memory / "journals", URL)
    return made


async def start(world: World) -> Engine:
    engine, layer = await world.start()
    layer.write(0, b"a" * SECTOR_BYTES)
    engine.journal.keep()
    return engine


async def die(world: World, engine: Engine) -> bytes:
    """The process is killed; gives its incarnation."""
    await world.crash(engine)
    await engine.close()
    return engine.manifests.incarnation


async def goes_on_since(world: World, incarnation: bytes, *, take_over: bool = False) -> bool:
    """Whether the next writer says that nothing was lost since; it is killed too."""
    engine = await world.open(take_over=take_over)
    found = engine.manifests.is_unbroken_since(incarnation)
    assert found != engine.manifests.is_broken
    assert engine.manifests.is_unbroken_since(await die(world, engine)), "since its own"
    return found


def flip_last_bit(memory: Path) -> None:
    (segment,) = memory.rglob("*.segment")
    raw = bytearray(segment.read_bytes())
    raw[int.from_bytes(raw[:8], sys.byteorder) - 1] ^= 1
    segment.write_bytes(raw)


def is_there(memory: Path) -> bool:
    return bool(list(memory.rglob("head")))


async def test_a_clean_end(world: World) -> None:
    world.journals = None
    engine = await start(world)
    await engine.close()
    assert await goes_on_since(world, engine.manifests.incarnation)


async def test_a_kill_with_a_journal(world: World) -> None:
    first = await die(world, await start(world))
    assert await goes_on_since(world, first)
    assert await goes_on_since(world, first), "and so on"


async def test_a_kill_without_a_journal(world: World) -> None:
    world.journals = None
    first = await die(world, await start(world))
    assert not await goes_on_since(world, first)


async def test_a_journal_that_is_not_taken(world: World, tmp_path: Path) -> None:
    first = await die(world, await start(world))
    world.host = HostState(tmp_path / "there", URL)
    assert not await goes_on_since(world, first, take_over=True)


async def test_a_loss_is_not_forgotten(world: World) -> None:
    with_journals, world.journals = world.journals, None
    first = await die(world, await start(world))
    world.journals = with_journals
    assert not await goes_on_since(world, first)
    engine = await world.open(take_over=False)
    assert not engine.manifests.is_unbroken_since(first)
    await engine.close()


@pytest.mark.parametrize("ends", ["in between", "no"])
async def test_a_journal_that_does_not_check_out(
    world: World, memory: Path, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the start that notices it dies before it has begun another one."""
    first = await die(world, await start(world))
    flip_last_bit(memory)
    if ends == "in between":
        with monkeypatch.context() as patch:
            patch.setattr(FolderFiles, "set_aside", lambda files, epoch: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                await world.open(take_over=False)
    assert not await goes_on_since(world, first)


async def test_a_journal_without_room_is_not_whole(world: World, monkeypatch: pytest.MonkeyPatch, memory: Path) -> None:
    """Not even if its files stay."""
    engine = await start(world)

    def no_room(files: FolderFiles, *args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FolderFiles, "map", no_room)
        patch.setattr(FolderFiles, "end", no_room)
        engine.layers[1].write(0, b"b" * SEGMENT_BYTES_MAX)
        engine.journal.keep()
    first = await die(world, engine)
    assert is_there(memory)
    assert not await goes_on_since(world, first)


async def test_a_store_set_back(world: World) -> None:
    engine = await start(world)
    await durable(engine, engine.layers[1])
    await engine.close()
    before = dict(world.store.objects)
    engine = await world.open(take_over=False)
    later = engine.manifests.incarnation
    await engine.close()
    world.store.objects.clear()
    world.store.objects.update(before)
    engine = await world.open(take_over=False, accept_rollback=True)
    assert not engine.manifests.is_unbroken_since(later)
    assert len(engine.manifests.manifest.lineage) == 1
    await engine.close()


async def test_each_term_is_one_more(world: World) -> None:
    first = await start(world)
    await first.close()
    for _ in range(3):
        engine = await world.open(take_over=False)
        await engine.close()
    assert len(engine.manifests.manifest.lineage) == 4
    assert engine.manifests.is_unbroken_since(first.manifests.incarnation)


def test_there_are_not_too_many() -> None:
    """The oldest ones go: who was attached that long ago is told that something may be lost."""
    terms = [number.to_bytes(INCARNATION_BYTES) for number in range(2 * LINEAGE_MAX)]
    lineage: list[bytes] = []
    for count, term in enumerate(terms, 1):
        lineage = next_lineage(lineage, term)
        assert lineage == terms[:count][-LINEAGE_MAX:]


async def test_an_opening_that_fails_leaves_the_journal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await die(world, await start(world))

    def away(fence: Fence, *args: object) -> None:
        raise Unavailable("the store does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(Fence, "put", away)
        with pytest.raises(Unavailable):
            await world.open(take_over=False)
    assert await goes_on_since(world, first)
