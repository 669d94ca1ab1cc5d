"""What is read of an object before anybody with the key is known to have made it, and how much at once."""

import asyncio

import pytest

from storage.bucket.whole import UNPROVEN_BYTES_MAX, BytesSemaphore, read_whole
from storage.crypto.cipher import Cipher
from storage.env import RealEnv
from storage.errors import Corrupt
from storage.format.envelope import FIRST_PART_BYTES, PART_BYTES_MAX, Header, ObjectKind, seal_object
from storage.format.names import TABLES, sst_name, wal_name
from storage.format.sizes import WAL_BYTES_MAX
from tests.storage.lsm.worlds import KEY, StageStore, World, durable
from tests.support.idle import idle

CIPHER = Cipher(KEY.purpose("wal"))
NAME = wal_name(7)
MIB = 1024 * 1024


def sealed(parts: int) -> bytes:
    """A log object of so many parts that do not compress."""
    header = Header(kind=ObjectKind.WAL, epoch=1, store_id=KEY.store_id, nonce=bytes(16), number=7)
    return seal_object(CIPHER, header, RealEnv().random_bytes(PART_BYTES_MAX) * parts)[0]


async def get(store: StageStore, size: int, number: int = 7) -> bytes:
    return await read_whole(
        store,
        NAME,
        size,
        limit=WAL_BYTES_MAX,
        cipher=CIPHER,
        store_id=KEY.store_id,
        kinds=(ObjectKind.WAL,),
        number=number,
        env=World().env,
    )


@pytest.mark.parametrize("parts", [1, 80])
async def test_what_was_sealed_is_read(parts: int) -> None:
    store = StageStore()
    raw = store.objects[NAME] = sealed(parts)
    assert (len(raw) > UNPROVEN_BYTES_MAX) == (parts > 1)
    assert await get(store, len(raw)) == raw


async def test_of_what_a_stranger_put_there_the_first_part_is_read_and_no_more() -> None:
    store = StageStore()
    good = sealed(80)
    forged = bytearray(good)
    forged[200] ^= 1
    for content, number in ((bytes(len(good)), 7), (bytes(forged), 7), (good + b"x", 7), (good, 8)):
        store.objects[NAME] = content
        store.calls.clear()
        with pytest.raises(Corrupt, match="wal/0"):
            await get(store, len(content), number)
        assert store.calls == [("get", NAME, FIRST_PART_BYTES)]


async def test_of_what_is_larger_than_any_nothing_is_read() -> None:
    store = StageStore()
    with pytest.raises(Corrupt, match=f"at most {WAL_BYTES_MAX}"):
        await get(store, WAL_BYTES_MAX + 1)
    assert store.calls == []


async def test_no_more_is_read_than_the_listing_said() -> None:
    """There is room for so much; whoever put a larger one in its place does not get more."""
    store = StageStore()
    store.objects[NAME] = sealed(80)
    with pytest.raises(Corrupt, match="wal/0"):
        await get(store, MIB)


async def test_so_much_is_read_at_once_and_no_more() -> None:
    room = BytesSemaphore(100)
    inside: list[int] = []
    most = 0
    go_on = asyncio.Event()

    async def enter(size: int) -> None:
        nonlocal most
        async with room.take(size):
            inside.append(size)
            most = max(most, sum(inside) if len(inside) > 1 else 0)
            await go_on.wait()
            inside.remove(size)

    sizes = [60, 60, 30, 1000, 50, 10]
    tasks = [asyncio.create_task(enter(size)) for size in sizes]
    await idle()
    assert inside == [60, 30, 10]
    tasks[1].cancel()
    go_on.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert room.taken == 0
    assert most <= 100, "what is larger than all of it went alone"


async def test_a_start_asks_once_for_each_sst() -> None:
    world = World()
    engine, layer = await world.start()
    for number in range(5):
        layer.write(number * 8 * MIB, bytes([number + 1]) * MIB)
        await durable(engine, layer)
        await engine.flush_memtable()
    await world.crash(engine)
    world.store.calls.clear()
    engine = await world.open()
    tables = engine.manifests.manifest.ssts
    assert len(tables) >= 5
    tree = engine.manifests.manifest.tree
    assert tree is not None
    reads = [name for verb, name, _ in world.store.calls if verb == "get" and name.startswith(TABLES)]
    assert sorted(reads) == sorted(sst_name(table.id) for table in [*tables, tree])
    await world.crash(engine)
