"""What a new writer deletes of its predecessors, and what never."""

import pytest

from storage.env import object_id
from storage.errors import Corrupt
from storage.lsm.names import manifest_name, number_of, table_name, ulid_of, wal_name
from storage.lsm.sweep import sweep_log, sweep_tables
from tests.storage.lsm.worlds import InlineEnv, StageStore


async def test_tables_of_earlier_writers_that_nothing_names_go() -> None:
    store, env = StageStore(), InlineEnv()
    tables = {epoch: [object_id(env, epoch) for _ in range(3)] for epoch in (1, 2, 3, 4, 2**32 - 1)}
    for ids in tables.values():
        for table in ids:
            store.objects[table_name(table)] = b""
    await sweep_tables(store, epoch=3, named={tables[1][0], tables[2][2]})
    left = {ulid_of(name) for name in store.names("compacted/")}
    assert left == {tables[1][0], tables[2][2], *tables[3], *tables[4], *tables[2**32 - 1]}


async def test_names_of_others_are_left_alone() -> None:
    store = StageStore()
    strangers = [
        "compacted/readme.txt",
        "compacted/.hidden",
        "wal/readme",
        "wal/1.sst",
        "wal/00000000000000000001.bak.x",
    ]
    for name in strangers:
        store.objects[name] = b""
    await sweep_tables(store, epoch=9, named=set())
    await sweep_log(store, replay=0, fences=set())
    assert store.names() == sorted(strangers)


async def test_the_log_below_the_replay_point_goes_but_no_fence() -> None:
    store = StageStore()
    for number in range(1, 30):
        store.objects[wal_name(number)] = b""
    await sweep_log(store, replay=20, fences={3, 17, 25})
    assert [number_of(name) for name in store.names("wal/")] == [3, 17, *range(20, 30)]


def test_names_sort_as_their_numbers() -> None:
    numbers = [1, 9, 10, 99, 10**9, 2**64 - 1]
    for name in (manifest_name, wal_name):
        names = [name(number) for number in numbers]
        assert names == sorted(names)
        assert [number_of(text) for text in names] == numbers
    assert wal_name(42) == "wal/00000000000000000042.sst"
    assert manifest_name(7) == "manifest/00000000000000000007.manifest"


@pytest.mark.parametrize(
    "name", ["wal/", "wal/42.sst", "wal/0000000000000000004x.sst", "wal/000000000000000000042.sst"]
)
def test_a_name_nobody_gives_is_damage(name: str) -> None:
    with pytest.raises(Corrupt):
        number_of(name)
