"""The passwords of an open store. What is changed counts at once: a running server goes on, and the next start asks for
what is there then.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from storage.crypto import keys, password_slots
from storage.crypto.keyslots import Cost, Password
from storage.crypto.password_slots import PasswordInfo
from storage.env import Env
from storage.errors import Unfinished
from storage.lsm.engine import Engine
from storage.objects.base import ObjectStore


class StorePasswords:
    """What may be done with the passwords of a store, by whoever knows one of them. Each raises WrongPassword, and what
    the function of the same name in `storage.crypto` does.
    """

    def __init__(self, engine: Engine, objects: ObjectStore, env: Env, cost: Cost) -> None:
        self._engine = engine
        self._objects = objects
        self._env = env
        self._cost = cost

    async def list(self, password: Password) -> list[PasswordInfo]:
        """All passwords of the store, in order of their slots."""
        return await password_slots.list_passwords(self._objects, password, self._env, self._cost)

    async def change(self, old: Password, new: Password) -> None:
        """Replace the slot that `old` opens; data stays as it is."""
        await self._changed(partial(password_slots.change_password, self._objects, old, new, self._env, self._cost))

    async def add(self, password: Password, new: Password, label: str) -> None:
        """Let `new` open the store too."""
        await self._changed(
            partial(password_slots.add_password, self._objects, password, new, label, self._env, self._cost)
        )

    async def remove(self, password: Password, label: str) -> None:
        """The password under this label opens the store no more."""
        await self._changed(
            partial(password_slots.remove_password, self._objects, password, label, self._env, self._cost)
        )

    async def _changed(self, change: Callable[[], Awaitable[int]]) -> None:
        """Unfinished: the change is in force, and the object from before could not be deleted."""
        left = None
        self._engine.check_writer()
        try:
            number = await change()
        except keys.OldKeysLeft as error:
            number, left = error.number, Unfinished(str(error))
        self._engine.keys_are(number)
        # From here on nobody can put the old object back unnoticed. A crash before it leaves the new slots valid.
        await self._engine.flush_memtable(always=True)
        if left is not None:
            raise left
