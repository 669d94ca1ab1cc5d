"""The probe refuses stores that look right and are not; that it accepts good ones is part of the conformance suite."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from storage.buffers import Buffer
from storage.env import RealEnv
from storage.errors import AccessDenied, AlreadyExists, OutOfSpace, StorageError, Unavailable, Unsupported
from storage.objects.base import ANSWER_BYTES_MAX, Capabilities, Listing, ObjectInfo, ObjectStore
from storage.objects.memory import MemoryStore
from storage.objects.probe import probe
from storage.objects.retry import RetryingStore
from storage.units import MIB
from tests.storage.objects.stubs import Wrapped


class IgnoresTheCondition(Wrapped):
    async def create(self, name: str, data: Buffer) -> None:
        await self.inner.put(name, data)


class ChecksThenActs(Wrapped):
    """Right in sequence, wrong in a race: OpenStack Swift's S3 front, by measurement."""

    async def create(self, name: str, data: Buffer) -> None:
        if await self.inner.list(name):
            raise AlreadyExists(name)
        await asyncio.sleep(0)
        await self.inner.put(name, data)


class RefusesAll(Wrapped):
    async def create(self, name: str, data: Buffer) -> None:
        raise AlreadyExists(name)


class RightInARaceOnly(Wrapped):
    """Keeps the condition for a moment."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.created: Counter[str] = Counter()

    async def create(self, name: str, data: Buffer) -> None:
        self.created[name] += 1
        if self.created[name] % 17:
            await self.inner.create(name, data)
        else:
            await self.inner.put(name, data)


class KeepsTheLoser(Wrapped):
    """The winner is told of its success, and another's object stays."""

    async def create(self, name: str, data: Buffer) -> None:
        try:
            await self.inner.create(name, data)
        except AlreadyExists:
            await self.inner.put(name, data)
            raise


class ReadsStale(Wrapped):
    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        return bytes(len(await self.inner.get(name, offset, length, limit)))


class ListsLate(Wrapped):
    """Shows an object only after the next one was created."""

    newest = ""

    async def create(self, name: str, data: Buffer) -> None:
        await self.inner.create(name, data)
        self.newest = name

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        return [item for item in await self.inner.list(prefix, start_after, limit) if item.name != self.newest]


class ListsDeleted(Wrapped):
    gone: tuple[str, ...] = ()

    async def delete(self, names: Sequence[str]) -> None:
        await self.inner.delete(names)
        self.gone += tuple(names)

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        return await self.inner.list(prefix, start_after, limit) + [ObjectInfo(name, 1) for name in self.gone]


class ListsOutOfOrder(Wrapped):
    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        return (await self.inner.list(prefix, start_after, limit))[::-1]


class ListsFromTheBeginning(Wrapped):
    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        return await self.inner.list(prefix)


class ReadsDeleted(Wrapped):
    async def delete(self, names: Sequence[str]) -> None:
        pass


class IgnoresTheRange(Wrapped):
    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        return await self.inner.get(name)


class OneByteMore(Wrapped):
    """Takes the end of a range to be the byte after it."""

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        whole = await self.inner.get(name)
        return whole[offset:] if length is None else whole[offset : offset + length + 1]


class RoundsTheRange(Wrapped):
    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        if length is None:
            return await self.inner.get(name, offset)
        return (await self.inner.get(name))[offset // 4096 * 4096 :][:length]


class SaysAnotherSize(Wrapped):
    async def head(self, name: str) -> ObjectInfo:
        return ObjectInfo(name, (await self.inner.head(name)).size + 1)


class AdmitsIt(Wrapped):
    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_create=False)


UNFIT = {
    IgnoresTheCondition: "racing creates .* 16 succeeded",
    ChecksThenActs: "racing creates",
    RefusesAll: "racing creates .* 0 succeeded",
    RightInARaceOnly: "created where one was already",
    KeepsTheLoser: "not the one that was created",
    ReadsStale: "not the one that was created",
    ListsLate: "listing does not show",
    ListsDeleted: "still listed",
    ListsOutOfOrder: "listing does not show",
    ListsFromTheBeginning: "listing does not show",
    ReadsDeleted: "still be read",
    IgnoresTheRange: "gave other bytes",
    OneByteMore: "gave other bytes",
    RoundsTheRange: "gave other bytes",
    SaysAnotherSize: "size",
    AdmitsIt: "no way to create",
}


@pytest.mark.parametrize("kind", UNFIT, ids=lambda kind: kind.__name__)
async def test_an_unfit_store_is_refused_with_the_reason(kind: type[Wrapped], env: RealEnv) -> None:
    inner = MemoryStore()
    with pytest.raises(Unsupported, match=rf"memory:// cannot hold a disk safely: .*{UNFIT[kind]}"):
        await probe(kind(inner), env)
    if kind is not ReadsDeleted:
        assert await inner.list("") == [], "the probe left something"


async def test_a_store_that_is_down_is_not_called_unfit(env: RealEnv) -> None:
    class Down(Wrapped):
        async def create(self, name: str, data: Buffer) -> None:
            raise Unavailable("down")

        async def delete(self, names: Sequence[str]) -> None:
            raise Unavailable("down as well")

    with pytest.raises(Unavailable, match=r"down$"):
        await probe(Down(MemoryStore()), env)


async def test_what_is_in_the_store_is_left_alone(env: RealEnv) -> None:
    store = MemoryStore()
    await store.create("probe/of-someone-else", b"x")
    await store.create("wal/1", b"y")
    await probe(store, env)
    assert [item.name for item in await store.list("")] == ["probe/of-someone-else", "wal/1"]


class Remote(Wrapped):
    """Reached through something that takes no large bodies."""

    def __init__(self, limit: int, error: StorageError) -> None:
        super().__init__(MemoryStore())
        self.limit, self.error = limit, error
        self.sizes: list[int] = []

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_create=True, remote=True)

    async def create(self, name: str, data: Buffer) -> None:
        self.sizes.append(len(data))
        if len(data) > self.limit:
            raise self.error
        await self.inner.create(name, data)


@pytest.mark.parametrize("retried", [False, True])
@pytest.mark.parametrize("error", [Unavailable("413, and why", too_large=True), Unsupported("413, and why")])
async def test_a_limit_on_the_way_is_found_before_anything_needs_more(
    error: StorageError, retried: bool, env: RealEnv
) -> None:
    """What proxies take unless told otherwise (nginx: 1 MiB); nothing that is made before the first flush is larger."""
    inner = Remote(MIB, error)
    store: ObjectStore = RetryingStore(inner, env, 30) if retried else inner
    with pytest.raises(type(error), match="413, and why"):
        await probe(store, env)
    assert [size for size in inner.sizes if size >= MIB] == [MIB + 1], "it is asked again"
    assert await inner.list("") == []


@pytest.mark.parametrize("error", [Unavailable("it took too long"), OutOfSpace("no room for so much")])
async def test_what_says_nothing_of_a_limit_does_not_end_it(error: StorageError, env: RealEnv) -> None:
    """A way may be slow, and a bucket full until a server has made room in it."""
    await probe(RetryingStore(Remote(MIB, error), env, 30), env)


async def test_no_large_object_is_made_where_nothing_is_on_the_way(env: RealEnv) -> None:
    inner = Remote(MIB, Unavailable("x"))
    await probe(inner, env)
    assert sum(inner.sizes) < 2 * MIB
    sizes: list[int] = []

    class Local(Wrapped):
        async def create(self, name: str, data: Buffer) -> None:
            sizes.append(len(data))
            await self.inner.create(name, data)

    await probe(Local(MemoryStore()), env)
    assert max(sizes) < MIB


def test_the_reason_is_for_people() -> None:
    assert issubclass(Unsupported, StorageError)


async def test_a_store_that_does_not_let_us_delete_is_warned_of_and_usable(caplog: pytest.LogCaptureFixture) -> None:
    class KeepsAll(Wrapped):
        async def delete(self, names: Sequence[str]) -> None:
            raise AccessDenied("403: deleting is denied")

    await probe(KeepsAll(MemoryStore()), RealEnv())
    assert [record.msg for record in caplog.records] == ["store_does_not_delete"]
