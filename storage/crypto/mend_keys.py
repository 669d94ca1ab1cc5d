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
from storage.errors import Corrupt, NotFound, Unfinished, Unsupported
from storage.objects.base import ObjectStore

_log = logging.getLogger("nbdserver")


async def mend_keys(store: ObjectStore, data_key: DataKey, memory_kib_min: int) -> int:
    """Have the keys in force twice; their number. Conflict: somebody changes passwords, or both are sound and
    differ. Corrupt: neither is sound. StorageError: it is not done. What was damaged, and is not now, is logged.

    A crash between two requests leaves what there was, or two numbers of which the higher one counts, as a change of
    passwords does.
    """
    number = await newest_number(store)
    names = keys_name(number), spare_keys_name(number)
    found = await asyncio.gather(*(_read(store, name) for name in names))
    own, copy = (raw if raw is not None and _is_sound(raw, number, data_key, memory_kib_min) else None for raw in found)
    copied = True
    if own is not None:
        is_sound = partial(_is_sound, data_key=data_key, memory_kib_min=memory_kib_min)
        copied = copy == own or await copy_keys(store, number, own, is_sound)
    elif copy is not None and found[0] is None:
        await write_next(store, number, copy)
    elif copy is not None:
        content = decode(copy, number, memory_kib_min)
        number += 1
        copied = await write_next(store, number, encode(data_key, number, content.slots, memory_kib_min, content.ring))
        await delete_older(store, number)
    else:
        raise Corrupt(
            names[0],
            f"its copy {names[1]} is too: put either back from a copy of the store before this "
            "server ends, since only its memory has the data key",
        )
    if not copied:
        raise Unfinished(f"{keys_name(number)} has no copy yet: spare_copy_failed in the log says why")
    for name, raw, sound in zip(names, found, (own, copy), strict=True):
        if sound is None:
            _log.warning("keys_mended", extra={"object": name, "finding": "missing" if raw is None else "damaged"})
    return number


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
