"""The record of who is attached, in the store: there as long as it is needed, whoever dies."""

import asyncio
from collections.abc import Iterator

import pytest

from storage.errors import Closed, Corrupt, NotFound, StorageError, Unavailable
from storage.format.names import WRITERS
from storage.fs.succession.stored_attachments import StoredAttachments
from storage.objects.retry import RetryingStore
from tests.simulation.loop import Process
from tests.storage.fs.succession.pair import World, play


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.end()


def test_a_record_is_given_up_with_its_writer(world: World) -> None:
    """Who failed while the store is away ends, and does not wait for it."""

    async def scene() -> None:
        world.lines["a"].away = True
        failed: asyncio.Future[StorageError] = asyncio.get_running_loop().create_future()
        patient = RetryingStore(world.lines["a"], world.env, None)
        keeping = world.loop.spawn(
            world.writer, StoredAttachments(patient, world.key, world.env, failed).keep(3, b"one")
        )
        await asyncio.sleep(100)
        assert not keeping.done()
        failed.set_result(Closed("a mistake"))
        with pytest.raises(Closed, match="a mistake"):
            await keeping

    play(world, scene())


def test_a_deletion_that_is_refused_keeps_no_client_waiting(world: World) -> None:
    """What is to go is no more than garbage; the next record tries again."""

    async def scene() -> None:
        line = world.lines["a"]
        kept = StoredAttachments(RetryingStore(line, world.env, None), world.key, world.env)
        line.keeps_all = True
        for record in (b"one", b"two"):
            async with asyncio.timeout(100):
                await kept.keep(3, record)
        assert await StoredAttachments(world.patient("a"), world.key, world.env).load() == (3, b"two")
        line.keeps_all = False
        await kept.keep(3, b"three")
        assert len(await world.store.list(WRITERS)) == 1

    play(world, scene())


def test_a_record_that_is_listed_and_not_there_is_not_asked_for_for_ever(world: World) -> None:
    """A listing may be old for a moment. One that stays so is no reason to ask without an end."""

    async def scene() -> None:
        await StoredAttachments(world.patient("a"), world.key, world.env).keep(3, b"one")
        world.lines["a"].hides_all = True
        with pytest.raises(Unavailable, match="lists a record of clients that is not there"):
            await StoredAttachments(world.patient("a"), world.key, world.env).load()

    play(world, scene())


def test_a_record_is_never_missing(world: World) -> None:
    """Wherever the writer dies: there is one that names who was attached."""

    async def scene() -> None:
        await StoredAttachments(world.patient("a"), world.key, world.env).keep(3, b"one")
        for seconds in range(20):
            dying = Process("dying", "a")
            kept = StoredAttachments(world.patient("a"), world.key, world.env)
            await kept.load()
            world.loop.spawn(dying, kept.keep(3, b"two"))
            await asyncio.sleep(seconds * 0.005)
            dying.kill()
            found = await StoredAttachments(world.patient("a"), world.key, world.env).load()
            assert found in ((3, b"one"), (3, b"two"))

    play(world, scene())


def test_who_meets_a_damaged_record_is_told_what_to_do(world: World) -> None:
    """Without it nobody knows who is to be refused: people have to say."""

    async def scene() -> None:
        await StoredAttachments(world.patient("a"), world.key, world.env).keep(3, b"one")
        name = "writer/0000000003-00000000000000000001.attached"
        damaged = bytearray(await world.store.get(name))
        damaged[-1] ^= 1
        await world.store.put(name, bytes(damaged))
        with pytest.raises(Corrupt, match=f"{name} is damaged.* Detach those, delete it, and start again"):
            await StoredAttachments(world.patient("a"), world.key, world.env).load()

    play(world, scene())


def test_the_record_of_who_is_attached(world: World) -> None:
    """The newest one counts, and is there before the one before it goes."""

    async def scene() -> None:
        first = StoredAttachments(world.patient("a"), world.key, world.env)
        assert await first.load() is None
        for record in (b"one", b"two"):
            await first.keep(3, record)
            assert await StoredAttachments(world.patient("a"), world.key, world.env).load() == (3, record)
        second = StoredAttachments(world.patient("a"), world.key, world.env)
        assert await second.load() == (3, b"two")
        await second.keep(4, b"three")
        assert len(await world.store.list(WRITERS)) == 1
        await second.keep(2, b"of a store that was set back")
        assert await second.load() == (2, b"of a store that was set back")
        with pytest.raises(NotFound):
            await world.store.get("writer/0000000004-00000000000000000003.attached")

    play(world, scene())


@pytest.mark.parametrize(
    "name", ["0000000001-18446744073709551615", "9999999999-00000000000000000001", "0000000001-09223372036854775808"]
)
def test_a_name_that_no_writer_gives_is_no_record(world: World, name: str) -> None:
    """What comes behind it has no number: whoever went on from it would keep no record at all."""

    async def scene() -> None:
        await world.store.put(f"writer/{name}.attached", b"not ours")
        kept = StoredAttachments(world.patient("a"), world.key, world.env)
        assert await kept.load() is None
        await kept.keep(3, b"one")
        assert await StoredAttachments(world.patient("a"), world.key, world.env).load() == (3, b"one")
        assert await world.store.get(f"writer/{name}.attached") == b"not ours"

    play(world, scene())


def test_a_number_with_no_room_behind_it_is_said_before_a_writer_goes_on_from_it(world: World) -> None:
    """Of an epoch that counts no more, too: the next writer would go on from it, until nobody sees what he keeps."""

    async def scene() -> None:
        name = "writer/0000000001-09223372036854775807.attached"
        await world.store.put(name, b"not ours")
        await StoredAttachments(world.patient("a"), world.key, world.env).keep(3, b"one")
        with pytest.raises(Corrupt, match=f"{name}.* delete it"):
            await StoredAttachments(world.patient("a"), world.key, world.env).load()
        await world.store.delete([name])
        assert await StoredAttachments(world.patient("a"), world.key, world.env).load() == (3, b"one")

    play(world, scene())
