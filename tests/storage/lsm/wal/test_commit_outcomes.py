"""What becomes of a group commit: taken names, failures, and who is told."""

import asyncio

import pytest

from storage.buffers import Buffer
from storage.errors import AccessDenied, AlreadyExists, Closed, Fenced, StorageError, Unavailable
from storage.format.envelope import NO_LINK
from storage.format.frame import SECTOR_BYTES
from storage.format.names import WALS, wal_name
from storage.lsm.wal.position import LoggedObject, LogPosition
from tests.storage.lsm.wal.test_group_commit import SECTOR
from tests.storage.lsm.worlds import (
    World,
    durable,
    record,
    when_durable,
)
from tests.support.idle import idle
from tests.support.waiting import soon, until


async def test_its_own_object_found_there_is_success() -> None:
    """The reply of the first attempt was lost: the same bytes lie there."""
    world = World()
    engine, layer = await world.start()
    create = world.store.create

    async def twice(name: str, data: Buffer) -> None:
        await create(name, data)
        if name.startswith(WALS):
            raise AlreadyExists(name)

    world.store.create = twice  # type: ignore[method-assign]
    layer.write(0, SECTOR)
    await soon(asyncio.ensure_future(durable(engine, layer)))
    await world.crash(engine)


@pytest.mark.parametrize("error", [AccessDenied("no"), RuntimeError("a bug"), Unavailable("gave up")])
async def test_a_failure_is_never_turned_into_success(error: Exception) -> None:
    world = World()
    engine, layer = await world.start()
    world.store.fail_once("create", WALS, error)
    layer.write(0, SECTOR)
    with pytest.raises(StorageError):
        await soon(asyncio.ensure_future(durable(engine, layer)))
    assert isinstance(engine.failed.result(), type(error) if isinstance(error, StorageError) else Closed)
    sent = len(world.store.calls)
    layer.write(0, SECTOR)
    when_durable(layer, layer.last_sequence, lambda: pytest.fail("acknowledged after a failure"))
    with pytest.raises(StorageError):
        await engine.flush()
    with pytest.raises(StorageError):
        await engine.flush_memtable()
    with pytest.raises(StorageError):
        await engine.change_tree(record("create", 2))
    await idle()
    assert len(world.store.calls) == sent
    await engine.close()


async def test_another_writers_object_under_our_number_stops_us() -> None:
    world = World()
    engine, layer = await world.start()
    await world.store.create(wal_name(engine.log.position.next_number), b"of another")
    layer.write(0, SECTOR)
    with pytest.raises(Fenced):
        await soon(asyncio.ensure_future(durable(engine, layer)))
    sent = len(world.store.calls)
    layer.write(0, SECTOR)
    await idle()
    assert len(world.store.calls) == sent


async def test_a_callback_that_raises_harms_nobody_else() -> None:
    """It is a bug of one connection: reported, and neither the store nor the other connections pay for it."""
    world = World()
    engine, layer = await world.start()
    told: list[str] = []
    reported: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def broken() -> None:
        told.append("broken")
        raise ValueError("a bug of a connection")

    layer.write(0, SECTOR)
    when_durable(layer, layer.last_sequence, broken)
    when_durable(layer, layer.last_sequence, lambda: told.append("fine"))
    await until(lambda: len(told) == 2)
    assert [type(error) for error in reported] == [ValueError]
    assert not engine.failed.done()
    layer.write(0, SECTOR)
    await soon(asyncio.ensure_future(durable(engine, layer)))
    await world.crash(engine)


async def test_waiters_of_older_sequences_are_answered_too() -> None:
    world = World()
    engine, layer = await world.start()
    told: list[int] = []
    sequences = [layer.write(number * SECTOR_BYTES, SECTOR) for number in range(3)]
    for sequence in reversed(sequences):
        assert not when_durable(layer, sequence, lambda sequence=sequence: told.append(sequence))  # type: ignore[misc]
    await until(lambda: len(told) == 3)
    assert when_durable(layer, sequences[0], lambda: pytest.fail("called though it was told at once"))
    await world.crash(engine)


def test_the_position_forgets_what_is_truncated() -> None:
    position = LogPosition(next_number=30, tail_tag=NO_LINK, acknowledged=25)
    for number in (20, 21, 22, 25):
        position.add(LoggedObject(number, 100 + number, bytes([number]) * 16))
    assert position.logged_bytes == 488
    assert position.tag_below(22) == bytes([21]) * 16
    assert position.tag_below(25) == NO_LINK, "a fence lies there"
    assert position.truncate(22) == [20, 21]
    assert position.truncate(22) == []
    assert position.logged_bytes == 247
    assert position.tag_below(22) == bytes([21]) * 16, "the chain goes on from there"
    assert position.tag_below(26) == bytes([25]) * 16
