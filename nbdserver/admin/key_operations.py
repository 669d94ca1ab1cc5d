"""Operations on the data key of a store. Each is carried out for whoever gives a password, and wipes what came."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

import msgspec

from nbdserver.admin.asked import NO_CLIENTS, Answer, Clients
from storage.secret import Secret

if TYPE_CHECKING:
    from storage import Store


class ShowKey(msgspec.Struct, frozen=True, tag="show-key"):
    """Which data keys the passwords hold, which of them this process uses, and how far a rotation is; and whether this
    process goes on with it."""

    password: Secret
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        with self.password:
            found = await store.passwords.show_key(self.password)
        rotation = store.status().rotation
        return {
            "key": found.key_id,
            "older_keys": list(found.older),
            "used": store.key_id,
            "goes_on": bool(found.older) and not store.status().read_only,
            "passwords": list(found.labels),
            "rotation": None if rotation is None else msgspec.to_builtins(rotation),
        }


class RotateKey(msgspec.Struct, frozen=True, tag="rotate-key"):
    """Another data key, under the password and the others that are given; with `drop_others` all further ones go."""

    password: Secret
    others: list[Secret]
    drop_others: bool = False
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        with ExitStack() as wiped:
            for secret in (self.password, *self.others):
                wiped.enter_context(secret)
            rotated = await store.passwords.rotate_key(self.password, self.others, drop_others=self.drop_others)
        return {"key": rotated.key_id, "dropped": list(rotated.dropped)}


KEY_OPERATIONS = (ShowKey, RotateKey)
"""What tells a server a password, too."""
