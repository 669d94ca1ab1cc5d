"""SSTs of which many are known are listed in parts at once, and what is found is the same."""

import random
from collections.abc import Sequence

import pytest
from ulid import ULID

from storage.bucket.listing import LISTINGS_AT_ONCE, NAMES_APART_MIN, list_known_ssts, list_ssts
from storage.format.names import TABLES, sst_id, sst_name
from storage.format.sst_list import ids_of
from storage.objects.base import ObjectInfo
from storage.objects.memory import MemoryStore
from tests.simulation.virtual import virtually
from tests.storage.lsm.worlds import StageStore

COUNT = LISTINGS_AT_ONCE * NAMES_APART_MIN


def ids(draw: random.Random, count: int) -> list[str]:
    return [str(ULID.from_bytes(draw.randbytes(16))) for _ in range(count)]


async def filled(names: Sequence[str]) -> StageStore:
    store = StageStore(MemoryStore())
    for number, name in enumerate(names):
        await store.inner.put(sst_name(name), bytes(number % 7))
    await store.inner.put("wal/00000000000000000001.sst", b"")
    await store.inner.put(f"{TABLES}stranger", b"")
    return store


async def listed(store: StageStore, known: Sequence[str]) -> dict[str, ObjectInfo]:
    found: list[ObjectInfo] = []
    await list_known_ssts(store, ids_of(sorted(known)), found.extend)
    return {ulid: info for info in found if (ulid := sst_id(info.name)) is not None}


@pytest.mark.parametrize("strangers", [0, 1, 3000])
@pytest.mark.parametrize("missing", [0, 1, 3000])
@virtually
async def test_it_is_what_one_listing_gives(strangers: int, missing: int) -> None:
    draw = random.Random(strangers + missing)
    known = ids(draw, COUNT)
    store = await filled([*known[missing:], *ids(draw, strangers)])
    found = await listed(store, known)
    assert found == await list_ssts(store)
    assert len(found) == COUNT - missing + strangers
    assert store.count("list") <= 1 + LISTINGS_AT_ONCE * 3


@virtually
async def test_what_lies_before_and_behind_all_that_is_known_is_found() -> None:
    names = sorted(ids(random.Random(1), COUNT + 20))
    store = await filled(names)
    assert set(await listed(store, names[10:-10])) == set(names)
    assert set(await listed(store, names[: COUNT // 2])) == set(names)


@virtually
async def test_few_are_listed_by_one() -> None:
    names = ids(random.Random(1), 2 * NAMES_APART_MIN - 1)
    store = await filled(names)
    for known in ([], names[:1], names):
        assert set(await listed(store, known)) == set(names)
    assert store.count("list") == 3
