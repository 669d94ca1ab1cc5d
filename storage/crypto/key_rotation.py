"""Rotation of the data key: another one is drawn, and the older one leaves when nothing is sealed under it any more.

Each of the two is one keys object, created under the next number or not at all (`storage.crypto.keys`):

1. *rotate*: every slot holds the new key, and its ring the older one. From the next start on all is sealed under the
   new key, and what is older is opened by the ring, while compaction seals it anew. A crash before the create leaves
   the old key and nothing else; one after it leaves both keys, and the older object until somebody deletes it.
2. *retire*: the same slots, without the ring. A crash before the create leaves the ring, and the next attempt does the
   same again; one after it leaves the newest key alone.

A slot holds its key under its password alone, so whoever rotates has to give the password of each slot that is to stay.
One key opens the older ones of its ring, never a newer one: who has an old keys object and its password can read what
was there when he took it, and nothing that is written later.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from storage.crypto.cipher import KEY_BYTES, NONCE_BYTES
from storage.crypto.data_key import KEY_ID_MAX, DataKey, seal_older
from storage.crypto.keys import KEYS_PREFIX, Cost, check_password, new_slot, newest_object, unlock_newest
from storage.crypto.keys_change import succeed
from storage.crypto.keyslots import Password, Slot, label_of, open_slot, seal_fits
from storage.env import Env
from storage.errors import Conflict, Corrupt, KeyChanged, NotFound, StorageError, Unsupported, WrongPassword
from storage.objects.base import ObjectStore
from storage.secret import Secret


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The data keys of a store: the newest one's id, those of the ring, and the passwords that hold it, by label."""

    key_id: int
    older: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation has written: the number of the keys object, the new key's id, and the passwords it dropped."""

    number: int
    key_id: int
    dropped: tuple[str, ...]


async def show_key(store: ObjectStore, password: Password, env: Env, cost: Cost) -> KeyInfo:
    """The data keys there are. Raises what `keys.load` does."""
    content, data_key, _ = await unlock_newest(store, password, env, cost)
    labels = tuple(label_of(slot, data_key) for slot in content.slots)
    return KeyInfo(content.key_id, tuple(each.key_id for each in content.ring), labels)


async def rotate(
    store: ObjectStore,
    password: Password,
    others: Sequence[Password],
    env: Env,
    cost: Cost,
    *,
    drop_others: bool = False,
) -> Rotated:
    """Draw the next data key, and put it under all passwords that are given: `password` and `others`. With
    `drop_others` all other slots go.

    Conflict: passwords are missing, a rotation is under way, or another change came first. WrongPassword: one of
    `others` opens nothing, too. Unavailable, OldKeysLeft, and otherwise as `replace_slots`.
    """
    for other in others:
        check_password(other)
    content, data_key, opened = await unlock_newest(store, password, env, cost)
    if content.ring:
        raise Conflict(
            "the data key is being rotated already: `nbdserver key show` says how much is left, and the next rotation "
            "can begin when that has ended"
        )
    if content.key_id == KEY_ID_MAX:
        raise Conflict(
            f"the data key was rotated {KEY_ID_MAX - 1} times, and cannot be again: copy the disks elsewhere"
        )
    given = {opened.number: password}
    given |= await _slots_of(content.slots, data_key, others, env)
    missing = tuple(label_of(slot, data_key) for slot in content.slots if slot.number not in given)
    if missing and not drop_others:
        names = ", ".join(map(repr, missing))
        raise Conflict(
            f"the new data key has to be put under each password, and of {names} none was given: give those with "
            "--also FILE, or let them go with --drop-others"
        )
    newest = DataKey(data_key.store_id, Secret(env.random_bytes(KEY_BYTES)), content.key_id + 1)
    slots = [
        await new_slot(newest, slot.number, label_of(slot, data_key), given[slot.number], env, cost)
        for slot in content.slots
        if slot.number in given
    ]
    ring = (seal_older(newest, data_key, env.random_bytes(NONCE_BYTES)),)
    number = await succeed(store, content, newest, tuple(slots), ring, cost)
    return Rotated(number, newest.key_id, missing)


async def retire(store: ObjectStore, newest: DataKey, cost: Cost) -> int | None:
    """Take the older keys out of the keys object in force, which needs no password; its number. None: that is another
    key's by now, and none of ours to change.

    Whoever calls it knows that nothing of what counts is sealed under them. Conflict: a change of passwords came
    first; it is to be tried again. Otherwise as `succeed`.
    """
    content = await newest_object(store, cost)
    if content.store_id != newest.store_id or content.key_id != newest.key_id or not seal_fits(content, newest):
        return None
    if not content.ring:
        return content.number
    return await succeed(store, content, newest, content.slots, (), cost)


async def without_retired(store: ObjectStore, newest: DataKey, cost: Cost) -> DataKey:
    """The key without the older ones of its ring, if the keys object in force says that they were retired: all that
    counts from then on is sealed under it. One that cannot be read, or is another key's, says nothing.
    """
    if newest.older:
        with suppress(NotFound, Corrupt, Unsupported):
            content = await newest_object(store, cost)
            if not content.ring and content.key_id == newest.key_id and seal_fits(content, newest):
                return replace(newest, older=())
    return newest


async def why_no_key(store: ObjectStore, error: KeyChanged, cost: Cost) -> Corrupt:
    """Why a store has an object of a key that is not known: that was rotated since it was asked for, or somebody put an
    older keys object back. Where the keys cannot be read, the next start says so.
    """
    with suppress(StorageError):
        if (await newest_object(store, cost)).key_id < error.key_id:
            return Corrupt(
                KEYS_PREFIX,
                f"{error.object_name} is sealed under data key {error.key_id}, which no keys object there holds: an "
                "older one was put back, or that object was changed; a copy that was begun before the key was rotated "
                "is to be made again, keys/ first",
            )
    return error


async def _slots_of(
    slots: Sequence[Slot], data_key: DataKey, others: Sequence[Password], env: Env
) -> dict[int, Password]:
    """Which slots these passwords open, by number. WrongPassword: one opens none."""
    given: dict[int, Password] = {}
    for place, other in enumerate(others, 1):
        slot = await _slot_of(slots, data_key, other, env)
        if slot is None:
            raise WrongPassword(
                f"the password that --also gives as number {place} opens nothing in this store: it is of another one, "
                "or old; nothing was done"
            )
        given[slot.number] = other
    return given


async def _slot_of(slots: Sequence[Slot], data_key: DataKey, password: Password, env: Env) -> Slot | None:
    for slot in slots:
        if await env.run("codec", open_slot, slot, data_key.store_id, password, data_key.key_id) is not None:
            return slot
    return None
