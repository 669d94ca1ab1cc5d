import asyncio
import hmac
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import sha256

import pytest
from argon2.low_level import ARGON2_VERSION, Type, core, ffi
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from storage.buffers import Buffer
from storage.crypto import keys, keyslots
from storage.crypto.keys import Cost, DataKey, OldKeysLeft, change_password, create, delete_older, keys_name, load
from storage.crypto.keyslots import Slot, decode, encode, seal_slot
from storage.env import RealEnv
from storage.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    Corrupt,
    Invalid,
    NotFound,
    StorageError,
    Unavailable,
    Unsupported,
    WrongPassword,
)
from storage.objects.base import ANSWER_BYTES_MAX, ObjectInfo
from storage.objects.memory import MemoryStore
from storage.secret import Secret
from tests.support.inside import stretch

CHEAP = Cost.for_tests()
OLD, NEW, OTHER = b"correct horse", b"battery staple", b"a third one"
FIRST = "keys/00000000000000000001.keys"


@pytest.fixture
def env() -> Iterator[RealEnv]:
    env = RealEnv()
    yield env
    env.close()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def names(store: MemoryStore) -> list[str]:
    return [info.name for info in await store.list("")]


async def test_what_is_created_loads(store: MemoryStore, env: RealEnv) -> None:
    made = await create(store, OLD, env, CHEAP)
    assert await names(store) == [FIRST]
    assert await load(store, OLD, env, CHEAP) == (made, 1)
    assert await load(store, bytearray(OLD), env, CHEAP) == (made, 1)
    assert len(made.key) == 32
    assert len(made.store_id) == 16


async def test_the_floor_is_a_real_cost(store: MemoryStore, env: RealEnv) -> None:
    made = await create(store, OLD, env, Cost(memory_kib=keyslots.MEMORY_KIB_MIN, passes=1, lanes=4))
    assert await load(store, OLD, env) == (made, 1)
    with pytest.raises(WrongPassword):
        await load(store, NEW, env)


async def test_two_stores_have_nothing_in_common(env: RealEnv) -> None:
    one = await create(MemoryStore(), OLD, env, CHEAP)
    two = await create(MemoryStore(), OLD, env, CHEAP)
    assert one.store_id != two.store_id
    assert one.key != two.key


async def test_a_wrong_password(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    for wrong in (NEW, OLD + b"\x00", OLD[:-1], OLD.upper()):
        with pytest.raises(WrongPassword):
            await load(store, wrong, env, CHEAP)


async def test_no_store(store: MemoryStore, env: RealEnv) -> None:
    with pytest.raises(NotFound):
        await load(store, OLD, env, CHEAP)
    await store.put("keys/README", b"not one of ours")
    with pytest.raises(NotFound):
        await load(store, OLD, env, CHEAP)
    with pytest.raises(NotFound):
        await change_password(store, OLD, NEW, env, CHEAP)


async def test_a_store_is_created_once(env: RealEnv) -> None:
    """And the second attempt ends before it writes anything."""
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)
    with pytest.raises(AlreadyExists):
        await create(store, NEW, env, CHEAP)
    assert await load(store, OLD, env, CHEAP) == (made, 1)
    await change_password(store, OLD, NEW, env, CHEAP)
    store.trap("create", "before", die)
    with pytest.raises(AlreadyExists):
        await create(store, OTHER, env, CHEAP)
    assert (await load(store, NEW, env, CHEAP))[0] == made


@pytest.mark.parametrize("password", [b"", b"x" * 65537], ids=["empty", "huge"])
async def test_a_senseless_password(store: MemoryStore, env: RealEnv, password: bytes) -> None:
    with pytest.raises(Invalid):
        await create(store, password, env, CHEAP)
    assert await names(store) == []
    await create(store, OLD, env, CHEAP)
    with pytest.raises(Invalid):
        await load(store, password, env, CHEAP)
    with pytest.raises(Invalid):
        await change_password(store, OLD, password, env, CHEAP)


def test_nothing_secret_is_printed() -> None:
    key = DataKey(store_id=bytes(16), key=Secret(b"k" * 32))
    assert "kkk" not in repr(key)


async def test_the_object_holds_no_secret(store: MemoryStore, env: RealEnv) -> None:
    made = await create(store, OLD, env, CHEAP)
    data = await store.get(FIRST)
    assert bytes(made.key) not in data
    assert OLD not in data
    assert made.store_id in data


async def test_a_password_is_left_alone_until_it_is_wiped(store: MemoryStore, env: RealEnv) -> None:
    password = Secret(OLD)
    await create(store, password, env, CHEAP)
    assert bytes(password) == OLD
    password.wipe()
    assert bytes(password) == bytes(len(OLD))


def test_purposes_differ() -> None:
    key = DataKey(store_id=bytes(16), key=Secret(bytes(32)))
    assert key.purpose("frames") != key.purpose("wal")
    assert len(key.purpose("frames")) == 32


def test_argon2id_vector() -> None:
    """RFC 9106, section 5.3, through the same call that slots go through."""
    out = bytearray(32)
    parts = {
        "out": out,
        "pwd": b"\x01" * 32,
        "salt": b"\x02" * 16,
        "secret": b"\x03" * 8,
        "ad": b"\x04" * 12,
    }
    views = {name: ffi.from_buffer("uint8_t[]", part) for name, part in parts.items()}
    sizes = {name + "len": len(part) for name, part in parts.items()}
    cost = {"t_cost": 3, "m_cost": 32, "lanes": 4, "threads": 4, "version": ARGON2_VERSION}
    assert core(ffi.new("argon2_context *", {**views, **sizes, **cost}), Type.ID.value) == 0
    assert out.hex() == "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"


@pytest.mark.parametrize("password", [b"p", b"x" * 5000, bytearray(b"wiped later")])
@pytest.mark.parametrize("cost", [CHEAP, Cost(memory_kib=256, passes=3, lanes=4)], ids=["cheap", "lanes"])
def test_a_password_is_stretched_by_argon2id_and_hkdf(password: bytes | bytearray, cost: Cost) -> None:
    """Against OpenSSL's Argon2id, and HKDF written out from RFC 5869."""
    salt = bytes(range(16))
    reference = Argon2id(salt=salt, length=32, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory_kib)
    extracted = hmac.digest(bytes(32), reference.derive(bytes(password)), "sha256")
    info = b"nbdserver 1 key slot"
    check = hmac.digest(extracted, info + b"\x01", "sha256")
    wrap = hmac.digest(extracted, check + info + b"\x02", "sha256")
    assert stretch(password, salt, cost) == (check, Secret(wrap))


async def test_an_impossible_cost_is_an_error(store: MemoryStore, env: RealEnv) -> None:
    """Argon2id needs 8 KiB a lane, so this is a host that cannot do what is asked."""
    with pytest.raises(Unsupported, match="cannot do Argon2id"):
        await create(store, OLD, env, Cost(memory_kib=64, passes=1, lanes=16, memory_kib_min=64))


@pytest.mark.parametrize(
    "cost",
    [
        Cost(memory_kib=keyslots.MEMORY_KIB_MIN - 1),
        Cost(memory_kib=keyslots.MEMORY_KIB_MAX + 1, passes=1),
        Cost(passes=0),
        Cost(passes=65),
        Cost(lanes=0),
        Cost(lanes=17),
        Cost(memory_kib=1 << 20, passes=17),
    ],
    ids=str,
)
async def test_a_cost_out_of_bounds_is_not_written(store: MemoryStore, env: RealEnv, cost: Cost) -> None:
    with pytest.raises(Invalid):
        await create(store, OLD, env, cost)
    assert await names(store) == []


async def test_a_changed_password(store: MemoryStore, env: RealEnv) -> None:
    made = await create(store, OLD, env, CHEAP)
    before = await store.get(FIRST)
    assert await change_password(store, OLD, NEW, env, CHEAP) == 2
    assert await names(store) == [keys_name(2)]
    assert await load(store, NEW, env, CHEAP) == (made, 2)
    with pytest.raises(WrongPassword):
        await load(store, OLD, env, CHEAP)
    assert await change_password(store, NEW, NEW, env, CHEAP) == 3
    after = await store.get(keys_name(3))
    assert decode(before, 1, 0).slots[0].salt != decode(after, 3, 0).slots[0].salt


async def test_a_change_needs_the_old_password(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    with pytest.raises(WrongPassword):
        await change_password(store, OTHER, NEW, env, CHEAP)
    assert await names(store) == [FIRST]


async def test_one_slot_of_several_is_changed(store: MemoryStore, env: RealEnv) -> None:
    data_key = DataKey(store_id=bytes(range(16)), key=Secret(bytes(range(32))))
    content = tuple(slot(data_key, at, password) for at, password in [(1, OTHER), (7, OLD), (9, b"fourth")])
    await store.create(keys_name(5), encode(data_key, 5, content, CHEAP.memory_kib_min))
    for password in (OTHER, OLD, b"fourth"):
        assert await load(store, password, env, CHEAP) == (data_key, 5)
    assert await change_password(store, OLD, NEW, env, CHEAP) == 6
    for password in (OTHER, NEW, b"fourth"):
        assert await load(store, password, env, CHEAP) == (data_key, 6)
    with pytest.raises(WrongPassword):
        await load(store, OLD, env, CHEAP)
    changed = decode(await store.get(keys_name(6)), 6, 0).slots
    assert [each.number for each in changed] == [1, 7, 9]
    assert [each.salt == was.salt for each, was in zip(changed, content, strict=True)] == [True, False, True]


class Interrupted(Exception):
    """The process dies here."""


class Trapped(MemoryStore):
    """A memory store that does something else at one step, before or after the step takes effect.

    Steps are named by their method; `trap` runs at the n-th call of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.traps: dict[tuple[str, str, int], Callable[[], Awaitable[None]]] = {}
        self._calls: dict[str, int] = {}

    def trap(self, method: str, when: str, do: Callable[[], Awaitable[None]], *, nth: int = 1) -> None:
        self._calls[method] = 0
        self.traps[method, when, nth] = do

    async def _at(self, method: str, when: str) -> None:
        if when == "before":
            self._calls[method] = self._calls.get(method, 0) + 1
        do = self.traps.pop((method, when, self._calls[method]), None)
        if do is not None:
            await do()

    async def create(self, name: str, data: Buffer) -> None:
        await self._at("create", "before")
        await super().create(name, data)
        await self._at("create", "after")

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        await self._at("get", "before")
        return await super().get(name, offset, length, limit)

    async def head(self, name: str) -> ObjectInfo:
        await self._at("head", "before")
        return await super().head(name)

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> list[ObjectInfo]:
        await self._at("list", "before")
        return await super().list(prefix, start_after, limit)

    async def delete(self, names: Sequence[str]) -> None:
        await self._at("delete", "before")
        await super().delete(names)
        await self._at("delete", "after")


async def die() -> None:
    raise Interrupted


CRASH_POINTS = [
    ("list", "before", 1, OLD),
    ("get", "before", 1, OLD),
    ("create", "before", 1, OLD),
    ("create", "after", 1, NEW),
    ("list", "before", 2, NEW),
    ("list", "before", 3, NEW),
    ("delete", "before", 1, NEW),
    ("delete", "after", 1, NEW),
]


@pytest.mark.parametrize(("method", "when", "nth", "valid"), CRASH_POINTS)
async def test_a_crash_in_a_change_leaves_one_valid_password(
    env: RealEnv, method: str, when: str, nth: int, valid: bytes
) -> None:
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)
    store.trap(method, when, die, nth=nth)
    with pytest.raises(Interrupted):
        await change_password(store, OLD, NEW, env, CHEAP)
    assert store.traps == {}
    number = 1 if valid == OLD else 2
    assert await load(store, valid, env, CHEAP) == (made, number)
    with pytest.raises(WrongPassword):
        await load(store, NEW if valid == OLD else OLD, env, CHEAP)
    await delete_older(store, number)
    assert await names(store) == [keys_name(number)]
    assert await change_password(store, valid, OTHER, env, CHEAP) == number + 1
    assert await names(store) == [keys_name(number + 1)]
    assert await load(store, OTHER, env, CHEAP) == (made, number + 1)


async def test_racing_changes_have_one_winner(store: MemoryStore, env: RealEnv) -> None:
    made = await create(store, OLD, env, CHEAP)
    passwords = [b"racer %d" % at for at in range(6)]
    outcomes = await asyncio.gather(
        *(change_password(store, OLD, password, env, CHEAP) for password in passwords),
        return_exceptions=True,
    )
    winners = [password for password, outcome in zip(passwords, outcomes, strict=True) if outcome == 2]
    assert len(winners) == 1
    # Whoever looked after the winner had written finds the old password gone.
    assert {type(outcome) for outcome in outcomes} <= {int, Conflict, WrongPassword}
    assert await names(store) == [keys_name(2)]
    assert await load(store, winners[0], env, CHEAP) == (made, 2)


async def test_the_loser_of_a_race_gets_conflict(env: RealEnv) -> None:
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)

    async def another() -> None:
        assert await change_password(store, OLD, OTHER, env, CHEAP) == 2

    store.trap("create", "before", another)
    with pytest.raises(Conflict):
        await change_password(store, OLD, NEW, env, CHEAP)
    assert await load(store, OTHER, env, CHEAP) == (made, 2)
    assert await names(store) == [keys_name(2)]


async def test_the_loser_of_a_race_against_two_gets_conflict(env: RealEnv) -> None:
    """What the loser collided with is gone when it looks whose it was."""
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)

    async def another() -> None:
        await change_password(store, OLD, OTHER, env, CHEAP)

    async def yet_another() -> None:
        await change_password(store, OTHER, b"fourth", env, CHEAP)

    store.trap("create", "before", another)
    store.trap("head", "before", yet_another)
    with pytest.raises(Conflict):
        await change_password(store, OLD, NEW, env, CHEAP)
    assert store.traps == {}
    assert await load(store, b"fourth", env, CHEAP) == (made, 3)
    assert await names(store) == [keys_name(3)]


async def test_a_late_create_of_a_deleted_number_is_a_conflict(env: RealEnv) -> None:
    """The sleeper's number was taken and deleted again, so its create succeeds and means nothing."""
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)

    async def two_others() -> None:
        await change_password(store, OLD, OTHER, env, CHEAP)
        await change_password(store, OTHER, b"fourth", env, CHEAP)

    store.trap("create", "before", two_others)
    with pytest.raises(Conflict):
        await change_password(store, OLD, NEW, env, CHEAP)
    assert await load(store, b"fourth", env, CHEAP) == (made, 3)
    assert await names(store) == [keys_name(3)]


async def test_a_late_first_run_finds_the_store_of_another(env: RealEnv) -> None:
    store = Trapped()
    made: list[DataKey] = []

    async def another_with_a_change() -> None:
        made.append(await create(store, OLD, env, CHEAP))
        await change_password(store, OLD, NEW, env, CHEAP)

    store.trap("create", "before", another_with_a_change)
    with pytest.raises(AlreadyExists):
        await create(store, OTHER, env, CHEAP)
    assert await load(store, NEW, env, CHEAP) == (made[0], 2)
    assert await names(store) == [keys_name(2)]


async def test_racing_first_runs_have_one_winner(store: MemoryStore, env: RealEnv) -> None:
    passwords = [b"racer %d" % at for at in range(4)]
    outcomes = await asyncio.gather(
        *(create(store, password, env, CHEAP) for password in passwords), return_exceptions=True
    )
    winners = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, DataKey)]
    assert len(winners) == 1
    assert [type(o) for at, o in enumerate(outcomes) if at not in winners] == [AlreadyExists] * 3
    assert await load(store, passwords[winners[0]], env, CHEAP) == (outcomes[winners[0]], 1)


class LostReply(MemoryStore):
    """Every create takes effect, and is then sent again because its answer was lost."""

    async def create(self, name: str, data: Buffer) -> None:
        await super().create(name, data)
        await super().create(name, data)


async def test_a_lost_reply_is_no_conflict(env: RealEnv) -> None:
    store = LostReply()
    made = await create(store, OLD, env, CHEAP)
    assert await change_password(store, OLD, NEW, env, CHEAP) == 2
    assert await load(store, NEW, env, CHEAP) == (made, 2)


async def test_a_load_beside_a_change_reads_the_new_object(env: RealEnv) -> None:
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)

    async def change() -> None:
        await change_password(store, OLD, NEW, env, CHEAP)

    store.trap("get", "before", change)
    assert await load(store, NEW, env, CHEAP) == (made, 2)


async def test_a_listing_that_stays_wrong_is_given_up(env: RealEnv) -> None:
    class Ghost(MemoryStore):
        async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> list[ObjectInfo]:
            return [ObjectInfo(FIRST, 240)]

    with pytest.raises(Unavailable):
        await load(Ghost(), OLD, env, CHEAP)


@pytest.mark.parametrize("error", [AccessDenied, Unavailable, None])
async def test_a_change_whose_clean_up_fails_says_that_it_is_in_force(
    env: RealEnv, error: type[StorageError] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the store goes on asking for ever, as one that is served does."""
    monkeypatch.setattr(keys, "DELETE_SECONDS_MAX", 0.05)
    store = Trapped()
    await create(store, OLD, env, CHEAP)

    async def refuse() -> None:
        if error is None:
            await asyncio.Event().wait()
        else:
            raise error("no deleting here")

    store.trap("delete", "before", refuse)
    async with asyncio.timeout(60):
        with pytest.raises(OldKeysLeft, match="the new password is in force, but") as left:
            await change_password(store, OLD, NEW, env, CHEAP)
    assert (left.value.number, left.value.name) == (2, keys_name(1))
    assert (await load(store, NEW, env, CHEAP))[1] == 2


async def test_every_flipped_bit_is_damage(env: RealEnv) -> None:
    """Two slots, a right and a wrong password: never WrongPassword, never a key."""
    data_key = DataKey(store_id=bytes(range(16)), key=Secret(bytes(range(32))))
    data = encode(data_key, 1, (slot(data_key, 1, OLD), slot(data_key, 2, NEW)), CHEAP.memory_kib_min)
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        store = MemoryStore()
        await store.create(FIRST, changed)
        for password in (OLD, OTHER):
            with pytest.raises((Corrupt, Unsupported)):
                await load(store, password, env, CHEAP)
        with pytest.raises((Corrupt, Unsupported)):
            await change_password(store, OLD, OTHER, env, CHEAP)


async def test_every_truncation_and_an_extra_byte_are_damage(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    data = await store.get(FIRST)
    for size in range(len(data)):
        await store.put(FIRST, data[:size])
        with pytest.raises(Corrupt):
            await load(store, OLD, env, CHEAP)
    await store.put(FIRST, data + b"\x00")
    with pytest.raises(Corrupt):
        await load(store, OLD, env, CHEAP)


async def test_a_huge_object_is_not_read(env: RealEnv) -> None:
    store = MemoryStore()
    await store.put(FIRST, bytes(1 << 20))
    with pytest.raises(Corrupt, match="it has 1048576 bytes, and no more than"):
        await load(store, OLD, env, CHEAP)


async def test_damage_is_not_passed_over_for_an_older_object(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    await store.put(keys_name(2), b"damaged")
    with pytest.raises(Corrupt, match=keys_name(2)):
        await load(store, OLD, env, CHEAP)


async def test_a_newer_format_is_named(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    data = bytearray(await store.get(FIRST))
    data[8] = 2
    await store.put(FIRST, data)
    with pytest.raises(Unsupported, match="format 2"):
        await load(store, OLD, env, CHEAP)


# What follows was made by somebody who also repairs the checksum: where it can be known, it is damage.

HEADER_BYTES, SLOT_BYTES = 36, 140


@pytest.mark.parametrize(
    "at", [pytest.param(at, marks=pytest.mark.slow if at % 5 else ()) for at in range(HEADER_BYTES + SLOT_BYTES + 32)]
)
async def test_every_forged_byte_is_noticed(store: MemoryStore, env: RealEnv, at: int) -> None:
    """With the right password. Salt, check value and cost read as a wrong password: that nobody can know."""
    await create(store, OLD, env, CHEAP)
    data = bytearray(await store.get(FIRST))
    data[at] ^= 1
    await store.put(FIRST, with_checksum(data[:-32]))
    with pytest.raises((Corrupt, Unsupported, WrongPassword)) as raised:
        await load(store, OLD, env, CHEAP)
    in_slot = at - HEADER_BYTES
    unknowable = 3 <= in_slot < 28 or 36 <= in_slot < 68
    assert unknowable or raised.type is not WrongPassword


async def test_an_older_object_cannot_come_back_under_a_higher_number(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    old = await store.get(FIRST)
    await change_password(store, OLD, NEW, env, CHEAP)
    await store.put(keys_name(3), old)
    with pytest.raises(Corrupt, match="object 1"):
        await load(store, OLD, env, CHEAP)
    renumbered = old[:27] + (3).to_bytes(8, "little") + old[35:-32]
    await store.put(keys_name(3), with_checksum(renumbered))
    with pytest.raises(Corrupt, match="altered"):
        await load(store, OLD, env, CHEAP)


async def test_a_slot_cannot_be_added_or_dropped(store: MemoryStore, env: RealEnv) -> None:
    data_key = DataKey(store_id=bytes(range(16)), key=Secret(bytes(range(32))))
    one, two = slot(data_key, 1, OLD), slot(data_key, 2, NEW)
    both = encode(data_key, 1, (one, two), CHEAP.memory_kib_min)
    forged = both[:35] + b"\x01" + both[36 : HEADER_BYTES + SLOT_BYTES] + both[-64:-32]
    await store.put(FIRST, with_checksum(forged))
    with pytest.raises(Corrupt, match="altered"):
        await load(store, OLD, env, CHEAP)
    twice = both[: HEADER_BYTES + SLOT_BYTES] + both[HEADER_BYTES : HEADER_BYTES + SLOT_BYTES] + both[-64:-32]
    await store.put(FIRST, with_checksum(twice))
    with pytest.raises(Corrupt, match="same number"):
        await load(store, OLD, env, CHEAP)


async def test_a_slot_of_another_store_does_not_fit(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    mine = await store.get(FIRST)
    foreign_store = MemoryStore()
    await create(foreign_store, OLD, env, CHEAP)
    foreign = await foreign_store.get(FIRST)
    await store.put(FIRST, with_checksum(mine[:HEADER_BYTES] + foreign[HEADER_BYTES:-32]))
    with pytest.raises(Corrupt, match="does not open"):
        await load(store, OLD, env, CHEAP)


@pytest.mark.parametrize("count", [0, 17, 255])
async def test_the_number_of_slots_is_bounded(store: MemoryStore, env: RealEnv, count: int) -> None:
    await create(store, OLD, env, CHEAP)
    data = await store.get(FIRST)
    forged = data[:35] + bytes([count]) + data[HEADER_BYTES : HEADER_BYTES + SLOT_BYTES] * count
    forged = with_checksum(forged + data[-64:-32])
    with pytest.raises(Corrupt, match="make no sense"):
        decode(forged, 1, CHEAP.memory_kib_min)
    await store.put(FIRST, forged)
    with pytest.raises(Corrupt):
        await load(store, OLD, env, CHEAP)


async def test_as_many_slots_as_allowed_load(store: MemoryStore, env: RealEnv) -> None:
    data_key = DataKey(store_id=bytes(range(16)), key=Secret(bytes(range(32))))
    slots = tuple(slot(data_key, at, b"password %d" % at) for at in range(1, keyslots.SLOTS_MAX + 1))
    await store.create(FIRST, encode(data_key, 1, slots, CHEAP.memory_kib_min))
    assert await load(store, b"password %d" % keyslots.SLOTS_MAX, env, CHEAP) == (data_key, 1)


ABSURD = [
    ("memory below the floor", 19 * 1024 - 1, 4, 4),
    ("memory above 1 GiB", (1 << 20) + 1, 1, 4),
    ("all bits", 0xFFFFFFFF, 0xFFFFFFFF, 255),
    ("no pass", 1 << 18, 0, 4),
    ("65 passes", 19 * 1024, 65, 4),
    ("no lane", 1 << 18, 4, 0),
    ("17 lanes", 1 << 18, 4, 17),
    ("more than 16 GiB of work", 1 << 20, 17, 4),
]


@pytest.mark.parametrize(("memory_kib", "passes", "lanes"), [a[1:] for a in ABSURD], ids=[a[0] for a in ABSURD])
async def test_an_absurd_cost_is_refused_before_any_work(
    store: MemoryStore,
    env: RealEnv,
    monkeypatch: pytest.MonkeyPatch,
    memory_kib: int,
    passes: int,
    lanes: int,
) -> None:
    await create(store, OLD, env, CHEAP)
    data = await store.get(FIRST)
    cost = memory_kib.to_bytes(4, "little") + passes.to_bytes(4, "little") + bytes([lanes])
    await store.put(FIRST, with_checksum(data[: HEADER_BYTES + 3] + cost + data[HEADER_BYTES + 12 : -32]))
    monkeypatch.setattr(keyslots, "core", lambda context, kind: pytest.fail("work was done"))
    with pytest.raises(Unsupported):
        await load(store, OLD, env)


async def test_the_work_of_all_slots_together_is_bounded(
    store: MemoryStore, env: RealEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eighteen GiB in two slots, each within its own bounds."""
    await create(store, OLD, env, CHEAP)
    data = await store.get(FIRST)
    cost = (1 << 20).to_bytes(4, "little") + (9).to_bytes(4, "little") + b"\x04"
    rest = data[HEADER_BYTES + 12 : HEADER_BYTES + SLOT_BYTES]
    slots = b"\x01\x00\x01" + cost + rest + b"\x02\x00\x01" + cost + rest
    await store.put(FIRST, with_checksum(data[:35] + b"\x02" + slots + data[-64:-32]))
    monkeypatch.setattr(keyslots, "core", lambda context, kind: pytest.fail("work was done"))
    with pytest.raises(Unsupported, match="over all slots"):
        await load(store, OLD, env)


async def test_a_cheap_slot_is_refused_outside_of_tests(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    with pytest.raises(Unsupported, match="19456"):
        await load(store, OLD, env)


async def test_an_unknown_password_function_is_named(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    data = await store.get(FIRST)
    await store.put(FIRST, with_checksum(data[: HEADER_BYTES + 2] + b"\x02" + data[HEADER_BYTES + 3 : -32]))
    with pytest.raises(Unsupported, match="password function"):
        await load(store, OLD, env, CHEAP)


async def test_another_kind_of_object_is_refused(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    data = await store.get(FIRST)
    await store.put(FIRST, with_checksum(data[:10] + b"\x02" + data[11:-32]))
    with pytest.raises(Corrupt, match="kind 2"):
        await load(store, OLD, env, CHEAP)


async def test_slots_that_cost_too_much_together_are_not_written() -> None:
    data_key = DataKey(store_id=bytes(16), key=Secret(bytes(32)))
    one = slot(data_key, 1, OLD)
    dear = Slot(2, Cost(memory_kib=1 << 20, passes=16), one.salt, 0, one.check, one.wrapped)
    with pytest.raises(Invalid, match="over all slots"):
        encode(data_key, 1, (one, dear), CHEAP.memory_kib_min)


async def test_golden_object(store: MemoryStore, env: RealEnv) -> None:
    """An object of format 1 written once: it must open for ever."""
    await store.put(FIRST, bytes.fromhex(GOLDEN))
    data_key, number = await load(store, OLD, env, CHEAP)
    assert number == 1
    assert data_key == DataKey(store_id=bytes(range(16)), key=Secret(bytes(range(32))))
    assert encode(data_key, 1, (slot(data_key, 1, OLD),), CHEAP.memory_kib_min).hex() == GOLDEN


def slot(data_key: DataKey, number: int, password: bytes) -> Slot:
    nonce = bytes([number]) * 24
    return seal_slot(data_key, number, password, CHEAP, salt=bytes([number]) * 16, nonce=nonce, created=1_700_000_000)


def with_checksum(body: Buffer) -> bytes:
    return bytes(body) + sha256(body).digest()


GOLDEN = (
    "4e424453544f5245010001000102030405060708090a0b0c0d0e0f010000000000000001010001400000000100000001"
    "0101010101010101010101010101010100f15365000000005dda397e9bb1a0b05d361fcc7d580b9a5f1ed85eb20d0838"
    "018902d57be7e544010101010101010101010101010101010101010101010101d452408949841dad7d79b0ad4f88182d"
    "7a55b8379fb1812c19cf0d8a02b1cc4fbdb565d9d8cd55fff435b82100219dbdcfb752b45463f7add630ad779477d263"
    "f46ebdf55ebf225d1e87f27c13b17845d3137077122de422e36fc47e1abeaa51ce6885cd47858e954ea346664ad7ee32"
)
