"""What every object store must do. One suite, unchanged, over all of them, bare and behind each wrapper."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.errors import AlreadyExists, Corrupt, Invalid, NotFound
from storage.objects.base import ObjectInfo, ObjectStore
from storage.objects.counting import CountingStore, RequestStats
from storage.objects.local import LocalStore
from storage.objects.locations import open_location
from storage.objects.memory import MemoryStore
from storage.objects.probe import probe
from storage.objects.retry import RetryingStore
from tests.support.minio import BUCKET, RunningMinio

WRAPPERS = ("bare", "retrying", "counting")
KINDS = [
    pytest.param((kind, wrapper), id=f"{kind}-{wrapper}", marks=marks)
    for kind, wrapper, marks in [
        *(("memory", wrapper, () if wrapper == "bare" else pytest.mark.slow) for wrapper in WRAPPERS),
        *(("local", wrapper, ()) for wrapper in WRAPPERS),
        *(("minio", wrapper, pytest.mark.integration) for wrapper in WRAPPERS),
    ]
]
"""Before a commit the wrappers are tried over one store: they do not know which."""


@pytest.fixture(params=KINDS)
async def objects(
    request: pytest.FixtureRequest, tmp_path: Path, env: RealEnv, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectStore]:
    """An empty store."""
    kind, wrapper = request.param
    store: ObjectStore
    if kind == "memory":
        store = MemoryStore()
    elif kind == "local":
        store = LocalStore(tmp_path / "not" / "yet", env)
    else:
        minio: RunningMinio = request.getfixturevalue("minio")
        for name, value in minio.environment().items():
            monkeypatch.setenv(name, value)
        store = open_location(f"s3://{BUCKET}/conformance/{uuid.uuid4().hex}", env)
    if wrapper == "retrying":
        store = RetryingStore(store, env, 30)
    elif wrapper == "counting":
        store = CountingStore(store, RequestStats(), time.monotonic)
    yield store
    await store.close()


async def names(store: ObjectStore, prefix: str = "", start_after: str = "", limit: int | None = None) -> list[str]:
    return [item.name for item in await store.list(prefix, start_after, limit)]


@pytest.mark.parametrize("size", [0, 1, 4096, 300_000])
async def test_what_was_created_is_read_back(objects: ObjectStore, size: int) -> None:
    data = random.randbytes(size)
    await objects.create("wal/1.sst", data)
    assert await objects.get("wal/1.sst") == data
    assert await objects.head("wal/1.sst") == ObjectInfo("wal/1.sst", size)
    assert await objects.list("") == [ObjectInfo("wal/1.sst", size)]


async def test_a_taken_name_is_refused_and_nothing_changes(objects: ObjectStore) -> None:
    await objects.create("manifest/1", b"first")
    with pytest.raises(AlreadyExists):
        await objects.create("manifest/1", b"second")
    assert await objects.get("manifest/1") == b"first"


async def test_of_racing_creates_one_wins(objects: ObjectStore) -> None:
    data = [random.randbytes(2000) for _ in range(16)]
    outcomes = await asyncio.gather(*(objects.create("a/b", one) for one in data), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [AlreadyExists] * 15
    assert await objects.get("a/b") == data[outcomes.index(None)]
    assert await names(objects) == ["a/b"]


async def test_put_replaces(objects: ObjectStore) -> None:
    await objects.put("x", b"one")
    await objects.put("x", b"three")
    assert await objects.get("x") == b"three"
    assert await objects.list("") == [ObjectInfo("x", 5)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_any_buffer_is_taken_and_none_is_kept(objects: ObjectStore, kind: type) -> None:
    source = bytearray(random.randbytes(10_000))
    expected = bytes(source)
    data = kind(source)
    await objects.create("created", data)
    await objects.put("put", data)
    source[:] = bytes(10_000)
    assert await objects.get("created") == await objects.get("put") == expected


async def test_a_part_of_a_buffer_is_taken(objects: ObjectStore) -> None:
    await objects.create("part", memoryview(bytes(range(256)))[16:32])
    assert await objects.get("part") == bytes(range(16, 32))


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 1),
        (0, 1000),
        (1, 1),
        (1, 998),
        (999, 1),
        (500, 0),
        (1000, 0),
        (0, 0),
        (17, None),
        (999, None),
        (1000, None),
    ],
)
async def test_a_range_is_exact(objects: ObjectStore, offset: int, length: int | None) -> None:
    data = random.randbytes(1000)
    await objects.create("r", data)
    end = 1000 if length is None else offset + length
    assert await objects.get("r", offset, length) == data[offset:end]


@pytest.mark.parametrize(("offset", "length"), [(0, 1001), (999, 2), (1000, 1), (1001, 0), (1001, None), (5000, 10)])
async def test_a_range_past_the_end_is_damage(objects: ObjectStore, offset: int, length: int | None) -> None:
    await objects.create("r", random.randbytes(1000))
    with pytest.raises(Corrupt, match="r is damaged"):
        await objects.get("r", offset, length)


async def test_what_is_larger_than_its_kind_may_be_is_not_read(objects: ObjectStore) -> None:
    data = random.randbytes(1000)
    await objects.create("r", data)
    assert await objects.get("r", limit=1000) == data
    assert await objects.get("r", 10, limit=990) == data[10:]
    assert await objects.get("r", 10, 20, limit=20) == data[10:30]
    for offset, length in ((0, None), (0, 1000), (1, None), (1, 999)):
        with pytest.raises(Corrupt, match="r is damaged: it has 1000 bytes"):
            await objects.get("r", offset, length, limit=998)


async def test_an_empty_object_has_no_bytes(objects: ObjectStore) -> None:
    await objects.create("empty", b"")
    assert await objects.get("empty") == b""
    assert await objects.get("empty", 0, 0) == b""
    with pytest.raises(Corrupt):
        await objects.get("empty", 0, 1)


@pytest.mark.parametrize("length", [None, 0, 1])
async def test_what_is_missing_is_said_to_be(objects: ObjectStore, length: int | None) -> None:
    await objects.create("wal/1", b"there")
    for name in ("absent", "wal", "wal/2", "wal/1/x", "other/1"):
        with pytest.raises(NotFound, match=name):
            await objects.get(name, 0, length)
        with pytest.raises(NotFound, match=name):
            await objects.head(name)


async def test_an_empty_store_answers(objects: ObjectStore) -> None:
    assert await objects.list("") == []
    assert await objects.list("wal/") == []
    await objects.delete(["wal/1"])
    with pytest.raises(NotFound):
        await objects.get("wal/1")


async def test_listing_is_in_order_of_the_whole_name(objects: ObjectStore) -> None:
    """`-` and `.` come before `/`: a walk folder by folder gets this wrong."""
    expected = ["a", "b-b", "b.b", "b/1", "b/10", "b/2", "b/c/d", "b0", "bb/1", "c"]
    for name in random.sample(expected, len(expected)):
        await objects.create(name, name.encode())
    assert await objects.list("") == [ObjectInfo(name, len(name)) for name in expected]
    for prefix in ("b", "b/", "b/1", "b/c/", "b/c/d", "bb", "x", "b/x/", "a/"):
        assert await names(objects, prefix) == [name for name in expected if name.startswith(prefix)]
    for start in ("a", "a0", "b", "b/", "b/1", "b/c", "b/z", "c", "zz"):
        assert await names(objects, "", start) == [name for name in expected if name > start]
        assert await names(objects, "b/", start) == [n for n in expected if n > start and n.startswith("b/")]
    for limit in (0, 1, 3, 10, 11):
        assert await names(objects, "", "", limit) == expected[:limit]
    assert await names(objects, "b/", "b/1", 1) == ["b/10"]


async def test_listing_is_no_way_out_of_the_store(objects: ObjectStore) -> None:
    await objects.create("a", b"")
    for prefix in ("../", "/", "/etc/", "a/../", "./", "a//", "~"):
        with pytest.raises(Invalid):
            await objects.list(prefix)


async def test_deleting_is_seen_at_once(objects: ObjectStore) -> None:
    for name in ("wal/1", "wal/2", "wal/3", "other"):
        await objects.create(name, b"x")
    await objects.delete(["wal/1", "wal/3", "wal/9", "never/there", "wal/2/x"])
    assert await names(objects) == ["other", "wal/2"]
    with pytest.raises(NotFound):
        await objects.get("wal/1")
    await objects.create("wal/1", b"again")
    assert await objects.get("wal/1") == b"again"


async def test_any_number_is_deleted_at_once(objects: ObjectStore) -> None:
    doomed = [f"d/{number}" for number in range(2100)]
    there = [doomed[0], doomed[999], doomed[1000], doomed[1999], doomed[2000], doomed[-1]]
    for name in there:
        await objects.create(name, b"x")
    await objects.delete(doomed)
    assert await objects.list("") == []
    await objects.delete([])


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/.",
        "a b",
        "a\0",
        "a\n",
        "~a",
        "a~",
        "\u00e9",
        "a?b",
        "a%41",
    ],
)
async def test_a_bad_name_is_refused(objects: ObjectStore, name: str) -> None:
    for call in (
        objects.create(name, b""),
        objects.put(name, b""),
        objects.get(name),
        objects.head(name),
        objects.delete(["good", name]),
    ):
        with pytest.raises(Invalid):
            await call


async def test_a_bad_range_is_refused(objects: ObjectStore) -> None:
    await objects.create("r", b"abc")
    for offset, length in ((-1, None), (0, -1), (-1, 1)):
        with pytest.raises(Invalid):
            await objects.get("r", offset, length)


async def test_many_at_once(objects: ObjectStore) -> None:
    contents = {f"n/{number:03}": random.randbytes(number * 37) for number in range(100)}
    await asyncio.gather(*(objects.create(name, data) for name, data in contents.items()))
    read = await asyncio.gather(*(objects.get(name) for name in contents))
    assert read == list(contents.values())
    assert await objects.list("n/") == [ObjectInfo(name, len(contents[name])) for name in sorted(contents)]


@pytest.mark.parametrize("seed", range(3))
async def test_any_sequence_of_calls_gives_what_a_dictionary_gives(objects: ObjectStore, seed: int) -> None:
    chance = random.Random(seed)
    model: dict[str, bytes] = {}
    universe = [f"{folder}{number}" for folder in ("", "w/", "w/x-", "m.m/", "m/m/") for number in range(3)]
    for _ in range(80):
        name, data = chance.choice(universe), chance.randbytes(chance.choice([0, 1, 100, 5000]))
        match chance.choice(["create", "create", "put", "get", "list", "delete"]):
            case "create" if name in model:
                with pytest.raises(AlreadyExists):
                    await objects.create(name, data)
            case "create" | "put" as verb:
                await getattr(objects, verb)(name, data)
                model[name] = data
            case "get" if name in model:
                assert await objects.get(name) == model[name]
            case "get":
                with pytest.raises(NotFound):
                    await objects.get(name)
            case "list":
                prefix, start, limit = chance.choice(["", "w/", "m", "w"]), chance.choice(["", *universe]), 7
                expected = sorted(known for known in model if known.startswith(prefix) and known > start)[:limit]
                assert await objects.list(prefix, start, limit) == [ObjectInfo(n, len(model[n])) for n in expected]
            case "delete":
                doomed = chance.sample(universe, 2)
                await objects.delete(doomed)
                for victim in doomed:
                    model.pop(victim, None)


async def test_the_probe_is_passed_and_leaves_nothing(objects: ObjectStore, env: RealEnv) -> None:
    await probe(objects, env)
    assert await objects.list("") == []


async def test_the_address_holds_no_secret(objects: ObjectStore) -> None:
    assert "://" in objects.url
    assert "password" not in objects.url
    assert objects.capabilities.conditional_create


async def test_every_object_has_an_age(objects: ObjectStore) -> None:
    """By the store's own clock: an object made later is not older, and head and listing agree to the second."""
    for name in ("wal/1.sst", "wal/2.sst"):
        await objects.create(name, b"x")
    first, second = await objects.list("")
    assert first.modified is not None
    assert second.modified is not None
    assert first.modified <= second.modified
    head = (await objects.head("wal/1.sst")).modified
    assert head is not None
    assert abs(head - first.modified) < 1
