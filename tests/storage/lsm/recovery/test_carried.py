"""Which journal a writer goes on with, and what becomes of the others on its host."""

import asyncio
import re
import threading
from functools import partial
from pathlib import Path

import pytest

from storage.errors import Conflict, Fenced
from storage.format.frame import SECTOR_BYTES
from storage.format.names import MANIFESTS, SPARES
from storage.journal.files import FolderFiles, Taken
from storage.lsm.engine import Engine
from storage.lsm.recovery import take_over
from storage.lsm.recovery.anchor import HostState
from storage.lsm.recovery.locks import LockHolder
from tests.storage.lsm.worlds import World, durable, read
from tests.support.waiting import until

URL = "memory://"
SECONDS = 60

ANSWERED = b"b" * SECTOR_BYTES


@pytest.fixture
def world(tmp_path: Path, memory: Path) -> World:
    made = World(host=HostState(tmp_path / "here", URL), threads=True)
    made.journals = partial(FolderFiles, memory / "journals", URL)
    return made


def journals_in(memory: Path) -> int:
    return len(list(memory.rglob("*.journal")))


def only_journal(memory: Path) -> Path:
    (found,) = memory.rglob("*.journal")
    return found


async def die_behind_an_answer(world: World, engine: Engine) -> None:
    """What was answered is in the journal alone, when the process is killed."""
    engine.layers[1].write(0, ANSWERED)
    engine.journal.keep()
    await world.crash(engine)
    await engine.close()


async def test_a_start_that_stood_still_leaves_the_journal_of_who_took_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right before it clears away what others left: the store is another's, who has been killed, when it wakes up."""
    first, layer = await world.start()
    await durable(first, layer)
    await first.close()
    stands_still, wakes_up = threading.Event(), threading.Event()
    goes_on = FolderFiles.set_aside

    def stand_still(files: FolderFiles, *, epoch: int | None) -> str | None:
        stands_still.set()
        assert wakes_up.wait(SECONDS)
        return goes_on(files, epoch=epoch)

    with monkeypatch.context() as patch:
        patch.setattr(FolderFiles, "set_aside", stand_still)
        opening = asyncio.ensure_future(world.open(take_over=False))
        assert await asyncio.to_thread(stands_still.wait, SECONDS)
    killed = await world.open()
    await die_behind_an_answer(world, killed)
    wakes_up.set()
    superseded = await opening
    superseded.layers[1].write(0, b"c" * SECTOR_BYTES)
    with pytest.raises(Fenced):
        await durable(superseded, superseded.layers[1])
    await superseded.close()
    last = await world.open(take_over=False)
    assert last.manifests.is_unbroken_since(killed.manifests.incarnation)
    assert await read(last.layers[1], 0, SECTOR_BYTES) == ANSWERED
    await last.close()


async def test_a_store_set_back_leaves_no_journal_of_its_other_life(world: World, memory: Path) -> None:
    """Though its epochs are higher: it would take memory until the machine is started anew."""
    first, layer = await world.start()
    await durable(first, layer)
    await first.close()
    before = dict(world.store.objects)
    for _ in range(3):
        last = await world.open(take_over=False)
        await last.close()
    await die_behind_an_answer(world, await world.open(take_over=False))
    assert journals_in(memory) == 1
    world.store.objects.clear()
    world.store.objects.update(before)
    engine = await world.open(take_over=False, accept_rollback=True)
    assert engine.opening.problem is not None
    assert "was set aside" in engine.opening.problem
    assert journals_in(memory) == 1
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == bytes(SECTOR_BYTES)
    await engine.close()


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What came of each attempt to take a journal that another process had."""
    seen: list[str] = []
    take = FolderFiles.take

    def tell(files: FolderFiles, journal_id: bytes) -> Taken:
        found = take(files, journal_id)
        if found == "held":
            seen.append(found)
        return found

    monkeypatch.setattr(FolderFiles, "take", tell)
    return seen


@pytest.mark.parametrize("ends", ["by a kill", "well"])
async def test_who_has_the_journal_of_the_last_writer_is_waited_for(
    world: World, refusals: list[str], ends: str
) -> None:
    """Before it has taken the store over: else what was answered would be lost, and nobody had asked for that."""
    killed, _ = await world.start()
    await die_behind_an_answer(world, killed)
    held = world.store.hold("create", MANIFESTS)
    opening = asyncio.ensure_future(world.open(take_over=False))
    await held.someone_waits()
    waiting = asyncio.ensure_future(world.open(take_over=False))
    await until(lambda: len(refusals) > 1)
    assert held.waiting == 1
    assert not waiting.done()
    if ends == "well":
        held.release()
        engine = await opening
        with pytest.raises(Fenced, match="another server of this host"):
            await waiting
    else:
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        held.release()
        engine = await waiting
    assert engine.manifests.is_unbroken_since(killed.manifests.incarnation)
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == ANSWERED
    await engine.close()


async def test_it_is_not_waited_for_without_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    killed, _ = await world.start()
    await die_behind_an_answer(world, killed)
    held = world.store.hold("create", MANIFESTS)
    opening = asyncio.ensure_future(world.open(take_over=False))
    await held.someone_waits()
    with monkeypatch.context() as patch:
        patch.setattr(take_over, "pauses", lambda: iter([0.0, 0.001]))
        with pytest.raises(Conflict, match="about to open memory://, and has the journal of its last server"):
            await world.open(take_over=False)
    held.release()
    engine = await opening
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == ANSWERED
    await engine.close()


async def test_a_store_is_taken_from_who_is_about_to_open_it(world: World) -> None:
    """If that is asked for: it may stand still for ever."""
    killed, _ = await world.start()
    await die_behind_an_answer(world, killed)
    held = world.store.hold("create", MANIFESTS)
    opening = asyncio.ensure_future(world.open(take_over=False))
    await held.someone_waits()
    world.store.holds.clear()
    engine = await world.open(take_over=True)
    assert not engine.manifests.is_unbroken_since(killed.manifests.incarnation)
    assert engine.opening.problem is not None
    assert "a living process has it" in engine.opening.problem
    held.release()
    with pytest.raises(Fenced):
        await opening
    await engine.close()


async def test_of_a_store_that_was_closed_no_journal_is_missing(world: World) -> None:
    """Though its last writer has it yet, which is about to end."""
    first, layer = await world.start()
    await durable(first, layer)
    held = world.store.hold("create", SPARES)
    closing = asyncio.ensure_future(first.close())
    await held.someone_waits()
    world.store.holds.clear()
    engine = await world.open(take_over=False)
    assert engine.opening.problem is None
    assert engine.manifests.is_unbroken_since(first.manifests.incarnation)
    held.release()
    await closing
    await engine.close()


async def test_what_is_unsound_is_given_up_once_the_lock_names_another_journal(
    world: World, tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who starts meanwhile would take it, and believe that it holds all that this writer answered."""
    killed, _ = await world.start()
    await die_behind_an_answer(world, killed)
    unsound = only_journal(memory)
    (segment,) = unsound.glob("*.segment")
    segment.write_bytes(bytes(byte ^ 1 for byte in segment.read_bytes()))
    take, leave = FolderFiles.take, FolderFiles.leave
    named: list[str] = []

    def taken(files: FolderFiles, journal_id: bytes) -> Taken:
        found = take(files, journal_id)
        named.clear()
        return found

    def look(files: FolderFiles) -> None:
        lock = max(tmp_path.rglob("writer-*.lock"), key=lambda path: int(path.name.split("-")[1]))
        named.append(re.findall(r"^journal (\w+)$", lock.read_text(), re.MULTILINE)[-1])
        leave(files)

    with monkeypatch.context() as patch:
        patch.setattr(FolderFiles, "take", taken)
        patch.setattr(FolderFiles, "leave", look)
        engine = await world.open(take_over=False)
    begun = only_journal(memory)
    (first, *_) = named
    assert begun != unsound
    assert begun.name.endswith(f"-{first}.journal")
    assert not engine.manifests.is_unbroken_since(killed.manifests.incarnation)
    await engine.close()


async def test_who_looks_while_another_one_takes_the_store_is_told_of_that_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has looked at is of the writer before, whose lock has gone by then: nothing ran elsewhere."""
    first, layer = await world.start()
    await durable(first, layer)
    await world.crash(first)
    await first.close()
    holder, taken_by = HostState.holder, list[Engine]()
    loop = asyncio.get_running_loop()

    def look(host: HostState, epoch: int, newest_tag: bytes) -> LockHolder:
        if not taken_by:
            monkeypatch.undo()
            taken_by.append(asyncio.run_coroutine_threadsafe(world.open(take_over=False), loop).result(SECONDS))
        return holder(host, epoch, newest_tag)

    monkeypatch.setattr(HostState, "holder", look)
    with pytest.raises(Fenced, match=r"another server of this host \(process .*\) holds memory://"):
        await world.open(take_over=False)
    await taken_by[0].close()
