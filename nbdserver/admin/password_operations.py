"""Operations on the passwords of a store. Each is carried out for whoever gives one, and wipes those that came."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from nbdserver.admin.asked import NO_CLIENTS, Answer, Clients
from storage.secret import Secret

if TYPE_CHECKING:
    from storage import Store


class ListPasswords(msgspec.Struct, frozen=True, tag="list-passwords"):
    """What the passwords are called, since when they are there, and which one was given."""

    password: Secret
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        with self.password:
            found = await store.passwords.list(self.password)
        return {"passwords": [{"label": each.label, "created": each.created, "given": each.given} for each in found]}


class ChangePassword(msgspec.Struct, frozen=True, tag="change-password"):
    """The store opens with `new` from now on and no longer with `old`; the label stays."""

    old: Secret
    new: Secret
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        with self.old, self.new:
            await store.passwords.change(self.old, self.new)
        return {"changed": True}


class AddPassword(msgspec.Struct, frozen=True, tag="add-password"):
    """The store opens with `new` too."""

    password: Secret
    new: Secret
    label: str
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        with self.password, self.new:
            await store.passwords.add(self.password, self.new, self.label)
        return {"added": self.label}


class RemovePassword(msgspec.Struct, frozen=True, tag="remove-password"):
    """The store opens no longer with the password of this label."""

    password: Secret
    label: str
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        with self.password:
            await store.passwords.remove(self.password, self.label)
        return {"removed": self.label}


PASSWORD_OPERATIONS = (ListPasswords, ChangePassword, AddPassword, RemovePassword)
"""What tells a server a password."""
