"""The spare copy of the keys object: the same bytes under a name of their own. Without the keys all data is lost for
ever, and they are one small object.

A copy is written by whoever won the create of that number, behind that and before older objects are deleted; so it says
nothing that its object did not say first, and the rule that the highest number wins goes for both together. Copies of
older keys are as dangerous as those: an old password opens them. They are deleted with them, and who cannot says so. A
sound copy of other keys of that number says that the create should not have been won: whoever finds one has lost.
"""

import logging
import re
from collections.abc import Callable
from contextlib import suppress

from storage.crypto.keyslots import KEYS_BYTES_MAX, KeysObject, decode, keys_name
from storage.errors import AlreadyExists, Conflict, Corrupt, NotFound, StorageError, Unavailable, Unsupported
from storage.objects.base import ObjectStore
from storage.objects.retry import MENDABLE

SPARE_PREFIX = "spare/"

_COPY_NAME = re.compile(r"spare/([0-9]{20})\.keys\Z")
_NUMBER_MAX = (1 << 64) - 1

_log = logging.getLogger("nbdserver")


def spare_keys_name(number: int) -> str:
    """The name of the copy of keys object `number`."""
    return f"{SPARE_PREFIX}{number:020d}.keys"


def spare_keys_number(name: str) -> int | None:
    """The number of the keys whose copy has this name; None for a name that is none of ours."""
    match = _COPY_NAME.match(name)
    return int(match[1]) if match and 1 <= int(match[1]) <= _NUMBER_MAX else None


async def copies(store: ObjectStore) -> list[int]:
    """The numbers of the copies that are there."""
    infos = await store.list(SPARE_PREFIX)
    return [number for info in infos if (number := spare_keys_number(info.name)) is not None]


async def read_either(store: ObjectStore, number: int, memory_kib_min: int) -> KeysObject:
    """Keys object `number`, or its copy where that is damaged, withheld or gone. NotFound: neither is there. Corrupt,
    Unsupported: it does not open, and neither does its copy. Whatever else the store refuses it with: its copy gives
    nothing either.
    """
    name, copy = keys_name(number), spare_keys_name(number)
    refusal: StorageError
    try:
        return decode(await store.get(name, limit=KEYS_BYTES_MAX), number, memory_kib_min)
    except (Corrupt, NotFound, Unavailable, *MENDABLE) as error:
        refusal = error
    missing = isinstance(refusal, NotFound)
    reason = refusal.detail if isinstance(refusal, Corrupt) else "it is missing" if missing else str(refusal)
    try:
        content = decode(await store.get(copy, limit=KEYS_BYTES_MAX), number, memory_kib_min)
    except (Corrupt, NotFound, Unavailable, *MENDABLE) as second:
        if not isinstance(refusal, Corrupt | NotFound):
            raise refusal from None
        if isinstance(second, NotFound):
            raise Corrupt(name, f"{reason}, and its copy {copy} is missing") if not missing else refusal from None
        if isinstance(second, Corrupt | Unsupported):
            raise Corrupt(name, f"{reason}, and its copy {copy} is damaged too") from None
        raise
    said_of_copy(number, reason)
    return content


def said_of_copy(number: int, reason: str) -> None:
    """Log that the copy of keys object `number` was read, and why."""
    what = {"object": keys_name(number), "copy": spare_keys_name(number), "reason": reason}
    _log.error("keys_read_from_copy", extra={**what, "advice": "a server that opens the store mends it; then check it"})


async def differing_copy(store: ObjectStore, content: KeysObject, memory_kib_min: int) -> KeysObject | None:
    """The copy of keys that can be read and that no password opens, if it can be read and is another one."""
    try:
        raw = await store.get(spare_keys_name(content.number), limit=KEYS_BYTES_MAX)
        other = decode(raw, content.number, memory_kib_min)
    except (Corrupt, Unsupported, NotFound):
        return None
    return None if (other.sealed, other.seal) == (content.sealed, content.seal) else other


IsSound = Callable[[bytes, int], bool]
"""Whether bytes are those of the keys object of a number."""


def may_be_keys(raw: bytes, number: int) -> bool:
    """Whether somebody may have written it as keys object `number`: as far as can be told without the data key."""
    try:
        decode(raw, number, 0)
    except Corrupt:
        return False
    except Unsupported:
        return True  # a newer program
    return True


async def write_copy(store: ObjectStore, number: int, data: bytes, is_sound: IsSound) -> None:
    """The copy of keys object `number`, which was won. A crash in here leaves it without one: whoever opens the store
    next writes it.

    Conflict: there is a sound one of other keys. So somebody else won that number before and their object was deleted
    from outside: this copy is all that is left of it, and stays.
    """
    name = spare_keys_name(number)
    with suppress(AlreadyExists):
        await store.create(name, data)
        return
    with suppress(NotFound, Corrupt):
        found = await store.get(name, limit=KEYS_BYTES_MAX)
        if found == data:
            return  # a try of ours that had no answer
        if is_sound(found, number):
            raise Conflict(
                f"{keys_name(number)} and its copy {name} are both sound and hold different passwords: somebody "
                "deleted one of them while passwords were changed. Passwords of both open the store; change a "
                "password, which makes what is in force then the only one"
            )
    # What lies there is damaged.
    await store.delete([name])
    with suppress(AlreadyExists):
        await store.create(name, data)


async def holds(store: ObjectStore, name: str, data: bytes) -> bool:
    """Whether these bytes lie under that name."""
    try:
        return (await store.head(name)).size == len(data) and await store.get(name, limit=len(data)) == data
    except NotFound:
        return False
