"""Keys objects: what opens them, what does not, and what becomes of one that is damaged, old or exchanged."""

import hmac

import pytest
from argon2.low_level import ARGON2_VERSION, Type, core, ffi
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from storage.crypto import keyslots
from storage.crypto.data_key import DataKey
from storage.crypto.keys import Cost, create, keys_name, load
from storage.crypto.keyslots import decode, encode
from storage.crypto.password_slots import change_password
from storage.env import RealEnv
from storage.errors import (
    AlreadyExists,
    Invalid,
    NotFound,
    Unsupported,
    WrongPassword,
)
from storage.objects.memory import MemoryStore
from storage.secret import Secret
from tests.storage.crypto.key_samples import CHEAP, FIRST, NEW, OLD, OTHER, names, slot
from tests.storage.crypto.trapped import Trapped, die
from tests.support.inside import stretch


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
