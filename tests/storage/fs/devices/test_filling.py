"""Devices that are filled: whole, or as they were, whatever comes in between."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage.errors import AccessDenied, AlreadyExists, Conflict, NotFound
from storage.fs.devices.filling import IncomingSnapshot
from storage.fs.store import Store
from tests.storage.fs.places import MIB, Place, contents, kill, nothing
from tests.support.inside import engine_of
from tests.support.waiting import until

FILLER = "an import"
OLD, NEW = b"old" * 100_000, b"new" * 100_000
TWO = IncomingSnapshot("two", b"2" * 16, 5 * MIB, 17 * 10**9)


@pytest.fixture
async def store(place: Place) -> Store:
    """A device `a` of 4 MiB which holds what `a@one` holds."""
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    store.device("a").write(0, OLD)
    await store.snapshots.create(["a"], "one")
    return store


async def identity(store: Store, name: str = "one") -> bytes:
    return next(bytes.fromhex(one.identity) for one in await store.snapshots.list("a") if one.name == name)


async def is_as_before(store: Store) -> None:
    """The device is what `a@one` is, and can be used."""
    await until(lambda: store.device("a").exclusive_user is None)
    assert store.device("a").size == 4 * MIB
    assert await contents(store.device("a")) == OLD + bytes(4 * MIB - len(OLD))
    assert await contents(store.device("a@one")) == OLD + bytes(4 * MIB - len(OLD))
    assert store.device("a").history.snapshots() == ["one"]
    store.device("a").write(0, b"x")
    await store.snapshots.roll_back("a", "one", keep=False)


async def test_a_snapshot_that_arrives(place: Place, store: Store) -> None:
    async with store.filling.onto("a", await identity(store), FILLER, TWO) as device:
        device.write(0, NEW)
        device.zero(MIB, MIB, allocated=False)
        device.write(5 * MIB - 10, b"x" * 10)
    want = NEW + bytes(5 * MIB - len(NEW) - 10) + b"x" * 10
    for again in (False, True):
        assert store.device("a").size == 5 * MIB
        assert await contents(store.device("a")) == await contents(store.device("a@two")) == want
        _, two = await store.snapshots.list("a")
        assert (two.name, two.identity, two.created, two.size) == ("two", "32" * 16, 17.0, 5 * MIB)
        assert store.device("a").exclusive_user is None
        if not again:
            await kill(store)
            store = await place.open()
    await store.snapshots.delete("a", "one")
    async with store.filling.onto("a", TWO.identity, FILLER, IncomingSnapshot("three", b"3" * 16, MIB, 0)):
        pass
    assert await contents(store.device("a")) == NEW + bytes(MIB - len(NEW))
    await store.close()


async def test_one_that_fails(store: Store) -> None:
    async def fill(*, durable: bool) -> None:
        async with store.filling.onto("a", await identity(store), FILLER, TWO) as device:
            device.write(0, NEW)
            if durable:
                await store.flush()
            raise ValueError("no more")

    for durable in (False, True):
        with pytest.raises(ValueError, match="no more"):
            await fill(durable=durable)
        assert store.device("a").exclusive_user is None, "who is told of the failure finds it undone"
        await is_as_before(store)
    await store.close()


@pytest.mark.parametrize("step", range(0, 120, 7))
async def test_one_that_is_cancelled(store: Store, step: int) -> None:
    """In any step it is as before, or whole."""
    base = await identity(store)

    async def fill() -> None:
        async with store.filling.onto("a", base, FILLER, TWO) as device:
            device.write(0, NEW)

    filling = asyncio.ensure_future(fill())
    for _ in range(step):
        await asyncio.sleep(0)
    filling.cancel()
    await asyncio.wait({filling})
    await engine_of(store).flush_memtable()
    await until(lambda: store.device("a").exclusive_user is None)
    if "two" in store.device("a").history.snapshots():
        assert await contents(store.device("a"), 0, len(NEW)) == NEW
    else:
        await is_as_before(store)
    await store.close()


@pytest.mark.parametrize("durable", [False, True])
async def test_one_whose_server_is_killed(place: Place, store: Store, durable: bool) -> None:
    """Nobody gets what is half of it; the next writer rolls it back."""
    filling = store.filling.onto("a", await identity(store), FILLER, TWO)
    device = await filling.__aenter__()
    device.write(0, NEW)
    if durable:
        await store.flush()
    await kill(store)
    with pytest.raises(Exception, match="killed"):
        await filling.__aexit__(None, None, None)
    reader = await place.reader()
    assert reader.device("a").exclusive_user == "an import that is not done"
    assert await contents(reader.device("a@one"), 0, len(OLD)) == OLD
    await reader.close()
    store = await place.open()
    with pytest.raises(Conflict):
        await store.snapshots.delete("a", "one")
    await is_as_before(store)
    await store.snapshots.delete("a", "one")
    await store.close()


@pytest.mark.parametrize("durable", [False, True])
async def test_a_new_device_whose_server_is_killed(place: Place, store: Store, durable: bool) -> None:
    filling = store.filling.new("b", MIB, FILLER)
    device = await filling.__aenter__()
    device.write(0, NEW)
    if durable:
        await store.flush()
    await kill(store)
    with pytest.raises(Exception, match="killed"):
        await filling.__aexit__(None, None, None)
    store = await place.open()
    assert store.names() == ("a",)
    async with store.filling.new("b", MIB, FILLER, IncomingSnapshot("one", b"1" * 16, MIB, 0)) as device:
        device.write(0, NEW)
    await kill(store)
    store = await place.open()
    assert await contents(store.device("b@one"), 0, len(NEW)) == NEW
    assert store.device("b").exclusive_user is None
    await store.close()


@pytest.mark.parametrize("durable", [False, True])
async def test_one_that_is_replaced_when_its_server_is_killed(place: Place, store: Store, durable: bool) -> None:
    """It is rolled back to what it held, which is kept for that, and then is not."""
    held = OLD + bytes(4 * MIB - len(OLD) - 9) + b"unflushed"
    store.device("a").write(4 * MIB - 9, b"unflushed")
    filling = store.filling.over("a", FILLER, nothing)
    device = await filling.__aenter__()
    device.zero(0, device.size, allocated=False)
    device.write(0, NEW)
    if durable:
        await store.flush()
    await kill(store)
    with pytest.raises(Exception, match="killed"):
        await filling.__aexit__(None, None, None)
    reader = await place.reader()
    assert reader.device("a").exclusive_user == "an import that is not done"
    await reader.close()
    store = await place.open()
    await until(lambda: store.device("a").exclusive_user is None)
    assert await contents(store.device("a")) == held
    await until(lambda: store.device("a").history.snapshots() == ["one"])
    await store.close()


@pytest.mark.parametrize("step", [*range(12), *range(12, 140, 9)])
async def test_one_that_is_replaced_when_that_is_cancelled(store: Store, step: int) -> None:
    """In any step it is as before, or whole."""

    async def fill() -> None:
        async with store.filling.over("a", FILLER, nothing) as device:
            device.zero(0, device.size, allocated=False)
            device.write(0, NEW)

    filling = asyncio.ensure_future(fill())
    for _ in range(step):
        await asyncio.sleep(0)
    filling.cancel()
    await asyncio.wait({filling})
    await engine_of(store).flush_memtable()
    await until(lambda: store.device("a").exclusive_user is None)
    found = await contents(store.device("a"))
    assert found in (content + bytes(4 * MIB - len(content)) for content in (OLD, NEW))
    assert filling.cancelled() or found.startswith(NEW)
    await until(lambda: store.device("a").history.snapshots() == ["one"])
    await store.close()


@pytest.mark.parametrize("step", range(3, 150, 7))
async def test_one_that_is_replaced_when_its_server_is_killed_in_any_step(
    place: Place, store: Store, step: int
) -> None:
    async def fill() -> None:
        async with store.filling.over("a", FILLER, nothing) as device:
            device.zero(0, device.size, allocated=False)
            device.write(0, NEW)

    filling = asyncio.ensure_future(fill())
    for _ in range(step):
        await asyncio.sleep(0)
    done = filling.done()
    await kill(store)
    await asyncio.wait({filling})
    again = await place.open()
    await until(lambda: again.device("a").exclusive_user is None)
    found = await contents(again.device("a"))
    assert found in (content + bytes(4 * MIB - len(content)) for content in (OLD, NEW))
    assert found.startswith(NEW) or not done
    await until(lambda: again.device("a").history.snapshots() == ["one"])
    await again.close()


async def test_one_that_is_replaced_is_there_for_ever(place: Place, store: Store) -> None:
    async with store.filling.over("a", FILLER, nothing) as device:
        device.zero(0, device.size, allocated=False)
        device.write(0, NEW)
        with pytest.raises(Conflict, match="an import"):
            await store.resize_device("a", 5 * MIB)
        with pytest.raises(Conflict, match="an import"):
            await store.snapshots.delete("a", "import-under-way")
    assert store.device("a").history.snapshots() == ["one"], "who is told of the end finds nothing left"
    await kill(store)
    store = await place.open()
    assert await contents(store.device("a")) == NEW + bytes(4 * MIB - len(NEW))
    assert store.device("a").exclusive_user is None
    await store.resize_device("a", 5 * MIB)
    await store.snapshots.delete("a", "one")
    await store.close()


@pytest.fixture
async def changed(store: Store) -> AsyncIterator[Store]:
    yield store
    await store.close()


async def refused(store: Store, base: bytes, arrival: IncomingSnapshot, error: type[Exception], match: str) -> None:
    before = await contents(store.device("a")), await store.snapshots.list()
    with pytest.raises(error, match=match):
        async with store.filling.onto("a", base, FILLER, arrival) as device:
            device.write(0, NEW)
    assert (await contents(store.device("a")), await store.snapshots.list()) == before
    assert store.device("a").exclusive_user is None


async def test_what_is_refused(changed: Store) -> None:
    store, base = changed, await identity(changed)
    await refused(store, b"x" * 16, TWO, Conflict, "its newest is 'one'")
    await refused(
        store, b"x" * 16, IncomingSnapshot("two", base, MIB, 0), AlreadyExists, "a@one holds all of this already"
    )
    await refused(store, base, IncomingSnapshot("one", b"2" * 16, MIB, 0), AlreadyExists, "with another content")
    store.device("a").write(MIB, b"x")
    await refused(store, base, TWO, Conflict, "snapshot rollback a@one")
    store.device("a").zero(MIB, 1, allocated=False)
    await store.resize_device("a", 5 * MIB)
    await refused(store, base, TWO, Conflict, "was changed")
    await store.resize_device("a", 4 * MIB, shrink=True)
    store.open_devices.clients_of = lambda name: ["a client"]
    await refused(store, base, TWO, Conflict, "attached by a client")
    store.open_devices.clients_of = lambda name: []
    with pytest.raises(NotFound):
        async with store.filling.onto("b", base, FILLER, TWO):
            pass
    async with store.filling.onto("a", base, FILLER, TWO):
        with pytest.raises(Conflict, match="in use by an import"):
            await store.snapshots.create(["a"], "three")
        with pytest.raises(Conflict, match="an import"):
            await store.snapshots.delete("a", "one")


async def put_together_since(store: Store, snapshot: str) -> bool:
    """Whether maintenance put together a block of patches after this snapshot of it, and not before."""
    for at in range(40):
        store.device("a").write(at * 4096, f"{snapshot} {at}".encode() * 100)
        await store.maintenance.flush()
    await store.snapshots.create(["a"], snapshot)
    while (await store.maintenance.compact_step(None)).job is not None:
        pass
    return any(flags for _, flags in store.device("a").history.since(snapshot).extents(0, 4 * MIB))


async def test_what_maintenance_put_together_is_not_taken_for_a_change(changed: Store) -> None:
    """The two lie in different places then: they are read."""
    for number in range(10):
        if await put_together_since(changed, f"s{number}"):
            async with changed.filling.onto("a", await identity(changed, f"s{number}"), FILLER, TWO):
                return
    pytest.fail("it never was, so this tests nothing")


async def test_a_snapshot_is_not_filled(changed: Store) -> None:
    with pytest.raises(AccessDenied, match="'a@one' is a snapshot, and read-only"):
        async with changed.filling.over("a@one", FILLER, nothing):
            pass
    assert await contents(changed.device("a@one"), 0, len(OLD)) == OLD
