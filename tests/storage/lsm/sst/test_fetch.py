"""How frames get into memory: one GET for all who want them, and an error only for those whom it concerns."""

import asyncio
import random
from typing import Any

import pytest

from storage.cache.frame_cache import FrameCache, weight
from storage.crypto.cipher import Cipher
from storage.errors import Corrupt, Fenced, NotFound, Unavailable
from storage.format.blocks import FrameRef
from storage.format.envelope import Header, ObjectKind
from storage.format.frame import BLOCK_BYTES, FULL_MASK, SECTOR_BYTES, FrameCodec
from storage.format.names import TABLES, sst_name
from storage.format.sst import SstBuilder
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.options import GAP_BYTES_MAX
from storage.lsm.sst.fetch import FrameSource
from storage.lsm.sst.get_slots import OBJECT_GETS_MAX, RETRIES_IN_FLIGHT
from storage.lsm.sst.ranges import GET_BYTES_MAX, coalesce
from storage.objects.base import Capabilities
from tests.storage.lsm.worlds import KEY, InlineEnv, StageStore
from tests.support.idle import idle
from tests.support.waiting import soon, until

CIPHER = Cipher(KEY.purpose("frames"))
CODEC = FrameCodec(CIPHER, KEY.store_id)
TABLE = "01K1JW549K0H0MV3FH28CKBWTY"


class Shelf:
    """A store with one SST of noise, a source over it, and the references to its frames."""

    def __init__(
        self, blocks: int, *, capacity: int = 64 * BLOCK_BYTES, patches: int = 0, store: StageStore | None = None
    ) -> None:
        self.store = store or StageStore()
        self.cache = FrameCache(capacity)
        self.sst_numbers = SstNumbers()
        self.asked: list[str] = []
        self.newer = False
        header = Header(kind=ObjectKind.DATA, epoch=1, store_id=KEY.store_id, nonce=b"nonce of the sst")
        builder = SstBuilder(CODEC, CIPHER, CIPHER, header, TABLE)
        chance = random.Random(1)
        self.data: dict[int, bytes] = {}
        self.refs: list[FrameRef] = []
        slot = self.sst_numbers.number(TABLE)
        for block in range(blocks + patches):
            full = block < blocks
            mask = FULL_MASK if full else 0b1010
            data = chance.randbytes(BLOCK_BYTES if full else 2 * SECTOR_BYTES)
            entry = builder.add_frame(layer=1, block=block, full=full, mask=mask, sequence=block, data=data)
            location = slot << 32 | entry.offset
            self.refs.append(FrameRef(location, entry.length, entry.tag, block, full))
            self.data[location] = data
        self.name = sst_name(TABLE)
        self.store.objects[self.name] = bytes(builder.finish()[1])
        self.source = FrameSource(
            store=self.store,
            codec=CODEC,
            cache=self.cache,
            sst_numbers=self.sst_numbers,
            env=InlineEnv(),
            on_missing=self._on_missing,
            witness=self._witness,
        )
        self.may_witness = asyncio.Event()
        self.may_witness.set()

    async def _witness(self) -> None:
        await self.may_witness.wait()

    async def _on_missing(self, name: str) -> None:
        self.asked.append(name)
        if self.newer:
            raise Fenced("a newer one is there")

    def damage(self, ref: FrameRef, at: int = 50) -> None:
        raw = bytearray(self.store.objects[self.name])
        raw[(ref.location & 0xFFFFFFFF) + at] ^= 1
        self.store.objects[self.name] = bytes(raw)


async def test_frames_come_and_stay() -> None:
    shelf = Shelf(3, patches=1)
    found = await shelf.source.fetch(1, shelf.refs)
    for ref in shelf.refs[:3]:
        assert found[ref.location] == shelf.data[ref.location]
    patch = found[shelf.refs[3].location]
    assert isinstance(patch, dict)
    assert {s: bytes(data) for s, data in patch.items()} == {
        1: shelf.data[shelf.refs[3].location][:SECTOR_BYTES],
        3: shelf.data[shelf.refs[3].location][SECTOR_BYTES:],
    }
    asked = len(shelf.store.calls)
    again = await shelf.source.fetch(1, shelf.refs)
    assert again == found
    assert len(shelf.store.calls) == asked
    assert shelf.cache.bytes == sum(weight(frame) for frame in found.values())
    assert shelf.source.loading == 0


async def test_neighbours_come_in_one_request() -> None:
    shelf = Shelf(8, patches=20)
    await shelf.source.fetch(1, reversed(shelf.refs[:6]))
    assert shelf.store.count("get") == 1
    await shelf.source.fetch(1, shelf.refs[8:])
    assert shelf.store.count("get") == 2


async def test_concurrent_misses_share_a_request() -> None:
    shelf = Shelf(2)
    held = shelf.store.hold("get")
    first = asyncio.ensure_future(shelf.source.fetch(1, shelf.refs[:1]))
    await held.someone_waits()
    second = asyncio.ensure_future(shelf.source.fetch(1, shelf.refs[:1]))
    third = asyncio.ensure_future(shelf.source.fetch(1, shelf.refs[:1]))
    await idle()
    assert shelf.source.loading == 1
    held.release()
    assert await soon(first) == await soon(second) == await soon(third)
    assert shelf.store.count("get") == 1


async def test_a_waiter_that_goes_away_takes_nothing_with_it() -> None:
    shelf = Shelf(2)
    held = shelf.store.hold("get")
    first = asyncio.ensure_future(shelf.source.fetch(1, shelf.refs))
    second = asyncio.ensure_future(shelf.source.fetch(1, shelf.refs))
    await held.someone_waits()
    first.cancel()
    await idle()
    held.release()
    assert len(await soon(second)) == 2
    assert first.cancelled()
    assert shelf.refs[0].location in shelf.cache.entries


async def test_a_damaged_frame_is_an_error_for_itself_only() -> None:
    shelf = Shelf(3)
    shelf.damage(shelf.refs[1])
    outcomes = await asyncio.gather(*(shelf.source.fetch(1, [ref]) for ref in shelf.refs), return_exceptions=True)
    assert shelf.store.count("get") == 2, "once more, for what does not open"
    assert outcomes[0] == {shelf.refs[0].location: shelf.data[shelf.refs[0].location]}
    assert outcomes[2] == {shelf.refs[2].location: shelf.data[shelf.refs[2].location]}
    assert isinstance(outcomes[1], Corrupt)
    assert shelf.name in str(outcomes[1])
    assert f"block 1 at byte {shelf.refs[1].location & 0xFFFFFFFF}" in str(outcomes[1])
    assert shelf.refs[1].location not in shelf.cache.entries
    with pytest.raises(Corrupt):
        await shelf.source.fetch(1, [shelf.refs[1]])
    assert shelf.store.count("get") == 4, "an error is not remembered"


@pytest.mark.parametrize(
    ("pages", "damaged"),
    [([slice(100)], False), ([slice(100), slice(-100, None)], False), ([slice(100), slice(100)], True)],
    ids=["one", "two about two frames", "two about one frame"],
)
async def test_what_only_one_answer_says_is_no_damage(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, pages: list[slice], damaged: bool
) -> None:
    """A page of a gateway, with a status and an ETag as if it were the object."""
    shelf = Shelf(3)
    real, left = shelf.store.get, [*pages]

    async def get(name: str, offset: int = 0, length: int | None = None, *rest: Any) -> bytes:
        raw = bytearray(await real(name, offset, length, *rest))
        if left:
            place = left.pop(0)
            raw[place] = bytes(len(raw[place]))
        return bytes(raw)

    monkeypatch.setattr(shelf.store, "get", get)
    if damaged:
        with pytest.raises(Corrupt):
            await shelf.source.fetch(1, shelf.refs)
    else:
        assert await shelf.source.fetch(1, shelf.refs) == shelf.data
    assert ("wrong_answer" in [record.message for record in caplog.records]) != damaged


async def test_a_frame_that_is_not_the_pinned_one_is_refused() -> None:
    """Whole frames exchanged within their SST, which their own authentication does not see where block and kind fit."""
    shelf = Shelf(0, patches=2)
    a, b = shelf.refs
    raw = bytearray(shelf.store.objects[shelf.name])
    first, second = (slice(ref.location & 0xFFFFFFFF, (ref.location & 0xFFFFFFFF) + ref.length) for ref in (a, b))
    raw[first], raw[second] = raw[second], raw[first]
    shelf.store.objects[shelf.name] = bytes(raw)
    with pytest.raises(Corrupt, match="not the one its index names"):
        await shelf.source.fetch(1, [a])
    wrong = FrameRef(a.location, a.length, b.tag, a.block, full=False)
    with pytest.raises(Corrupt, match="fails authentication"):
        await shelf.source.fetch(1, [wrong])


@pytest.mark.parametrize("newer", [False, True])
async def test_a_missing_object_is_damage_unless_a_newer_writer_explains_it(newer: bool) -> None:
    shelf = Shelf(2)
    shelf.newer = newer
    del shelf.store.objects[shelf.name]
    for _ in range(2):
        with pytest.raises(Fenced if newer else Corrupt):
            await soon(asyncio.ensure_future(shelf.source.fetch(1, shelf.refs)), 2)
    assert shelf.asked
    assert shelf.source.loading == 0


@pytest.mark.parametrize("more", [0, 77])
async def test_an_object_cut_short_is_an_error_for_what_is_cut_off(more: int) -> None:
    shelf = Shelf(3)
    shelf.store.objects[shelf.name] = shelf.store.objects[shelf.name][: (shelf.refs[1].location & 0xFFFFFFFF) + more]
    asked = [asyncio.ensure_future(shelf.source.fetch(1, [ref])) for ref in shelf.refs]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert found[0] == {shelf.refs[0].location: shelf.data[shelf.refs[0].location]}
    assert [type(each) for each in found[1:]] == [Corrupt, Corrupt]


async def test_whatever_goes_wrong_reaches_who_asked() -> None:
    """Also what nobody foresaw: a reader must never wait for ever, nor be taken for cancelled."""
    shelf = Shelf(1)
    for error in (RuntimeError("a bug"), MemoryError()):
        shelf.store.fail_once("get", "", error)
        with pytest.raises(type(error)):
            await soon(asyncio.ensure_future(shelf.source.fetch(1, shelf.refs)), 2)
    assert len(await shelf.source.fetch(1, shelf.refs)) == 1


async def test_a_prefetch_that_fails_is_quiet_and_leaves_nothing_behind() -> None:
    shelf = Shelf(1)
    shelf.store.fail_once("get", "", Unavailable("no answer"))
    shelf.source.prefetch(shelf.refs[0])
    await idle()
    assert shelf.source.loading == 0
    assert len(await shelf.source.fetch(1, shelf.refs)) == 1


async def test_requests_in_flight_are_bounded() -> None:
    shelf = Shelf(200)
    held = shelf.store.hold("get")
    waiting = [asyncio.ensure_future(shelf.source.fetch(1, [ref])) for ref in shelf.refs[::10]]
    await idle()
    assert held.waiting == OBJECT_GETS_MAX
    flush = asyncio.ensure_future(shelf.source.fetch_sound([(1, shelf.refs[-1])], set()))
    await idle()
    assert held.waiting == OBJECT_GETS_MAX + 1, "the memtable flush has a place that nobody can take from it"
    held.release()
    assert list(await flush) == [shelf.refs[-1].location]
    await asyncio.gather(*waiting)


async def test_what_does_not_fit_the_cache_is_read_all_the_same() -> None:
    shelf = Shelf(20, capacity=BLOCK_BYTES)
    found = await shelf.source.fetch(1, shelf.refs)
    assert all(found[ref.location] == shelf.data[ref.location] for ref in shelf.refs)
    assert shelf.cache.bytes <= BLOCK_BYTES


def ref(offset: int, length: int, slot: int = 1) -> FrameRef:
    return FrameRef(slot << 32 | offset, length, 0, 0, full=True)


def test_groups_have_small_gaps_and_a_limit() -> None:
    near = [ref(100, 50), ref(150 + GAP_BYTES_MAX, 50), ref(201 + 2 * GAP_BYTES_MAX, 50)]
    assert coalesce(near) == [near[:2], near[2:]]
    large = [ref(at * BLOCK_BYTES, BLOCK_BYTES) for at in range(20)]
    groups = coalesce(large)
    assert [item for group in groups for item in group] == large
    assert all(len(group) * BLOCK_BYTES <= GET_BYTES_MAX for group in groups)
    assert len(groups) == -(-20 * BLOCK_BYTES // GET_BYTES_MAX)
    assert coalesce([ref(0, 100), ref(100, 100, slot=2)]) == [[ref(0, 100)], [ref(100, 100, slot=2)]]
    assert coalesce([]) == []


def test_a_slot_is_given_once() -> None:
    sst_numbers = SstNumbers()
    a, b = sst_numbers.number("a"), sst_numbers.number("b")
    assert (a, b) == (1, 2)
    assert sst_numbers.number("a") == a
    assert sst_numbers.name(a << 32 | 77) == sst_name("a")


class Bucket(StageStore):
    """A store that is elsewhere, so that what it says is not there is asked for again."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_create=True, remote=True)


async def test_what_is_not_there_is_asked_for_again_without_a_slot() -> None:
    """For 11 s it may come back; others are read meanwhile, and it is not asked for more often than by few at once."""
    shelf = Shelf(1, store=Bucket())
    names = ["lost-one", "lost-two", "lost-three"]
    lost = [
        FrameRef(shelf.sst_numbers.number(name) << 32 | place * 2 * GET_BYTES_MAX, 4096, 0, place, full=True)
        for name in names
        for place in range(OBJECT_GETS_MAX)
    ]
    waiting = [asyncio.ensure_future(shelf.source.fetch(1, [ref])) for ref in lost]
    await until(lambda: shelf.store.count("get") >= len(lost))
    found = await soon(asyncio.ensure_future(shelf.source.fetch(1, shelf.refs)))
    assert found[shelf.refs[0].location] == shelf.data[shelf.refs[0].location]
    assert not any(task.done() for task in waiting)
    held = shelf.store.hold("get", f"{TABLES}lost")
    await held.someone_waits()
    for _ in range(10):
        await idle()
    assert held.waiting <= RETRIES_IN_FLIGHT
    held.release()
    shelf.source.stop(Fenced("the server stops"))
    assert all(isinstance(outcome, Fenced) for outcome in await asyncio.gather(*waiting, return_exceptions=True))
    await idle()
    assert shelf.source.loading == 0


async def test_what_is_refused_after_it_was_said_not_to_be_there_is_asked_for_again() -> None:
    shelf = Shelf(1, store=Bucket())
    shelf.store.fail_once("get", shelf.name, NotFound("not yet"))
    shelf.store.fail_once("get", shelf.name, Unavailable("a reply was lost"))
    found = await soon(asyncio.ensure_future(shelf.source.fetch(1, shelf.refs)))
    assert found[shelf.refs[0].location] == shelf.data[shelf.refs[0].location]
    assert shelf.store.count("get") == 3


async def test_no_slot_is_held_while_the_store_is_asked_whether_it_gives_others() -> None:
    """Which may take ten seconds: meanwhile what is sound is read, and a bad object is not asked for by ever more."""
    shelf = Shelf(1)
    shelf.may_witness.clear()
    names = ["bad-one", "bad-two", "bad-three"]
    bad = [
        FrameRef(shelf.sst_numbers.number(name) << 32 | place * 2 * GET_BYTES_MAX, 4096, 0, place, full=True)
        for name in names
        for place in range(OBJECT_GETS_MAX + 2)
    ]
    shelf.store.deny("get", f"{TABLES}bad", Unavailable("Input/output error"))
    waiting = [asyncio.ensure_future(shelf.source.fetch(1, [ref])) for ref in bad]
    await idle()
    found = await soon(asyncio.ensure_future(shelf.source.fetch(1, shelf.refs)), 2)
    assert found[shelf.refs[0].location] == shelf.data[shelf.refs[0].location]
    for name in names:
        assert shelf.store.count("get", sst_name(name)) == OBJECT_GETS_MAX
    shelf.may_witness.set()
    await until(lambda: all(sst_name(name) in shelf.source.suspects for name in names))
    shelf.source.stop(Fenced("the server stops"))
    assert all(isinstance(outcome, Fenced) for outcome in await asyncio.gather(*waiting, return_exceptions=True))
    await idle()
    assert shelf.source.loading == 0
