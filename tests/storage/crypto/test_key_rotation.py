"""Rotation of the data key: what opens what, which passwords stay, and what a crash, or somebody else, leaves."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from storage.crypto import key_rotation, keys, password_slots
from storage.crypto.cipher import AuthenticationError, UnknownKey
from storage.crypto.data_key import KEY_ID_MAX, DataKey, OlderKey, pack_ring, seal_older, unpack_ring, with_ring
from storage.crypto.key_rotation import retire, rotate, show_key
from storage.crypto.keys import keys_name
from storage.crypto.keyslots import encode
from storage.crypto.mend_keys import mend_keys
from storage.crypto.spare_keys import spare_keys_name
from storage.env import RealEnv
from storage.errors import AlreadyExists, Conflict, Corrupt, Unfinished, WrongPassword
from storage.objects.memory import MemoryStore
from storage.secret import Secret
from tests.storage.crypto.key_samples import CHEAP, FIRST, NEW, OLD, OTHER, alone, names
from tests.storage.crypto.trapped import Interrupted, Trapped, die


def sealed(key: DataKey, text: bytes, purpose: str = "frames") -> bytes:
    return key.cipher(purpose).sealer(bytes(16)).seal(0, text, b"")


async def test_the_newest_key_opens_the_older_one_and_never_the_other_way_round(
    store: MemoryStore, env: RealEnv
) -> None:
    first = await keys.create(store, OLD, env, CHEAP)
    old_object = await store.get(FIRST)
    rotated = await rotate(store, OLD, [], env, CHEAP)
    assert (rotated.number, rotated.key_id, rotated.dropped) == (2, 2, ())
    newest, number = await keys.load(store, OLD, env, CHEAP)
    assert (number, newest.key_id, [each.key_id for each in newest.older]) == (2, 2, [1])
    assert newest.key != first.key
    assert newest.older[0].key == first.key
    assert newest.cipher("frames").under(1).open(sealed(first, b"before"), b"") == b"before"
    with pytest.raises(UnknownKey) as caught:
        first.cipher("frames").under(2)
    assert caught.value.newer
    with pytest.raises(AuthenticationError):
        first.cipher("frames").open(sealed(newest, b"after"), b"")
    # Neither does the old object's password open anything of the new one, nor the older key its ring.
    content = await keys.newest_object(store, CHEAP)
    with pytest.raises(AuthenticationError):
        with_ring(first, content.ring)
    assert await names(store) == [keys_name(2)]
    assert bytes(first.key) not in await store.get(keys_name(2))
    assert old_object != await store.get(keys_name(2))


async def test_what_is_sealed_is_sealed_under_the_newest(store: MemoryStore, env: RealEnv) -> None:
    await keys.create(store, OLD, env, CHEAP)
    await rotate(store, OLD, [], env, CHEAP)
    newest, _ = await keys.load(store, OLD, env, CHEAP)
    cipher = newest.cipher("wal")
    assert cipher.key_id == 2
    with pytest.raises(AuthenticationError):
        cipher.under(1).open(sealed(newest, b"text", "wal"), b"")


async def test_all_passwords_have_to_be_given_or_go(store: MemoryStore, env: RealEnv) -> None:
    await keys.create(store, OLD, env, CHEAP)
    await password_slots.add_password(store, OLD, NEW, "second", env, CHEAP)
    await password_slots.add_password(store, OLD, OTHER, "third", env, CHEAP)
    before = await names(store)
    with pytest.raises(Conflict, match=r"'third' none was given: .*--also FILE.*--drop-others"):
        await rotate(store, OLD, [NEW], env, CHEAP)
    with pytest.raises(WrongPassword, match="number 2 opens nothing"):
        await rotate(store, OLD, [NEW, b"of another store"], env, CHEAP)
    assert await names(store) == before
    rotated = await rotate(store, NEW, [OLD], env, CHEAP, drop_others=True)
    assert rotated.dropped == ("third",)
    assert (await show_key(store, OLD, env, CHEAP)).labels == ("main", "second")
    assert (await keys.load(store, NEW, env, CHEAP))[0] == (await keys.load(store, OLD, env, CHEAP))[0]
    with pytest.raises(WrongPassword):
        await keys.load(store, OTHER, env, CHEAP)


async def test_each_password_stays_with_its_slot_through_several_rotations(store: MemoryStore, env: RealEnv) -> None:
    await keys.create(store, OLD, env, CHEAP)
    await password_slots.add_password(store, OLD, NEW, "second", env, CHEAP)
    await password_slots.add_password(store, OLD, OTHER, "third", env, CHEAP)
    for key_id in (2, 3):
        assert (await rotate(store, OLD, [OTHER, NEW], env, CHEAP)).key_id == key_id
        shown = await show_key(store, NEW, env, CHEAP)
        assert (shown.key_id, shown.older, shown.labels) == (key_id, (key_id - 1,), ("main", "second", "third"))
        found = [(await keys.load(store, password, env, CHEAP))[0] for password in (OLD, NEW, OTHER)]
        assert found[0] == found[1] == found[2]
        await retire(store, found[0], CHEAP)
    for label, password in (("second", NEW), ("third", OTHER)):
        await password_slots.remove_password(store, OLD, label, env, CHEAP)
        with pytest.raises(WrongPassword):
            await keys.load(store, password, env, CHEAP)


async def test_the_last_data_key_is_the_last(store: MemoryStore, env: RealEnv) -> None:
    """Its id is one byte wherever something is sealed."""
    first = await keys.create(store, OLD, env, CHEAP)
    last = DataKey(first.store_id, first.key, KEY_ID_MAX)
    slots = (await keys.new_slot(last, 0, "main", OLD, env, CHEAP),)
    await store.create(keys_name(2), encode(last, 2, slots, CHEAP.memory_kib_min))
    before = await names(store)
    with pytest.raises(Conflict, match=f"rotated {KEY_ID_MAX - 1} times, and cannot be again"):
        await rotate(store, OLD, [], env, CHEAP)
    assert await names(store) == before


async def test_one_rotation_at_a_time(store: MemoryStore, env: RealEnv) -> None:
    await keys.create(store, OLD, env, CHEAP)
    await rotate(store, OLD, [], env, CHEAP)
    with pytest.raises(Conflict, match="being rotated already"):
        await rotate(store, OLD, [], env, CHEAP)
    newest, _ = await keys.load(store, OLD, env, CHEAP)
    assert await retire(store, newest, CHEAP) == 3
    assert (await rotate(store, OLD, [], env, CHEAP)).key_id == 3


async def test_passwords_may_change_while_it_is_under_way(store: MemoryStore, env: RealEnv) -> None:
    await keys.create(store, OLD, env, CHEAP)
    await rotate(store, OLD, [], env, CHEAP)
    before, _ = await keys.load(store, OLD, env, CHEAP)
    await password_slots.change_password(store, OLD, NEW, env, CHEAP)
    await password_slots.add_password(store, NEW, OTHER, "second", env, CHEAP)
    for password in (NEW, OTHER):
        assert (await keys.load(store, password, env, CHEAP))[0] == before
    assert await retire(store, before, CHEAP) == 5
    after, _ = await keys.load(store, OTHER, env, CHEAP)
    assert (after.key, after.key_id, after.older) == (before.key, 2, ())
    with pytest.raises(UnknownKey) as caught:
        after.cipher("frames").under(1)
    assert not caught.value.newer
    with pytest.raises(AlreadyExists):
        await password_slots.add_password(store, NEW, OTHER, "third", env, CHEAP)


async def test_the_older_key_leaves_the_object_of_its_own_store_and_key_only(store: MemoryStore, env: RealEnv) -> None:
    first = await keys.create(store, OLD, env, CHEAP)
    assert await retire(store, first, CHEAP) == 1, "there is none to take out"
    await rotate(store, OLD, [], env, CHEAP)
    assert await retire(store, first, CHEAP) is None, "a writer that has the older key only"
    stranger = DataKey(first.store_id, Secret(bytes(32)), 2)
    assert await retire(store, stranger, CHEAP) is None
    assert await names(store) == [keys_name(2)]


@pytest.mark.parametrize("step", ["rotate", "retire"])
async def test_of_two_changes_at_once_one_is_a_conflict_and_is_done_again(env: RealEnv, step: str) -> None:
    store = Trapped()
    await keys.create(store, OLD, env, CHEAP)
    if step == "retire":
        await rotate(store, OLD, [], env, CHEAP)
    newest, _ = await keys.load(store, OLD, env, CHEAP)

    async def be_faster() -> None:
        await password_slots.add_password(store, OLD, NEW, "faster", env, CHEAP)

    store.trap("create", "before", be_faster)
    with pytest.raises(Conflict, match="no effect"):
        await (rotate(store, OLD, [], env, CHEAP) if step == "rotate" else retire(store, newest, CHEAP))
    assert (await keys.load(store, NEW, env, CHEAP))[0] == newest, "as it was, and the other change counts"
    if step == "rotate":
        assert (await rotate(store, OLD, [NEW], env, CHEAP)).key_id == 2
    else:
        assert await retire(store, newest, CHEAP) == 4


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("request_", ["create", "delete"])
@pytest.mark.parametrize("step", ["rotate", "retire"])
async def test_a_crash_leaves_the_keys_before_or_those_after(env: RealEnv, step: str, request_: str, when: str) -> None:
    """At the create and at the deletion of what is older, before and behind each."""
    store = Trapped()
    first = await keys.create(store, OLD, env, CHEAP)
    if step == "retire":
        await rotate(store, OLD, [], env, CHEAP)
    newest, number = await keys.load(store, OLD, env, CHEAP)
    store.trap(request_, when, die)
    with pytest.raises(Interrupted):
        await (rotate(store, OLD, [], env, CHEAP) if step == "rotate" else retire(store, newest, CHEAP))
    created = (request_, when) != ("create", "before")
    found, now = await keys.load(store, OLD, env, CHEAP)
    assert now == number + created
    ids = (found.key_id, [each.key_id for each in found.older])
    if step == "rotate":
        assert ids == ((2, [1]) if created else (1, []))
        assert (found.older[0].key if created else found.key) == first.key
    else:
        assert ids == (2, [] if created else [1])
        assert await retire(store, found, CHEAP) == 3
    await keys.delete_older(store, now)
    assert len(await names(store)) == 1


@pytest.mark.parametrize("part", ["count", "id", "older id", "sealed", "of another key"])
async def test_a_changed_ring_is_damage(store: MemoryStore, env: RealEnv, part: str) -> None:
    """Also of who repairs the checksum: all of it is under the seal."""
    await keys.create(store, OLD, env, CHEAP)
    await rotate(store, OLD, [], env, CHEAP)
    newest, _ = await keys.load(store, OLD, env, CHEAP)
    content = await keys.newest_object(store, CHEAP)
    older = content.ring[0]
    raw = pack_ring(2, content.ring)
    if part == "of another key":
        other = DataKey(newest.store_id, Secret(bytes(range(32))), 2)
        with pytest.raises(AuthenticationError, match="older data key 1"):
            with_ring(newest, [seal_older(other, newest.older[0], bytes(24))])
        return
    if part == "sealed":
        with pytest.raises(AuthenticationError, match="older data key 1"):
            with_ring(newest, [OlderKey(1, older.wrapped[:-1] + bytes([older.wrapped[-1] ^ 1]))])
        return
    changed = {"count": raw[:1] + b"\2" + raw[2:], "id": b"\1" + raw[1:], "older id": raw[:2] + b"\3" + raw[3:]}[part]
    with pytest.raises(Corrupt, match="no sense"):
        unpack_ring("keys/1", changed)


async def test_a_key_that_was_never_rotated_says_nothing_of_it(store: MemoryStore, env: RealEnv) -> None:
    await keys.create(store, OLD, env, CHEAP)
    content = await keys.newest_object(store, CHEAP)
    assert (content.key_id, content.ring, pack_ring(1, ())) == (1, (), b"")
    assert key_rotation.KeyInfo(1, (), ("main",)) == await show_key(store, OLD, env, CHEAP)


async def test_a_writer_that_has_the_older_key_sees_to_the_copy_of_the_new_one(
    store: MemoryStore, env: RealEnv
) -> None:
    """It goes on until it is started again. Without a copy all data would hang on one object meanwhile."""
    first = await keys.create(store, OLD, env, CHEAP)
    await rotate(store, OLD, [], env, CHEAP)
    raw = await store.get(keys_name(2))
    await alone(store)
    assert await mend_keys(store, first, CHEAP.memory_kib_min) is None, "who has the older key cannot vouch for it"
    assert await store.get(spare_keys_name(2)) == raw
    await store.delete([keys_name(2)])
    assert await mend_keys(store, first, CHEAP.memory_kib_min) is None, "who has the older key cannot vouch for it"
    assert await store.get(keys_name(2)) == raw
    # What is damaged, only who has the new key can leave behind.
    await store.put(spare_keys_name(2), b"damaged")
    with pytest.raises(Unfinished, match=f"{spare_keys_name(2)} is damaged: .*; start again"):
        await mend_keys(store, first, CHEAP.memory_kib_min)
    await store.put(keys_name(2), b"damaged")
    with pytest.raises(Corrupt, match=r"its copy .* is too"):
        await mend_keys(store, first, CHEAP.memory_kib_min)


@pytest.mark.parametrize("name", [keys_name, spare_keys_name])
async def test_of_the_keys_of_a_rotation_either_may_be_damaged(
    store: MemoryStore, env: RealEnv, name: Callable[[int], str]
) -> None:
    """Before it, while it is under way, and at its end: the older key is there as long as it is needed."""
    first = await keys.create(store, OLD, env, CHEAP)
    await store.put(name(1), b"damaged")
    await rotate(store, OLD, [], env, CHEAP)
    await store.put(name(2), b"damaged")
    newest, number = await keys.load(store, OLD, env, CHEAP)
    assert (number, newest.older[0].key) == (2, first.key)
    mended = await mend_keys(store, newest, CHEAP.memory_kib_min)
    assert mended is not None
    number = mended
    assert (await keys.load(store, OLD, env, CHEAP))[0] == newest, "with its ring"
    assert await store.get(keys_name(number)) == await store.get(spare_keys_name(number))
    await store.put(name(number), b"damaged")
    assert await retire(store, newest, CHEAP) == number + 1
    assert (await keys.load(store, OLD, env, CHEAP))[0].older == ()


@pytest.mark.parametrize("mender", ["older", "newer"])
@pytest.mark.parametrize("older_is", ["object", "copy"])
async def test_keys_of_two_data_keys_under_one_number_both_stay(env: RealEnv, mender: str, older_is: str) -> None:
    """A password was changed and the key rotated at once, somebody deleted the one object, and the other, which came
    late, died before it could take it back. Whoever mends has one of the keys, and cannot judge what holds the other.
    """
    store = MemoryStore()
    first = await keys.create(store, OLD, env, CHEAP)
    before = {info.name: await store.get(info.name) for info in await store.list("")}
    await rotate(store, OLD, [], env, CHEAP)
    newest, _ = await keys.load(store, OLD, env, CHEAP)
    newer = await store.get(keys_name(2))
    for name in (keys_name(2), spare_keys_name(2)):
        await store.delete([name])
    for name, raw in before.items():
        await store.create(name, raw)
    await password_slots.change_password(store, OLD, NEW, env, CHEAP)
    replaced = keys_name(2) if older_is == "copy" else spare_keys_name(2)
    await store.put(replaced, newer)
    found = {info.name: await store.get(info.name) for info in await store.list("")}
    with suppress(Conflict):
        await mend_keys(store, first if mender == "older" else newest, CHEAP.memory_kib_min)
    assert {info.name: await store.get(info.name) for info in await store.list("")} == found


@pytest.mark.parametrize("of_either", [True, False])
async def test_keys_from_before_a_rotation_that_were_put_back_are_no_keys_of_a_server_that_has_the_newer_one(
    store: MemoryStore, env: RealEnv, of_either: bool
) -> None:
    """Only its memory has the data key then, and somebody has to be told before it ends."""
    await keys.create(store, OLD, env, CHEAP)
    before = {info.name: await store.get(info.name) for info in await store.list("")}
    await rotate(store, OLD, [], env, CHEAP)
    newest, _ = await keys.load(store, OLD, env, CHEAP)
    assert await retire(store, newest, CHEAP) == 3
    await store.delete([info.name for info in await store.list("")])
    for name in before if of_either else [FIRST]:
        await store.create(name, before[name])
    with pytest.raises(Corrupt, match="from before the data key was rotated: put the newest one back"):
        await mend_keys(store, newest, CHEAP.memory_kib_min)
    assert (await store.get(FIRST)) == before[FIRST]


async def test_a_number_that_nobody_vouches_for_is_not_taken_for_that_of_the_keys(
    store: MemoryStore, env: RealEnv
) -> None:
    """Whoever can write to the bucket can make an object of a newer data key, but not its seal."""
    first = await keys.create(store, OLD, env, CHEAP)
    slots = (await keys.newest_object(store, CHEAP)).slots
    stranger = DataKey(first.store_id, Secret(bytes(32)), 3)
    await store.create(keys_name(99), encode(stranger, 99, slots, CHEAP.memory_kib_min))
    assert await mend_keys(store, first, CHEAP.memory_kib_min) is None
    assert await keys.older(store, 99) == [FIRST, spare_keys_name(1)]
    assert await keys.replaced(store, first, 99, CHEAP) == []


async def test_who_has_the_older_key_cannot_give_it_the_name_of_a_newer_one(store: MemoryStore, env: RealEnv) -> None:
    """He knows the key, and the slots that hold it under passwords that are in use still."""
    first = await keys.create(store, OLD, env, CHEAP)
    content = await keys.newest_object(store, CHEAP)
    await rotate(store, OLD, [], env, CHEAP)
    newest, _ = await keys.load(store, OLD, env, CHEAP)
    await retire(store, newest, CHEAP)
    for key_id in (2, 3):
        forged = DataKey(first.store_id, first.key, key_id)
        await store.create(keys_name(3 + key_id), encode(forged, 3 + key_id, content.slots, CHEAP.memory_kib_min))
        with pytest.raises(Corrupt):
            await keys.load(store, OLD, env, CHEAP)
