"""Snapshots that are deleted together: by one commit, each wholly or not, and one that is refused stops no other."""

import asyncio
import itertools
import random
from collections.abc import Sequence

from storage.errors import Conflict, NotFound, Unreadable
from storage.format.frame import BLOCK_BYTES
from storage.fs.snapshots.snapshots import DELETED_TOGETHER
from storage.fs.store import Store
from tests.storage.fs.places import MIB, Place, contents, kill
from tests.storage.fs.snapshots import test_clearing, test_scheduling
from tests.storage.fs.snapshots.test_clearing import Clock
from tests.storage.fs.snapshots.test_clones import damage
from tests.support.inside import engine_of

HOUR = 3600.0
MANY = [f"disk{number}" for number in range(20)]


def commits(store: Store) -> int:
    return engine_of(store).manifests.number


def numbers(store: Store, *names: str) -> list[int]:
    """Of snapshots, by name."""
    split = [name.partition("@")[::2] for name in names]
    return [one.number for device, name in split for one in store.snapshots.of_device(device) if one.name == name]


def there(store: Store) -> set[str]:
    return {f"{name}@{one}" for name in store.names() for one in store.device(name).history.snapshots()}


async def make(store: Store, names: Sequence[str] = MANY) -> None:
    for name in names:
        await store.create_device(name, MIB)


def test_what_expires_at_one_time_is_one_commit() -> None:
    async def work(store: Store, env: Clock) -> None:
        await make(store)
        await store.snapshots.create(MANY, "hour", lasts=HOUR)
        users = ["disk3@hour"]
        store.open_devices.clients_of = lambda name: ["a client"] if name in users else []
        await asyncio.sleep(600)
        before = commits(store)
        with store.snapshots.reading("disk5", "hour", "a test"):
            await asyncio.sleep(2 * HOUR)
            assert there(store) == {"disk3@hour", "disk5@hour"}
            assert commits(store) == before + 1
        users.clear()
        await asyncio.sleep(HOUR)
        assert not there(store)

    test_clearing.live(work)


def test_what_a_schedule_does_not_keep_is_one_commit() -> None:
    async def work(store: Store, env: Clock) -> None:
        await make(store)
        await asyncio.sleep(4 * HOUR)
        before, kept = commits(store), there(store)
        await asyncio.sleep(HOUR)
        assert len(kept - there(store)) == len(there(store) - kept) == len(store.names())
        assert commits(store) == before + 2, "one in which they are taken, and one in which they go"

    test_scheduling.live({"hourly": 2}, work)


def test_a_record_has_so_many_at_most() -> None:
    async def work(store: Store, env: Clock) -> None:
        await make(store)
        for turn in range(DELETED_TOGETHER // len(MANY) + 1):
            await store.snapshots.create(MANY, f"s{turn}")
        names = sorted(there(store))
        gone, left = numbers(store, *names), list[int]()
        assert DELETED_TOGETHER < len(gone) < 2 * DELETED_TOGETHER
        store.snapshots.on_change = lambda: left.append(len(there(store)))
        device, _, one = names[0].partition("@")
        with store.snapshots.reading(device, one, "a test"):
            refused = await store.snapshots.delete_several(gone)
        assert refused.keys() == {gone[0]}, "that is told of the first record too"
        assert left == [len(gone) - DELETED_TOGETHER + 1, 1]

    test_clearing.live(work)


async def test_the_others_show_what_they_showed(place: Place) -> None:
    """Whichever go together, neighbours of one device too, and also where a crash comes before the flush."""
    chance, store = random.Random(7), await place.open(create=True)
    await make(store, "ab")
    held: dict[str, bytes] = {}
    for turn in itertools.count():
        for device in "ab":
            for _ in range(4):
                store.device(device).write(
                    chance.randrange(MIB >> 9) << 9, chance.randbytes(chance.choice([512, 9000]))
                )
        await store.snapshots.create(["a", "b"], f"s{turn}")
        held |= {f"{device}@s{turn}": await contents(store.device(f"{device}@s{turn}")) for device in "ab"}
        if turn % 5 < 4:
            continue
        going = chance.sample(sorted(held), 5)
        newest = {device: await contents(store.device(device)) for device in "ab"}
        assert not await store.snapshots.delete_several(numbers(store, *going))
        if turn > 5:
            await kill(store)
            store = await place.open()
        held = {name: content for name, content in held.items() if name not in going}
        assert there(store) == held.keys()
        for name, content in (held | newest).items():
            assert await contents(store.device(name)) == content, name
        if turn > 15:
            break
    await store.close()


async def test_what_is_refused_stays_and_says_why(place: Place) -> None:
    store = await place.open(create=True)
    await make(store, "abc")
    await store.snapshots.create(["a", "b", "c"], "one")
    a, b, c = numbers(store, "a@one", "b@one", "c@one")
    users = ["a@one"]
    store.open_devices.clients_of = lambda name: ["a client"] if name in users else []
    with store.snapshots.reading("b", "one", "a test"):
        refused = await store.snapshots.delete_several([a, b, c, 999])
        again = await store.snapshots.delete_several([a, b])
    assert {number: type(error) for number, error in refused.items()} == {a: Conflict, b: Conflict, 999: NotFound}
    assert "attached by a client" in str(refused[a])
    assert "in use by a test" in str(refused[b])
    assert again.keys() == {a, b}
    assert there(store) == {"a@one", "b@one"}
    users.clear()
    assert not await store.snapshots.delete_several([a, b, a]), "one that is named twice goes once"
    assert not there(store)
    await store.close()


async def test_one_over_what_cannot_be_read_stops_no_other(place: Place) -> None:
    store = await place.open(create=True)
    await make(store, "abcde")
    store.device("c").write(0, bytes(range(256)) * (BLOCK_BYTES // 256))
    await store.maintenance.flush()
    damage(place.folder)
    await store.close()
    store = await place.open()
    store.device("c").write(100, b"piece")
    await store.snapshots.create(["a", "b", "c", "d", "e"], "one")
    refused = await store.snapshots.delete_several(numbers(store, *sorted(there(store))))
    assert {number: type(error) for number, error in refused.items()} == {numbers(store, "c@one")[0]: Unreadable}
    assert there(store) == {"c@one"}
    await kill(store)
    store = await place.open()
    assert there(store) == {"c@one"}
    await store.close()
