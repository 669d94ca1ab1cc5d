"""Snapshots of a store in a folder: what each shows, over everything that may happen to it, and who is refused."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from storage.errors import AccessDenied, AlreadyExists, Conflict, Invalid, NotFound
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.fs.store import Store
from tests.storage.fs.places import MIB, Place, contents, kill
from tests.support.inside import engine_of

SIZE = 4 * MIB


class Disks:
    """A store beside what each of its devices and snapshots should hold."""

    def __init__(self, place: Place, store: Store) -> None:
        self.place = place
        self.store = store
        self.held: dict[str, bytearray] = {}
        self.draw = random.Random(1)

    async def create(self, name: str, size: int = SIZE) -> None:
        await self.store.create_device(name, size)
        self.held[name] = bytearray(size)

    def write(self, name: str, times: int = 20) -> None:
        content, device = self.held[name], self.store.device(name)
        for _ in range(times):
            length = min(self.draw.choice([700, SECTOR_BYTES, 3 * SECTOR_BYTES, BLOCK_BYTES]), len(content))
            offset = self.draw.randrange(len(content) - length + 1)
            data = self.draw.randbytes(length)
            device.write(offset, data)
            content[offset : offset + length] = data

    def zero(self, name: str, offset: int, length: int) -> None:
        self.store.device(name).zero(offset, length, allocated=False)
        self.held[name][offset : offset + length] = bytes(length)

    async def snapshot(self, snapshot: str, *devices: str) -> None:
        await self.store.snapshots.create(devices, snapshot)
        for device in devices:
            self.held[f"{device}@{snapshot}"] = bytearray(self.held[device])

    async def check(self) -> None:
        for name, content in self.held.items():
            device = self.store.device(name)
            assert device.size == len(content), name
            assert await contents(device) == content, name

    async def reopen(self) -> None:
        await self.store.flush()
        await kill(self.store)
        self.store = await self.place.open()


@pytest.fixture
async def disks(place: Place) -> Disks:
    store = await place.open(create=True)
    disks = Disks(place, store)
    await disks.create("a")
    await disks.create("b")
    return disks


async def test_each_shows_what_it_showed_whatever_comes(disks: Disks) -> None:
    disks.write("a")
    await disks.snapshot("one", "a")
    disks.write("a")
    disks.zero("a", BLOCK_BYTES, 3 * BLOCK_BYTES)
    await disks.snapshot("two", "a")
    disks.write("a")
    await disks.check()
    await disks.store.snapshots.clone("a", "one", "c")
    disks.held["c"] = bytearray(disks.held["a@one"])
    disks.write("c")
    await disks.snapshot("own", "c")
    await disks.store.snapshots.clone("c", "own", "of-the-clone")
    disks.held["of-the-clone"] = bytearray(disks.held["c@own"])
    await disks.store.snapshots.clone("a", "", "now")
    disks.held["now"] = bytearray(disks.held["a"])
    assert [one.name for one in await disks.store.snapshots.list("a")] == ["one", "two"], "no other is left over"
    await disks.check()
    await disks.store.maintenance.flush()
    while (await disks.store.maintenance.compact_step(None)).job is not None:
        await disks.check()
    await disks.reopen()
    await disks.check()
    await disks.store.snapshots.delete("a", "one")
    del disks.held["a@one"]
    disks.write("a")
    await disks.check()
    await disks.store.close()


async def test_a_rollback_keeps_what_it_replaces_and_newer_snapshots(disks: Disks) -> None:
    disks.write("a")
    await disks.snapshot("one", "a")
    disks.write("a")
    await disks.store.resize_device("a", 2 * SIZE)
    disks.held["a"] += bytes(SIZE)
    await disks.snapshot("two", "a")
    disks.write("a")
    kept = await disks.store.snapshots.roll_back("a", "one")
    assert kept == "before-rollback"
    disks.held[f"a@{kept}"], disks.held["a"] = disks.held["a"], bytearray(disks.held["a@one"])
    await disks.check()
    (automatic,) = [one for one in await disks.store.snapshots.list("a") if one.origin == "rollback"]
    assert automatic.name == kept
    disks.write("a")
    await disks.reopen()
    await disks.check()
    assert await disks.store.snapshots.roll_back("a", "two", keep=False) is None
    disks.held["a"] = bytearray(disks.held["a@two"])
    await disks.check()
    await disks.store.close()


async def test_a_group_is_one_moment(disks: Disks) -> None:
    """A writer goes from one device to the other: no snapshot of the second is ahead of the first."""
    devices = [disks.store.device(name) for name in ("a", "b")]

    async def write() -> None:
        for turn in range(1, 400):
            for device in devices:
                device.write(0, turn.to_bytes(4, "big") * (SECTOR_BYTES // 4))
                await asyncio.sleep(0)

    async def take() -> None:
        for number in range(8):
            await disks.store.snapshots.create(["a", "b"], f"s{number}")

    await asyncio.gather(write(), take())
    turns = []
    for number in range(8):
        first, second = [
            int.from_bytes((await contents(disks.store.device(f"{name}@s{number}"), 0, 4)), "big") for name in "ab"
        ]
        assert first - second in (0, 1)
        turns.append(first)
    assert turns == sorted(turns)
    assert turns[-1] > 0
    await disks.store.close()


async def test_it_can_be_read_and_not_written(disks: Disks) -> None:
    await disks.snapshot("one", "a")
    device = disks.store.device("a@one")
    assert device.read_only
    assert device is disks.store.device("a@one")
    with pytest.raises(AccessDenied):
        device.write(0, bytes(512))
    with pytest.raises(AccessDenied):
        device.zero(0, 512, allocated=False)
    await disks.store.close()


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        (lambda s: s.snapshots.create(["a"], "one"), AlreadyExists),
        (lambda s: s.snapshots.create(["a"], "x/y"), Invalid),
        (lambda s: s.snapshots.create(["a"], "x@y"), Invalid),
        (lambda s: s.snapshots.create(["a", "none"], "two"), NotFound),
        (lambda s: s.snapshots.delete("a", "none"), NotFound),
        (lambda s: s.snapshots.roll_back("b", "one"), NotFound),
        (lambda s: s.snapshots.clone("a", "none", "c"), NotFound),
        (lambda s: s.snapshots.clone("a", "one", "b"), AlreadyExists),
        (lambda s: s.snapshots.clone("a", "", "b"), AlreadyExists),
        (lambda s: s.snapshots.list("none"), NotFound),
        (lambda s: s.delete_device("a"), Conflict),
    ],
)
async def test_what_is_refused_changes_nothing(
    disks: Disks, attempt: Callable[[Store], Awaitable[object]], error: type[Exception]
) -> None:
    disks.write("a")
    await disks.snapshot("one", "a")
    before = await disks.store.snapshots.list(), disks.store.devices()
    with pytest.raises(error):
        await attempt(disks.store)
    assert (await disks.store.snapshots.list(), disks.store.devices()) == before
    await disks.check()
    await disks.store.close()


async def test_who_is_attached_is_not_disturbed(disks: Disks) -> None:
    await disks.snapshot("one", "a")
    users: list[str] = ["a"]
    disks.store.open_devices.clients_of = lambda name: ["a client"] if name in users else []
    with pytest.raises(Conflict, match="attached by a client"):
        await disks.store.snapshots.roll_back("a", "one")
    await disks.snapshot("two", "a")
    users[:] = ["a@one"]
    with pytest.raises(Conflict, match="attached by a client"):
        await disks.store.snapshots.delete("a", "one")
    await disks.store.snapshots.delete("a", "two")
    await disks.store.close()


async def test_what_a_clone_shares_is_counted_once(disks: Disks) -> None:
    store = disks.store
    disks.store.device("a").write(0, disks.draw.randbytes(2 * MIB))
    await store.snapshots.create(["a"], "one")
    await store.maintenance.flush()
    await store.count_usage()
    before = store.status().live_bytes
    assert before > 2 * MIB
    for name in ("first", "second"):
        await store.snapshots.clone("a", "one", name)
    await store.maintenance.flush()
    await store.count_usage()
    assert store.status().live_bytes == before
    census = await engine_of(store).compactor.look()
    assert int(census.ssts.live.sum()) == before
    await store.close()


async def test_exclusive_bytes_are_what_a_deletion_frees(disks: Disks) -> None:
    store = disks.store

    async def live() -> int:
        await store.maintenance.flush()
        await store.count_usage()
        return store.status().live_bytes

    disks.store.device("a").write(0, disks.draw.randbytes(2 * MIB))
    for name in ("one", "two", "three"):
        await store.snapshots.create(["a"], name)
        disks.store.device("a").write(BLOCK_BYTES, disks.draw.randbytes(2 * BLOCK_BYTES))
    for name in ("two", "one", "three"):
        before = await live()
        census = await engine_of(store).compactor.look()
        assert int(census.ssts.live.sum()) == before, "maintenance counts the same"
        exclusive = {one.name: one.exclusive_bytes for one in await store.snapshots.list("a")}
        await store.snapshots.delete("a", name)
        assert before - await live() == exclusive[name], name
        assert exclusive[name] > 2 * BLOCK_BYTES
    await store.close()


async def test_which_one_a_device_holds(disks: Disks) -> None:
    """By content and size, and whatever lies between: what was written as it was is no difference."""
    await disks.create("z")
    held = disks.store.snapshots

    async def found(*candidates: str) -> str | None:
        return await held.which_is_held("z", candidates, "a test")

    assert await found("none") is None
    disks.write("z")
    await disks.snapshot("one", "z")
    assert await found("none", "one") == "one"
    await disks.snapshot("same", "z")
    assert await found("one", "same") == "one"
    disks.store.device("z").write(4096, bytes(disks.held["z"][4096:8192]))
    assert await found("one") == "one", "it holds what it held"
    disks.write("z")
    assert await found("one", "same") is None
    await disks.snapshot("two", "z")
    assert await found("one", "two") == "two"
    await held.roll_back("z", "one", keep=False)
    assert await found("two", "one") == "one"
    await disks.store.resize_device("z", 2 * SIZE)
    assert await found("two", "one") is None, "of another size"
    assert [one.name for one in held.of_device("z")] == ["one", "same", "two"]
    with pytest.raises(NotFound):
        await held.which_is_held("x", ["one"], "a test")


@pytest.mark.parametrize("lasts", [1e10, 1e300, float("inf"), float("nan"), float("-inf"), -1.0, 0.0])
async def test_a_time_to_live_that_no_snapshot_can_have_is_refused_alone(disks: Disks, lasts: float) -> None:
    with pytest.raises(Invalid, match=r"time|lives"):
        await disks.store.snapshots.create(["a"], "one", lasts=lasts)
    disks.write("a")
    await disks.snapshot("one", "a")
    await disks.reopen()
    await disks.check()
    await disks.store.close()
