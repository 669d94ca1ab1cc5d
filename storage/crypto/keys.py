"""Keys objects in the store: made, opened by a password, replaced when that changes; and what protects them.

It guarantees that a store is opened by a password of one of its slots and by nothing else, that changing
passwords touches no data, and that a wrong password and a damaged object are told apart. How slots are added and
removed is in `storage.crypto.password_slots`.

A store has one random data key, until that is rotated (`storage.crypto.key_rotation`). A password gives a
key-encryption key by Argon2id (RFC 9106); HKDF splits that into a check value, stored in the slot, and a wrap key,
which seals the data key (XChaCha20-Poly1305). The check value is compared first, in constant time: no match in
any slot is a wrong password, a match whose sealed key does not open is damage. It also commits the slot to one
password, which Poly1305 alone would not. Three things protect the clear fields:

- the associated data of the sealed key: format, store id, slot number, Argon2id parameters, salt, time;
- a seal over the whole object, HMAC-SHA256 under a key derived from the data key: who cannot open the store
  cannot give an object another number, drop a slot or bring one back;
- a checksum, SHA-256 over all bytes before it. It is no secret and stops nobody, it only tells damage from a
  wrong password: without it a flipped bit in a salt would read as "wrong password" and send the owner looking
  for another one. Who changes a salt and the checksum with it can still cause that, as can who deletes.

The highest number wins. A change writes the next number with a conditional create, then deletes all lower ones. A
crash before the create leaves the old password valid. A crash after it leaves the new one valid and an old object
behind, which whoever reads the bucket and knows the old password could still open: the next change deletes it, and
`delete_older` does. A damaged newest object is never passed over for an older one, since that would let an old
password back in: nothing but its own copy stands in for it (`spare_keys`). Who can write to the bucket can delete the
newest and put back an older one: that is why `load` returns the number, and why every manifest records the highest.

Passwords come as bytes or bytearray and are never copied here; who made one wipes it, which for a `Secret`, as all of
the program are, is a `with`. The key-encryption key is wiped, and Argon2 clears its memory. What Python cannot wipe:
copies of the wrap key and the data key stay in freed heap, in HKDF's and in OpenSSL's contexts; of a password that was
ever a `str`, came in a variable or over the admin socket, copies stay there too. So core dumps must be off, and swap
encrypted.
"""

import asyncio
import logging
import re
from contextlib import suppress

from storage.crypto.cipher import KEY_BYTES, NONCE_BYTES, STORE_ID_BYTES, AuthenticationError
from storage.crypto.data_key import DataKey, with_ring
from storage.crypto.keyslots import (
    DEFAULT_COST,
    SALT_BYTES,
    Cost,
    KeysObject,
    Password,
    Slot,
    encode,
    keys_name,
    open_slot,
    seal_fits,
    seal_slot,
)
from storage.crypto.spare_keys import (
    IsSound,
    copies,
    differing_copy,
    holds,
    may_be_keys,
    read_either,
    said_of_copy,
    spare_keys_name,
    write_copy,
)
from storage.env import Env
from storage.errors import (
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
from storage.objects.base import ObjectStore
from storage.secret import Secret

__all__ = [
    "DEFAULT_COST",
    "FIRST_LABEL",
    "KEYS_PREFIX",
    "Cost",
    "check_password",
    "copy_keys",
    "create",
    "delete_older",
    "keys_name",
    "load",
    "new_slot",
    "newest_object",
    "older",
    "replaced",
    "unlock_newest",
    "vouched_number",
    "write_next",
]

_log = logging.getLogger("nbdserver")

KEYS_PREFIX = "keys/"

FIRST_LABEL = "main"
"""What the password of a new store is called."""

PASSWORD_BYTES_MAX = 65536
"""Room for a key file; anything longer is the wrong file."""

DELETE_SECONDS_MAX = 10.0
"""How long a change of password waits for the deletion of what the old one opens: an open store asks for ever."""

COPY_SECONDS_MAX = 10.0
"""How long a change of password waits for the copy of what it wrote."""

RACES_MAX = 10
"""Times in a row that a listed object may be gone when it is read. Each time somebody changed a password."""

_KEYS_NAME = re.compile(r"keys/([0-9]{20})\.keys\Z")
_NUMBER_MAX = (1 << 64) - 1


async def create(store: ObjectStore, password: Password, env: Env, cost: Cost = DEFAULT_COST) -> DataKey:
    """Draw the data key and the store id of a new store and write keys object 1.

    AlreadyExists: there is a keys object, so there is a store. Invalid: the password is empty or absurdly
    long, or the cost is out of bounds. After Unavailable the object may be there: `load` tells.
    """
    check_password(password)
    if await _numbers(store):
        raise AlreadyExists(f"there is a store at {store.url} already")
    data_key = DataKey(store_id=env.random_bytes(STORE_ID_BYTES), key=Secret(env.random_bytes(KEY_BYTES)))
    slot = await new_slot(data_key, 1, FIRST_LABEL, password, env, cost)
    try:
        await write_next(store, 1, encode(data_key, 1, (slot,), cost.memory_kib_min))
    except Conflict:
        raise AlreadyExists(f"another process has just made a store at {store.url}") from None
    return data_key


async def load(store: ObjectStore, password: Password, env: Env, cost: Cost = DEFAULT_COST) -> tuple[DataKey, int]:
    """The data key and the number of the keys object it came from, the highest there is.

    Of `cost` only the floor matters. NotFound: no keys object, so no store. WrongPassword, Corrupt: the two
    are told apart. Unsupported: a newer format, or a cost this program refuses to pay.
    """
    content, data_key, _ = await unlock_newest(store, password, env, cost)
    return data_key, content.number


async def unlock_newest(
    store: ObjectStore, password: Password, env: Env, cost: Cost
) -> tuple[KeysObject, DataKey, Slot]:
    """The newest keys object, the data key, and the slot that the password opens. Raises what `load` does."""
    check_password(password)
    content = await newest_object(store, cost)
    try:
        data_key, slot = await _unlock(store, content, password, env)
    except (Corrupt, WrongPassword):
        # Whoever altered it may have made its checksum anew.
        other = await differing_copy(store, content, cost.memory_kib_min)
        if other is None:
            raise
        data_key, slot = await _unlock(store, other, password, env)
        said_of_copy(content.number, "it was altered since it was written")
        content = other
    return content, data_key, slot


async def newest_number(store: ObjectStore) -> int:
    """The number of the keys object in force. NotFound: there is none, so no store."""
    numbers = await _numbers(store)
    if not numbers:
        raise NotFound(f"there is no store at {store.url}: it has no key object")
    return max(numbers)


async def older(store: ObjectStore, number: int) -> list[str]:
    """The keys objects below `number` and their copies, which a crash in a change of password, or a store that would
    not delete, may have left behind: they are garbage, which an older password still opens.
    """
    old = [keys_name(n) for n in await _objects(store) if n < number]
    return old + [spare_keys_name(n) for n in await copies(store) if n < number]


async def replaced(store: ObjectStore, data_key: DataKey, number: int, cost: Cost) -> list[str]:
    """`older`, if whoever made keys object `number` had this data key. What nobody vouches for takes the place of
    nothing: a number alone could be anybody's, and what it is above may be all that opens the store.
    """
    names = await older(store, number)
    with suppress(NotFound, Corrupt, Unsupported):
        if names and seal_fits(await read_either(store, number, cost.memory_kib_min), data_key):
            return names
    return []


async def vouched_number(store: ObjectStore, data_key: DataKey, number: int) -> int:
    """The number of the keys in force, which was `number` before: a higher one counts if whoever made it had this data
    key. After a rotation nobody here can say so of the newest, and the manifest does. NotFound: there is none.
    """
    newest = await newest_number(store)
    if newest > number:
        with suppress(NotFound, Corrupt, Unsupported):
            if seal_fits(await read_either(store, newest, memory_kib_min=0), data_key):
                return newest
    return number


async def delete_older(store: ObjectStore, number: int) -> None:
    """Delete the keys objects below `number`, and their copies."""
    names = await older(store, number)
    if names:
        await store.delete(names)


async def _objects(store: ObjectStore) -> set[int]:
    """The number of each keys object there is. Other names under the prefix are none of ours."""
    matches = [_KEYS_NAME.match(info.name) for info in await store.list(KEYS_PREFIX)]
    return {int(match[1]) for match in matches if match and int(match[1]) <= _NUMBER_MAX}


async def _numbers(store: ObjectStore) -> set[int]:
    """The numbers of all that is there of keys, be it the object or its copy. A copy counts as if the object were
    there: else one that is deleted would let an older one back in.
    """
    return await _objects(store) | set(await copies(store))


async def newest_object(store: ObjectStore, cost: Cost) -> KeysObject:
    """The keys object in force, which nobody has opened yet. Raises what `load` does, but WrongPassword."""
    for _ in range(RACES_MAX):
        numbers = await _numbers(store)
        if not numbers:
            raise NotFound(f"there is no store at {store.url}: it has no key object")
        with suppress(NotFound):
            return await read_either(store, max(numbers), cost.memory_kib_min)
    raise Unavailable(f"{store.url} lists key objects that are gone when they are read")


async def write_next(store: ObjectStore, number: int, data: bytes) -> bool:
    """Create keys object `number`, and its copy; whether it has that. Conflict: another process wrote this number or a
    higher one. The second listing is for a process that slept before its create: a faster one may have written this
    number and the next and deleted this one again, so that the late create succeeds and yet means nothing.
    """
    name = keys_name(number)
    conflict = f"another process has just changed the keys at {store.url}; this change has no effect"
    try:
        await store.create(name, data)
    except AlreadyExists:
        # Perhaps by the lost first attempt of this very call: salt and nonce make our bytes unmistakable.
        if not await holds(store, name, data):
            raise Conflict(conflict) from None
    with suppress(Conflict):
        if max(await _numbers(store), default=number) <= number:
            return await copy_keys(store, number, data)
    with suppress(TimeoutError, StorageError):  # the next change deletes it, or who opens the store
        async with asyncio.timeout(DELETE_SECONDS_MAX):
            if await holds(store, name, data):
                await store.delete([name])
    raise Conflict(conflict)


async def copy_keys(store: ObjectStore, number: int, data: bytes, is_sound: IsSound = may_be_keys) -> bool:
    """The copy of keys object `number`, which holds `data`: within a while, and if the store takes none, there is none,
    which is logged. False: so it was. Conflict: there is a copy of other keys, which `is_sound`.

    A process that slept before it may copy what a faster one has replaced, and deleted: so all are listed again.
    """
    try:
        async with asyncio.timeout(COPY_SECONDS_MAX):
            await write_copy(store, number, data, is_sound)
            if max(await _numbers(store), default=number) > number:
                await store.delete([spare_keys_name(number)])
    except Conflict:
        raise
    except (TimeoutError, StorageError) as error:
        said = str(error) or f"the store did not take it within {COPY_SECONDS_MAX:g} s"
        _log.warning("spare_copy_failed", extra={"object": spare_keys_name(number), "error": said})
        return False
    return True


async def _unlock(store: ObjectStore, content: KeysObject, password: Password, env: Env) -> tuple[DataKey, Slot]:
    """The data key and the slot that the password opens."""
    name = keys_name(content.number)
    for slot in content.slots:
        try:
            data_key = await env.run("codec", open_slot, slot, content.store_id, password, content.key_id)
        except AuthenticationError as error:
            raise Corrupt(name, f"the password is right, but in slot {slot.number} {error}") from None
        if data_key is None:
            continue
        if not seal_fits(content, data_key):
            raise Corrupt(name, "the password is right, but the object was altered since it was written")
        try:
            return with_ring(data_key, content.ring), slot
        except AuthenticationError as error:
            raise Corrupt(name, f"the password is right, but {error}") from None
    raise WrongPassword(f"the password does not open the store at {store.url}")


async def new_slot(data_key: DataKey, number: int, label: str, password: Password, env: Env, cost: Cost) -> Slot:
    """The data key under a password. Takes as long as the cost says."""
    salt, nonce = env.random_bytes(SALT_BYTES), env.random_bytes(NONCE_BYTES)
    created = int(env.wall_clock())

    def seal() -> Slot:
        return seal_slot(data_key, number, password, cost, label=label, salt=salt, nonce=nonce, created=created)

    return await env.run("codec", seal)


def check_password(password: Password) -> None:
    """Invalid: nobody would have such a password."""
    if not password:
        raise Invalid("the password is empty: give one")
    if len(password) > PASSWORD_BYTES_MAX:
        raise Invalid(f"the password has {len(password)} bytes, more than {PASSWORD_BYTES_MAX}: a wrong file?")
