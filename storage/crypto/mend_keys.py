"""Mending of the keys object and its copy: of the two, one that is damaged or gone is made anew from the other.

Nothing is written over, and no number is used for two contents. What is gone is created again with its own bytes. What
is damaged is left behind: the same slots go into the next number, as in a change of passwords that changes none.
"""

import asyncio
import logging
from functools import partial

from storage.crypto.data_key import DataKey
from storage.crypto.keys import copy_keys, delete_older, newest_number, write_next
from storage.crypto.keyslots import KEYS_BYTES_MAX, decode, encode, keys_name, seal_fits
from storage.crypto.spare_keys import spare_keys_name
from storage.errors import Conflict, Corrupt, NotFound, Unfinished, Unsupported
from storage.objects.base import ObjectStore

_log = logging.getLogger("nbdserver")


async def mend_keys(store: ObjectStore, data_key: DataKey, memory_kib_min: int) -> int | None:
    """Have the keys in force twice; their number. None: they say that they hold a newer data key, and nobody who has
    this one can tell whether that is so. Conflict: somebody changes passwords, or both are sound and differ. Corrupt:
    neither is sound, or older ones were put back. StorageError: it is not done. What was damaged, and is not now, is
    logged. What holds another data key than this one is never deleted as damaged.

    A crash between two requests leaves what there was, or two numbers of which the higher one counts, as a change of
    passwords does.
    """
    number = await newest_number(store)
    names = keys_name(number), spare_keys_name(number)
    found = await asyncio.gather(*(_read(store, name) for name in names))
    own, copy = (raw if raw is not None and _is_sound(raw, number, data_key, memory_kib_min) else None for raw in found)
    is_anothers = partial(_is_of_another_key, data_key=data_key, memory_kib_min=memory_kib_min)
    copied = True
    if own is not None:
        is_sound = partial(_is_sound, data_key=data_key, memory_kib_min=memory_kib_min)
        copied = copy == own or await copy_keys(store, number, own, lambda *it: is_sound(*it) or is_anothers(*it))
    elif copy is not None and found[0] is None:
        await write_next(store, number, copy)
    elif copy is not None and found[0] is not None and is_anothers(found[0], number):
        raise Conflict(f"{names[0]} and its copy {names[1]} hold different data keys: change a password")
    elif copy is not None:
        content = decode(copy, number, memory_kib_min)
        number += 1
        copied = await write_next(store, number, encode(data_key, number, content.slots, memory_kib_min, content.ring))
        await delete_older(store, number)
    else:
        is_newer = partial(_is_of_newer_key, data_key=data_key, memory_kib_min=memory_kib_min)
        await _of_newer_key(store, number, *(raw if raw is None or is_newer(raw, number) else b"" for raw in found))
        return None
    if not copied:
        raise Unfinished(f"{keys_name(number)} has no copy yet: spare_copy_failed in the log says why")
    for name, raw, sound in zip(names, found, (own, copy), strict=True):
        if sound is None:
            _log.warning("keys_mended", extra={"object": name, "finding": "missing" if raw is None else "damaged"})
    return number


async def _of_newer_key(store: ObjectStore, number: int, own: bytes | None, copy: bytes | None) -> None:
    """The data key was rotated under this process, which cannot tell whether they are sound: what is undamaged (nothing
    in `own` and `copy` is what is not) is there twice with its own bytes, as which it takes nothing from anybody. Else
    all would hang on one object until the next start. Corrupt: they are of no key, or of one from before this one.
    """
    names = keys_name(number), spare_keys_name(number)
    if not own and not copy:
        raise Corrupt(
            names[0],
            f"its copy {names[1]} is too, or both are from before the data key was rotated: put the newest one back "
            "from a copy of the store before this server ends, since only its memory has the data key",
        )
    if own and copy is None:
        if not await copy_keys(store, number, own):
            raise Unfinished(f"{names[0]} has no copy yet: spare_copy_failed in the log says why")
    elif copy and own is None:
        await write_next(store, number, copy)
    elif not own or not copy:
        raise Unfinished(
            f"{names[1] if own else names[0]} is damaged: a server with the newest data key mends it; start again"
        )


async def _read(store: ObjectStore, name: str) -> bytes | None:
    """What is there; None: nothing. What is too large is no bytes of keys."""
    try:
        return await store.get(name, limit=KEYS_BYTES_MAX)
    except NotFound:
        return None
    except Corrupt:
        return b""


def _is_sound(raw: bytes, number: int, data_key: DataKey, memory_kib_min: int) -> bool:
    """Whether it is what was sealed under this number."""
    try:
        return seal_fits(decode(raw, number, memory_kib_min), data_key)
    except (Corrupt, Unsupported):
        return False


def _is_of_another_key(raw: bytes, number: int, data_key: DataKey, memory_kib_min: int) -> bool:
    """Whether it is undamaged and says that it holds another data key: one from before a rotation, or behind it."""
    try:
        return decode(raw, number, memory_kib_min).key_id != data_key.key_id
    except (Corrupt, Unsupported):
        return False


def _is_of_newer_key(raw: bytes, number: int, data_key: DataKey, memory_kib_min: int) -> bool:
    """Whether it is undamaged and says that the data key was rotated since this one was opened. It never becomes an
    older one again: that is an object which somebody put back.
    """
    try:
        return decode(raw, number, memory_kib_min).key_id > data_key.key_id
    except (Corrupt, Unsupported):
        return False
