"""The passwords of an open store. What is changed counts at once: a running server goes on, and the next start asks for
what is there then.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from storage.crypto import key_rotation, password_slots
from storage.crypto.key_rotation import KeyInfo, Rotated
from storage.crypto.keys_change import OldKeysLeft
from storage.crypto.keyslots import Cost, Password
from storage.crypto.mend_keys import mend_keys
from storage.crypto.password_slots import PasswordInfo
from storage.env import Env
from storage.errors import StorageError, Unfinished
from storage.lsm.engine import Engine
from storage.objects.retry import RetryingStore
from storage.secret import Secret

MEND_PAUSE_SECONDS = 300.0
"""Between two tries to have the keys twice, where the store refuses it."""

VERIFY_KEYS_SECONDS = 24 * 3600.0
"""After which the keys and their copy are read again."""

Change = Callable[[Sequence[Password]], Awaitable[int]]
"""What changes the keys, given passwords; the number of the keys object that is in force then."""

_log = logging.getLogger("nbdserver")


class StorePasswords:
    """What may be done with the passwords of a store, by whoever knows one of them. Each raises WrongPassword, and what
    the function of the same name in `storage.crypto` does.
    """

    def __init__(self, engine: Engine, objects: RetryingStore, env: Env, cost: Cost) -> None:
        self._engine = engine
        self._objects = objects
        self._env = env
        self._cost = cost
        self._mending: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[None]] = set()
        """Under way: each goes on to its end, also if who asked for it goes away."""
        self._again = asyncio.Event()
        self.failing: str | None = None
        """Why the keys are not there twice; None: they are, or soon will be."""
        self.failing_since = 0.0
        """Since when, by the monotonic clock."""

    async def list(self, password: Password) -> list[PasswordInfo]:
        """All passwords of the store, in order of their slots."""
        return await password_slots.list_passwords(self._objects, password, self._env, self._cost)

    async def change(self, old: Password, new: Password) -> None:
        """Replace the slot that `old` opens; data stays as it is."""
        await self._changed(
            lambda own: password_slots.change_password(self._objects, own[0], own[1], self._env, self._cost), old, new
        )

    async def add(self, password: Password, new: Password, label: str) -> None:
        """Let `new` open the store too."""
        await self._changed(
            lambda own: password_slots.add_password(self._objects, own[0], own[1], label, self._env, self._cost),
            password,
            new,
        )

    async def remove(self, password: Password, label: str) -> None:
        """The password under this label opens the store no more."""
        await self._changed(
            lambda own: password_slots.remove_password(self._objects, own[0], label, self._env, self._cost), password
        )

    def keep_twice(self) -> None:
        """From now on see to it that the keys are there twice: at once, and now and then."""
        self._again.set()
        if self._mending is None or self._mending.done():
            start = self._engine.background.start
            self._mending = start("copy of the keys", self._mend, on_failure=self._engine.fail)

    async def _mend(self) -> None:
        while True:
            self._again.clear()
            try:
                number = await mend_keys(self._objects.once(), self._engine.key, self._cost.memory_kib_min)
            except StorageError as error:
                self._failed(str(error))
                pause = MEND_PAUSE_SECONDS
            else:
                self.failing = None
                if number is not None:
                    # What nobody vouches for must not come to the manifest, which refuses all lower numbers.
                    self._engine.keys_are(number)
                pause = VERIFY_KEYS_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._again.wait()

    def _failed(self, reason: str) -> None:
        if self.failing is None:
            self.failing_since = self._env.monotonic()
        if self.failing != reason:
            _log.warning("keys_not_mended", extra={"error": reason})
        self.failing = reason

    async def show_key(self, password: Password) -> KeyInfo:
        """The data keys that these passwords hold."""
        return await key_rotation.show_key(self._objects, password, self._env, self._cost)

    async def rotate_key(self, password: Password, others: Sequence[Password], *, drop_others: bool) -> Rotated:
        """Draw the next data key: what was written is sealed anew under it by the writers from the next start on. This
        one goes on under the key that it has.
        """
        rotated: list[Rotated] = []

        async def rotate(own: Sequence[Password]) -> int:
            rotated.append(
                await key_rotation.rotate(
                    self._objects, own[0], own[1:], self._env, self._cost, drop_others=drop_others
                )
            )
            return rotated[0].number

        await self._changed(rotate, password, *others)
        return rotated[0]

    async def finish(self) -> None:
        """Return when every change under way has come to its end, or to that of the engine."""
        failed = self._engine.failed
        while self._changes and not failed.done():
            waited: set[asyncio.Future[Any]] = {*self._changes, failed}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        for task in self._changes:
            task.cancel()

    async def _changed(self, change: Change, *passwords: Password) -> None:
        """Unfinished: the change is in force, and the object from before could not be deleted."""
        self._engine.check_writer()
        # Cut short behind its create, it would leave what the old password opens until the next start. It has passwords
        # of its own: who goes away wipes its own, and zeros are not to become a password.
        task = asyncio.create_task(self._change(change, [Secret(each) for each in passwords]))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    async def _change(self, change: Change, own: Sequence[Secret]) -> None:
        """To its end. A crash in it leaves what `keys_change.succeed` says."""
        left = None
        try:
            number = await change(own)
        except OldKeysLeft as error:
            number, left = error.number, Unfinished(str(error))
        finally:
            for secret in own:
                secret.wipe()
        self._engine.keys_are(number)
        # From here on nobody can put the old object back unnoticed. A crash before it leaves the new slots valid.
        await self._engine.flush_memtable(always=True)
        self.keep_twice()  # the store may have taken no copy of them
        if left is not None:
            raise left
