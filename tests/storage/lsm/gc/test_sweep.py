"""What a new writer deletes of its predecessors, when, and what never."""

import logging
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pytest

from storage.bucket.named_ssts import NamedSsts
from storage.crypto.cipher import PREFIX_BYTES
from storage.crypto.spare_keys import spare_keys_name
from storage.env import object_id
from storage.errors import AccessDenied, StorageError, Unavailable
from storage.format.envelope import Header, ObjectKind
from storage.format.names import (
    TABLES,
    WALS,
    manifest_name,
    manifest_number,
    spare_manifest_name,
    sst_id,
    sst_name,
    wal_name,
    wal_number,
)
from storage.format.sst_list import ids_of
from storage.lsm.gc.garbage import Garbage
from storage.lsm.gc.sweep import Leftovers, Sweeper
from storage.lsm.options import LEFTOVER_SECONDS_MIN
from storage.objects.memory import MemoryStore
from tests.storage.lsm.worlds import KEY, InlineEnv, StageStore, World
from tests.support.idle import idle
from tests.support.inside import forget_when_written
from tests.support.waiting import until

EPOCH, TAKEOVER, FENCE = 3, 9, 40


class Clocks(InlineEnv):
    """A host whose monotonic clock is the test's, and a store that has one of its own, decades apart."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 1_000.0

    def monotonic(self) -> float:
        return self.elapsed

    def of_the_store(self) -> float:
        return 5e9 + self.elapsed


@pytest.fixture
def env() -> Clocks:
    return Clocks()


@pytest.fixture
def store(env: Clocks) -> StageStore:
    return StageStore(MemoryStore(clock=env.of_the_store))


async def put_table(store: StageStore, env: Clocks, epoch: int, *, acknowledged: int = FENCE) -> str:
    table = object_id(env, epoch)
    header = Header(ObjectKind.DATA, epoch, KEY.store_id, bytes(PREFIX_BYTES), acknowledged=acknowledged)
    await store.put(sst_name(table), header.encode())
    return table


class Swept(Sweeper):
    """One whose garbage is deleted at once."""

    async def sweep(self) -> Leftovers:
        found = await super().sweep()
        await self._garbage.finish()
        return found


async def sweeper(
    store: StageStore,
    env: Clocks,
    *,
    named: Iterable[str] = (),
    listed: Callable[[], Mapping[str, int]] = dict,
    replay: int = 0,
    fences: Iterable[int] = (),
    garbage: Garbage | None = None,
) -> Sweeper:
    """That of a writer whose take-over manifest has just landed."""
    await store.put(manifest_name(TAKEOVER), b"")
    return Swept(
        store=store,
        garbage=Garbage(store, env) if garbage is None else garbage,
        env=env,
        store_id=KEY.store_id,
        epoch=EPOCH,
        takeover=TAKEOVER,
        fence=FENCE,
        named=of_sizes(dict.fromkeys(named, 0)),
        listed=lambda: of_sizes(listed()),
        below=lambda: (replay, set(fences)),
        spare=lambda: (TAKEOVER, 3),
        leftover_seconds=LEFTOVER_SECONDS_MIN,
    )


def of_sizes(sizes: Mapping[str, int]) -> NamedSsts:
    return NamedSsts(ids_of(sizes), np.array(list(sizes.values()), np.int64))


def tables(store: StageStore) -> set[str | None]:
    return {sst_id(name) for name in store.names(TABLES)}


async def test_tables_of_earlier_writers_that_nothing_names_go(store: StageStore, env: Clocks) -> None:
    made = {epoch: [await put_table(store, env, epoch) for _ in range(3)] for epoch in (1, 2, 3, 4, 2**32 - 1)}
    env.elapsed += LEFTOVER_SECONDS_MIN
    await (await sweeper(store, env, named={made[1][0], made[2][2]})).sweep()
    assert tables(store) == {made[1][0], made[2][2], *made[3], *made[4], *made[2**32 - 1]}


async def test_nothing_younger_than_a_day_goes_and_later_it_does(store: StageStore, env: Clocks) -> None:
    """The age is told by the store: this host's idea of the time of day has no part in it."""
    old = await put_table(store, env, 1)
    await store.put(wal_name(1), b"old")
    env.elapsed += LEFTOVER_SECONDS_MIN - 1
    young = await put_table(store, env, 2)
    sweeping = await sweeper(store, env, replay=20)
    await sweeping.sweep()
    assert tables(store) == {old, young}
    assert store.names(WALS) == [wal_name(1)]
    env.elapsed += 1
    await sweeping.sweep()
    assert tables(store) == {young}
    assert not store.names(WALS)
    late = await put_table(store, env, 1)
    env.elapsed += LEFTOVER_SECONDS_MIN - 1
    await sweeping.sweep()
    assert tables(store) == {late}, "what lands late has its day, too"
    env.elapsed += 1
    await sweeping.sweep()
    assert tables(store) == set()


async def test_what_the_store_gives_no_age_stays(store: StageStore, env: Clocks) -> None:
    table = await put_table(store, env, 1)
    env.elapsed += 2 * LEFTOVER_SECONDS_MIN
    sweeping = await sweeper(store, env)
    forget_when_written(store.inner, sst_name(table))
    await sweeping.sweep()
    assert tables(store) == {table}


async def test_what_was_made_of_a_longer_log_than_ever_was_here_stays(
    store: StageStore, env: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    """It landed after the store was opened and found whole: somebody is still copying into it."""
    alien = await put_table(store, env, 2, acknowledged=FENCE + 1)
    orphan = await put_table(store, env, 2, acknowledged=FENCE)
    env.elapsed += LEFTOVER_SECONDS_MIN
    with caplog.at_level(logging.INFO):
        await (await sweeper(store, env)).sweep()
    assert tables(store) == {alien}
    said = {record.message: vars(record) for record in caplog.records}
    assert said["foreign_history"]["object"] == sst_name(alien)
    assert said["leftovers_swept"]["names"] == [sst_name(orphan)]
    assert (said["leftovers_swept"]["count"], said["leftovers_swept"]["bytes"]) == (1, 96)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said since this was asked last."""
    messages = [record.message for record in caplog.records]
    caplog.clear()
    return messages


async def test_each_object_of_another_history_is_said_once(
    store: StageStore, env: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    await put_table(store, env, 2, acknowledged=FENCE + 1)
    env.elapsed += LEFTOVER_SECONDS_MIN
    sweeping = await sweeper(store, env)
    for _ in range(3):
        await sweeping.sweep()
    assert told(caplog) == ["foreign_history"]
    more = await put_table(store, env, 2, acknowledged=FENCE + 1)
    env.elapsed += LEFTOVER_SECONDS_MIN
    for _ in range(3):
        assert len((await sweeping.sweep()).foreign) == 2
    assert [vars(record)["object"] for record in caplog.records] == [sst_name(more)]


@pytest.mark.parametrize("error", [Unavailable("Input/output error"), AccessDenied("403")], ids=["EIO", "denied"])
async def test_a_leftover_that_cannot_be_read_keeps_no_others(
    store: StageStore, env: Clocks, error: StorageError
) -> None:
    """Nobody knows what it is, so it stays, and is asked for again by the next sweep."""
    unreadable = await put_table(store, env, 1)
    for _ in range(3):
        await put_table(store, env, 1)
    await store.put(wal_name(1), b"old")
    env.elapsed += LEFTOVER_SECONDS_MIN
    store.deny("get", sst_name(unreadable), error)
    sweeping = await sweeper(store, env, replay=20)
    await sweeping.sweep()
    assert tables(store) == {unreadable}
    assert not store.names(WALS)
    store.denials.clear()
    await sweeping.sweep()
    assert tables(store) == set()


async def test_a_store_that_lists_nothing_stops_no_engine() -> None:
    """The first sweep goes beside everything else, right after the opening."""
    world = World()
    engine = await world.open()
    world.store.deny("list", TABLES, Unavailable("the store is away"))
    world.store.calls.clear()
    await until(lambda: bool(world.store.count("list", TABLES)))
    await idle()
    assert not engine.failed.done()
    await engine.close()


async def test_what_no_writer_of_this_store_made_stays(store: StageStore, env: Clocks) -> None:
    empty, other = object_id(env, 1), object_id(env, 1)
    await store.put(sst_name(empty), b"")
    await store.put(sst_name(other), Header(ObjectKind.DATA, 1, bytes(16), bytes(PREFIX_BYTES)).encode())
    env.elapsed += LEFTOVER_SECONDS_MIN
    await (await sweeper(store, env)).sweep()
    assert tables(store) == {empty, other}


async def test_the_log_below_the_replay_point_goes_but_no_fence(store: StageStore, env: Clocks) -> None:
    for number in range(1, 30):
        await store.put(wal_name(number), b"")
    env.elapsed += LEFTOVER_SECONDS_MIN
    await (await sweeper(store, env, replay=20, fences={3, 17, 25})).sweep()
    assert [wal_number(name) for name in store.names(WALS)] == [3, 17, *range(20, 30)]


FOREIGN = [
    "manifest/00000000000000000010.manifest.1a2b3c.partial",
    "manifest/Thumbs.db",
    "manifest/00000000000000000000.manifest",
    "manifest/99999999999999999999.manifest",
    "manifest/0000000000000000001.manifest",
    "manifest/old/00000000000000000010.manifest",
    "compacted/readme.txt",
    "compacted/.nfs000000000123",
    "compacted/01K1JW549K0H0MV3FH28CKBWTY.sst.part",
    "compacted/01k1jw549k0h0mv3fh28ckbwty.sst",
    "compacted/81K1JW549K0H0MV3FH28CKBWTY.sst",
    "wal/readme",
    "wal/1.sst",
    "wal/00000000000000000001.bak.x",
    "wal/00000000000000000001.sst-",
    "wal/0000000000000000004x.sst",
    "wal/000000000000000000042.sst",
]


async def test_foreign_names_are_left_alone(store: StageStore, env: Clocks) -> None:
    for name in FOREIGN:
        await store.put(name, b"")
    env.elapsed += LEFTOVER_SECONDS_MIN
    await (await sweeper(store, env, replay=10**6)).sweep()
    assert store.names() == sorted([*FOREIGN, manifest_name(TAKEOVER)])


def test_names_sort_as_their_numbers() -> None:
    numbers = [1, 9, 10, 99, 10**9, 2**64 - 1]
    manifests, objects = [manifest_name(number) for number in numbers], [wal_name(number) for number in numbers]
    assert (manifests, objects) == (sorted(manifests), sorted(objects))
    assert [manifest_number(name) for name in manifests] == [wal_number(name) for name in objects] == numbers
    assert wal_name(42) == "wal/00000000000000000042.sst"
    assert manifest_name(7) == "manifest/00000000000000000007.manifest"


@pytest.mark.parametrize("name", [*FOREIGN, "wal/", "probe/x", wal_name(7).upper(), wal_name(7) + "\n"])
def test_a_name_that_nobody_gives_is_none_of_ours(name: str) -> None:
    assert manifest_number(name) is None
    assert wal_number(name) is None
    assert sst_id(name) is None


async def test_what_is_named_and_gone_is_said(store: StageStore, env: Clocks, caplog: pytest.LogCaptureFixture) -> None:
    """But not what is committed, or dropped and deleted, while the listing is on its way."""
    there, cut, gone, dropped, new = [await put_table(store, env, EPOCH) for _ in range(5)]
    size = len(store.objects[sst_name(there)])
    for table in (gone, dropped, new):
        del store.objects[sst_name(table)]

    def listed() -> Mapping[str, int]:
        """Manifests are listed first."""
        beside = dropped if store.count("list") < 2 else new
        return {table: size + (table == cut) for table in (there, cut, gone, beside)}

    sweeping = await sweeper(store, env, listed=listed)
    with caplog.at_level(logging.ERROR, "nbdserver"):
        await sweeping.sweep()
    assert sweeping.lost == sorted(
        [
            f"{sst_name(gone)} is missing, though the manifest names it",
            f"{sst_name(cut)} has {size} bytes, and the manifest names one of {size + 1}",
        ]
    )
    assert [record.message for record in caplog.records] == ["objects_lost"]


async def test_what_is_gone_is_said_once_and_again_when_more_is(
    store: StageStore, env: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    named = {await put_table(store, env, EPOCH): 0 for _ in range(2)}
    named = dict.fromkeys(named, len(store.objects[sst_name(min(named))]))
    sweeping = await sweeper(store, env, listed=lambda: named)
    content = {table: store.objects.pop(sst_name(table)) for table in named}
    await store.put(sst_name(min(named)), content[min(named)])
    for _ in range(3):
        await sweeping.look()
    assert told(caplog) == ["objects_lost"]
    await store.delete([sst_name(min(named))])
    for _ in range(3):
        await sweeping.look()
    assert told(caplog) == ["objects_lost"]
    for table in named:
        await store.put(sst_name(table), content[table])
    await sweeping.look()
    assert (told(caplog), sweeping.lost) == ([], [])
    await store.delete([sst_name(max(named))])
    await sweeping.look()
    assert told(caplog) == ["objects_lost"]


async def test_copies_that_are_not_the_newest_go_at_once_and_newer_ones_stay(store: StageStore, env: Clocks) -> None:
    kept = [spare_manifest_name(TAKEOVER), spare_manifest_name(TAKEOVER + 1), spare_keys_name(3), spare_keys_name(4)]
    dead = [spare_manifest_name(TAKEOVER - 1), spare_manifest_name(1), spare_keys_name(2)]
    for name in (*kept, *dead, "spare/00000000000000000001.manifest.partial", "spare/Thumbs.db"):
        await store.put(name, b"a copy")
    assert sorted(await (await sweeper(store, env)).dead_copies()) == sorted(dead)
