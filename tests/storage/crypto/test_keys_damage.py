"""Keys objects that are damaged, forged, or beyond all bounds."""

import pytest

from storage.crypto import keyslots
from storage.crypto.data_key import DataKey
from storage.crypto.keys import Cost, create, keys_name, load
from storage.crypto.keyslots import Slot, decode, encode
from storage.crypto.password_slots import change_password
from storage.crypto.spare_keys import spare_keys_name
from storage.env import RealEnv
from storage.errors import (
    AccessDenied,
    BrokenInvariant,
    Corrupt,
    Invalid,
    StorageError,
    Unavailable,
    Unsupported,
    WrongPassword,
)
from storage.objects.memory import MemoryStore
from storage.secret import Secret
from tests.storage.crypto.key_samples import (
    CHEAP,
    FIRST,
    HEADER_BYTES,
    NEW,
    OLD,
    OTHER,
    SLOT_BYTES,
    alone,
    slot,
    with_checksum,
)


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
    await alone(store)
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


@pytest.mark.parametrize("refusal", [Unavailable("keys/: a sector is bad"), AccessDenied("keys/: it is archived")])
async def test_what_cannot_be_read_is_not_passed_over_for_an_older_object(
    store: MemoryStore, env: RealEnv, monkeypatch: pytest.MonkeyPatch, refusal: StorageError
) -> None:
    made = await create(store, OLD, env, CHEAP)
    older = await store.get(FIRST)
    await change_password(store, OLD, NEW, env, CHEAP)
    await store.put(FIRST, older)
    given = store.get

    async def get(name: str, *arguments: int, **options: int) -> bytes:
        if name == keys_name(2):
            raise refusal
        return await given(name, *arguments, **options)

    monkeypatch.setattr(store, "get", get)
    assert await load(store, NEW, env, CHEAP) == (made, 2), "its copy can be read"
    with pytest.raises(WrongPassword):
        await load(store, OLD, env, CHEAP)
    await store.delete([spare_keys_name(2)])
    for password in (OLD, NEW):
        with pytest.raises(type(refusal), match="keys/"):
            await load(store, password, env, CHEAP)


async def test_a_newer_format_is_named(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    await alone(store)
    data = bytearray(await store.get(FIRST))
    data[8] = 2
    await store.put(FIRST, data)
    with pytest.raises(Unsupported, match="format 2"):
        await load(store, OLD, env, CHEAP)


@pytest.mark.parametrize(
    "at", [pytest.param(at, marks=pytest.mark.slow if at % 5 else ()) for at in range(HEADER_BYTES + SLOT_BYTES + 32)]
)
async def test_every_forged_byte_is_noticed(store: MemoryStore, env: RealEnv, at: int) -> None:
    """With the right password. Salt, check value and cost read as a wrong password: that nobody can know."""
    await create(store, OLD, env, CHEAP)
    await alone(store)
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


@pytest.mark.parametrize("count", [0, keyslots.SLOTS_MAX + 1])
def test_keys_that_nobody_could_open_again_are_not_written(count: int) -> None:
    """Without a slot no password opens the store; with too many none is read."""
    data_key = DataKey(store_id=bytes(range(16)), key=Secret(bytes(range(32))))
    slots = tuple(slot(data_key, number, OLD) for number in range(1, count + 1))
    with pytest.raises(BrokenInvariant):
        encode(data_key, 2, slots, CHEAP.memory_kib_min)


async def test_a_slot_of_another_store_does_not_fit(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    await alone(store)
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
    await alone(store)
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
    await alone(store)
    data = await store.get(FIRST)
    await store.put(FIRST, with_checksum(data[: HEADER_BYTES + 2] + b"\x02" + data[HEADER_BYTES + 3 : -32]))
    with pytest.raises(Unsupported, match="password function"):
        await load(store, OLD, env, CHEAP)


async def test_another_kind_of_object_is_refused(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    await alone(store)
    data = await store.get(FIRST)
    await store.put(FIRST, with_checksum(data[:10] + b"\x02" + data[11:-32]))
    with pytest.raises(Corrupt, match="kind 2"):
        await load(store, OLD, env, CHEAP)


async def test_slots_that_cost_too_much_together_are_not_written() -> None:
    data_key = DataKey(store_id=bytes(16), key=Secret(bytes(32)))
    one = slot(data_key, 1, OLD)
    dear = Slot(2, Cost(memory_kib=1 << 20, passes=16), one.salt, 0, one.check, one.wrapped, one.sealed_label)
    with pytest.raises(Invalid, match="over all slots"):
        encode(data_key, 1, (one, dear), CHEAP.memory_kib_min)


async def test_golden_object(store: MemoryStore, env: RealEnv) -> None:
    """An object of format 1 written once: it must open for ever."""
    await store.put(FIRST, bytes.fromhex(GOLDEN))
    data_key, number = await load(store, OLD, env, CHEAP)
    assert number == 1
    assert data_key == DataKey(store_id=bytes(range(16)), key=Secret(bytes(range(32))))
    assert encode(data_key, 1, (slot(data_key, 1, OLD),), CHEAP.memory_kib_min).hex() == GOLDEN


GOLDEN = (
    "4e424453544f5245010001000102030405060708090a0b0c0d0e0f010000000000000001010001400000000100000001"
    "0101010101010101010101010101010100f15365000000005dda397e9bb1a0b05d361fcc7d580b9a5f1ed85eb20d0838"
    "018902d57be7e544010101010101010101010101010101010101010101010101d452408949841dad7d79b0ad4f88182d"
    "7a55b8379fb1812c19cf0d8a02b1cc4fbdb565d9d8cd55fff435b82100219dbd01010101010101010101010101010101"
    "0101010101010101e04e0ac83b106e6117ad3bf6d0589894b0944ad557e98d801318590063c87b71cc62ac66eff1f224"
    "82894d063147fc396d06abfb110f785eb526468544859216c220b722e791cd35cbf766484b26ed26079f39fd8ea9848a"
    "1ef33da6f9f4facfe13cce11edcdb44e394e43c952464e77"
)
