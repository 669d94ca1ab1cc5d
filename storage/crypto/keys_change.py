"""A change of the keys object in force: the next number with other slots, or under another data key, and then the older
ones are deleted. Whatever changes passwords or the data key does it so; what protects it stands in
`storage.crypto.keys`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from storage.crypto.data_key import DataKey, OlderKey
from storage.crypto.keys import DELETE_SECONDS_MAX, delete_older, unlock_newest, write_next
from storage.crypto.keyslots import Cost, KeysObject, Password, Slot, encode, keys_name, label_of, open_slot
from storage.crypto.spare_keys import spare_keys_name
from storage.env import Env
from storage.errors import AlreadyExists, StorageError, Unfinished
from storage.objects.base import ObjectStore

Edit = Callable[[DataKey, tuple[Slot, ...], Slot], Awaitable[tuple[Slot, ...]]]
"""What becomes of the slots: given the data key, all slots, and the one that the password opens."""


async def refuse_known(data_key: DataKey, slots: Iterable[Slot], new: Password, env: Env) -> None:
    """AlreadyExists: the password is that of one of these slots, and would go on to open the store when one of the two
    is removed.
    """
    for slot in slots:
        if await env.run("codec", open_slot, slot, data_key.store_id, new, data_key.key_id) is not None:
            label = label_of(slot, data_key)
            raise AlreadyExists(f"this password opens the store already, as {label!r}: take another")


async def replace_slots(
    store: ObjectStore,
    password: Password,
    edit: Edit,
    env: Env,
    cost: Cost,
    *,
    delete_seconds: float = DELETE_SECONDS_MAX,
) -> int:
    """Write the next keys object with what `edit` makes of the slots of the newest; its number.

    Conflict: another change came first, and this one has no effect. Unavailable: the change may have happened, `load`
    tells. OldKeysLeft: it has, and the store did not delete the older objects, for which it has `delete_seconds`.
    Otherwise as `load`.
    """
    content, data_key, opened = await unlock_newest(store, password, env, cost)
    slots = await edit(data_key, content.slots, opened)
    return await succeed(store, content, data_key, slots, content.ring, cost, delete_seconds=delete_seconds)


async def succeed(
    store: ObjectStore,
    content: KeysObject,
    newest: DataKey,
    slots: tuple[Slot, ...],
    ring: tuple[OlderKey, ...],
    cost: Cost,
    *,
    delete_seconds: float = DELETE_SECONDS_MAX,
) -> int:
    """Write the keys object that follows on `content`, and delete the older ones; its number. As `replace_slots`.

    A crash before the create leaves what was; one behind it leaves the new one, and an older one that is deleted by
    the next change, or by whoever opens the store.
    """
    number, name = content.number + 1, keys_name(content.number)
    await write_next(store, number, encode(newest, number, slots, cost.memory_kib_min, ring))
    try:
        async with asyncio.timeout(delete_seconds):
            await delete_older(store, number)
    except TimeoutError as error:
        raise OldKeysLeft(number, name, f"the store did not do it within {delete_seconds:g} s") from error
    except StorageError as error:
        raise OldKeysLeft(number, name, str(error)) from error
    return number


class OldKeysLeft(Unfinished):
    """Keys object `number` is in force, and the one before, `name`, which passwords of then open, is still there."""

    def __init__(self, number: int, name: str, reason: str) -> None:
        super().__init__(
            f"the change is in force, but {name} or its copy {spare_keys_name(number - 1)}, which the passwords from "
            f"before it open, could not be deleted ({reason}): delete both yourself, or have the store opened again, "
            "which tries it again"
        )
        self.number = number
        self.name = name
