"""The passwords of a store: which there are, another one, one more, one less. Each is a slot of the keys object, with a
label.

Whoever knows one password may do all of it. The last slot is never removed, no two slots have one label or one
password, and of two changes at once one is a Conflict: a keys object is created under the next number, or not at all
(`storage.crypto.keys`). A crash before that create leaves the passwords as they were, one after it as they are to be.
"""

from dataclasses import dataclass

from storage.crypto.data_key import DataKey
from storage.crypto.keys import (
    DELETE_SECONDS_MAX,
    Cost,
    check_password,
    new_slot,
    unlock_newest,
)
from storage.crypto.keys_change import refuse_known, replace_slots
from storage.crypto.keyslots import LABEL_BYTES_MAX, SLOTS_MAX, Password, Slot, label_of
from storage.env import Env
from storage.errors import AlreadyExists, Conflict, Invalid, NotFound
from storage.objects.base import ObjectStore


@dataclass(frozen=True, slots=True)
class PasswordInfo:
    """One password as listed; `created` is seconds since 1970, `given` whether it is the one that was given."""

    label: str
    created: int
    given: bool


async def list_passwords(store: ObjectStore, password: Password, env: Env, cost: Cost) -> list[PasswordInfo]:
    """All passwords, in order of their slots. Raises what `keys.load` does."""
    content, data_key, opened = await unlock_newest(store, password, env, cost)
    return [PasswordInfo(label_of(slot, data_key), slot.created, slot is opened) for slot in content.slots]


async def add_password(store: ObjectStore, password: Password, new: Password, label: str, env: Env, cost: Cost) -> int:
    """Let `new` open the store too; the number of the keys object. AlreadyExists: the label, or the password; Invalid:
    no such label may be; Conflict: there are SLOTS_MAX, or another change came first. Otherwise as `replace_slots`.
    """
    check_password(new)
    check_label(label)

    async def edit(data_key: DataKey, slots: tuple[Slot, ...], opened: Slot) -> tuple[Slot, ...]:
        labels = {slot.number: label_of(slot, data_key) for slot in slots}
        if label in labels.values():
            raise AlreadyExists(
                f"there is a password labelled {label!r} already: take another label, or remove it first"
            )
        if len(slots) == SLOTS_MAX:
            raise Conflict(f"the store has {SLOTS_MAX} passwords, and no room for another: remove one")
        await refuse_known(data_key, slots, new, env)
        number = min(set(range(1, SLOTS_MAX + 1)) - labels.keys())
        return (*slots, await new_slot(data_key, number, label, new, env, cost))

    return await replace_slots(store, password, edit, env, cost)


async def change_password(
    store: ObjectStore,
    old: Password,
    new: Password,
    env: Env,
    cost: Cost,
    *,
    delete_seconds: float = DELETE_SECONDS_MAX,
) -> int:
    """Replace the slot that `old` opens by one for `new`, with its label. AlreadyExists: another slot has `new`. As
    `replace_slots`.
    """
    check_password(new)

    async def edit(data_key: DataKey, slots: tuple[Slot, ...], opened: Slot) -> tuple[Slot, ...]:
        await refuse_known(data_key, [slot for slot in slots if slot is not opened], new, env)
        changed = await new_slot(data_key, opened.number, label_of(opened, data_key), new, env, cost)
        return tuple(changed if slot is opened else slot for slot in slots)

    return await replace_slots(store, old, edit, env, cost, delete_seconds=delete_seconds)


async def remove_password(store: ObjectStore, password: Password, label: str, env: Env, cost: Cost) -> int:
    """The password under this label opens the store no more; the number of the keys object. NotFound: there is none;
    Conflict: it is the last, or another change came first. Otherwise as `replace_slots`.
    """

    async def edit(data_key: DataKey, slots: tuple[Slot, ...], opened: Slot) -> tuple[Slot, ...]:
        left = tuple(slot for slot in slots if label_of(slot, data_key) != label)
        if len(left) == len(slots):
            raise NotFound(f"no password is labelled {label!r}")
        if not left:
            raise Conflict(f"{label!r} is the only password: without it nobody could open the store; add another first")
        return left

    return await replace_slots(store, password, edit, env, cost)


def check_label(label: str) -> None:
    """Invalid: it is empty, too long, or does not print."""
    if not label or not label.isprintable() or label != label.strip():
        raise Invalid(f"{label!r} is no label for a password: take a word or some, without control characters")
    if len(label.encode()) > LABEL_BYTES_MAX:
        raise Invalid(f"the label has {len(label.encode())} bytes, more than {LABEL_BYTES_MAX}: take a shorter one")
