"""Snapshots from one store to another as streams: what arrives, what is kept meanwhile, what is no whole stream."""

import random
from collections.abc import AsyncIterator, Iterable

import pytest

from nbdserver.admin.snapshot_stream import StreamEncoder
from nbdserver.admin.snapshot_transfer import READ_BYTES, receive, send
from storage import ExtentState, Store, StoreOptions, open_store
from storage.crypto.keys import Cost
from storage.env import RealEnv
from storage.errors import Conflict, Corrupt

MIB = 1 << 20
SIZE = 3 * READ_BYTES + 8192


@pytest.fixture
async def other() -> AsyncIterator[Store]:
    """The store that they come to."""
    env = RealEnv()
    options = StoreOptions(cost=Cost.for_tests())
    made = await open_store("memory://", b"password", env=env, create=True, options=options)
    yield made
    assert not made.failed.done()
    await made.close()
    env.close()


async def stream(store: Store, snapshot: str, since: str | None = None) -> list[bytes]:
    return [part async for part in send(store, "disk", snapshot, since, StreamEncoder())]


async def parts(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def contents(store: Store, name: str) -> bytes:
    device = store.device(name)
    return b"".join(bytes(piece) for piece in await device.read(0, device.size))


async def written(store: Store) -> None:
    """A device with two snapshots, `one` and `two`: between them some is written, zeroed, and left as it was."""
    await store.create_device("disk", SIZE)
    disk, chance = store.device("disk"), random.Random(1)
    disk.write(0, chance.randbytes(2 * MIB))
    disk.write(SIZE - 4096, chance.randbytes(4096))
    await store.snapshots.create(["disk"], "one")
    disk.zero(MIB // 2, MIB, allocated=False)
    disk.write(100, b"part of a sector")
    disk.write(READ_BYTES - 1000, chance.randbytes(2000))
    await store.resize_device("disk", SIZE + MIB)
    disk.write(SIZE + MIB - 512, b"z" * 512)
    await store.snapshots.create(["disk"], "two")


async def test_what_is_sent_is_what_arrives(store: Store, other: Store) -> None:
    await written(store)
    one, two = await stream(store, "one"), await stream(store, "two", "one")
    assert sum(map(len, two)) < sum(map(len, one)), "what did not change is not sent"
    answer = await receive(other, "copy", parts(one))
    assert answer == {"name": "copy", "size": SIZE, "snapshot": "copy@one"}
    # However it is cut on its way.
    whole = b"".join(two)
    await receive(other, "copy", parts(whole[at : at + 70_001] for at in range(0, len(whole), 70_001)))
    for name in ("one", "two"):
        assert await contents(other, f"copy@{name}") == await contents(store, f"disk@{name}")
    assert await contents(other, "copy") == await contents(store, "disk")
    zeroed = other.device("copy").extents(MIB // 2, MIB // 4)
    assert {state for _, state in zeroed} == {ExtentState.HOLE}, "they take no room"
    sent, arrived = await store.snapshots.list("disk"), await other.snapshots.list("copy")
    assert [(each.identity, each.created, each.size) for each in sent] == [
        (each.identity, each.created, each.size) for each in arrived
    ]


@pytest.mark.parametrize("needed", ["one", "two"])
async def test_what_is_sent_is_kept_meanwhile(store: Store, needed: str) -> None:
    await written(store)
    sending = send(store, "disk", "two", "one", StreamEncoder())
    await anext(sending)
    with pytest.raises(Conflict, match="in use by an export"):
        await store.snapshots.delete("disk", needed)
    async for _ in sending:
        pass
    await store.snapshots.delete("disk", needed)


async def test_what_is_no_whole_stream_makes_nothing(store: Store, other: Store) -> None:
    await written(store)
    one, two = await stream(store, "one"), await stream(store, "two", "one")
    cut = [one[:at] for at in (0, 1, len(one) // 2, len(one) - 1)]
    more = [[*one, b"x"], [*one[:-1], one[-1] + b"x"], [*one, *one], [*one[:-1], one[-1][:-1]]]
    for chunks in [*cut, *more]:
        with pytest.raises(Corrupt, match="the snapshot stream"):
            await receive(other, "copy", parts(chunks))
        assert other.names() == ()
    await receive(other, "copy", parts(one))
    before = await contents(other, "copy")
    for chunks in (two[:-1], [*two, b"x"]):
        with pytest.raises(Corrupt, match="the snapshot stream"):
            await receive(other, "copy", parts(chunks))
        assert await contents(other, "copy") == before
        assert other.device("copy").exclusive_user is None
        assert [each.name for each in await other.snapshots.list("copy")] == ["one"]
