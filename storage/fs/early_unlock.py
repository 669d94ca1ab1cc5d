"""The keys of a store, opened in a thread of their own while the rest of the program is still being loaded.

What a password costs (Argon2id, most of a second) needs a few modules and one small object of the store, and does not
hold the interpreter's lock. It is the same work as later, with a connection of its own, and writes nothing: a crash
changes nothing.
"""

import asyncio
from concurrent.futures import Future
from threading import Thread
from typing import Protocol

from storage.crypto import keys
from storage.crypto.data_key import DataKey
from storage.env import RealEnv
from storage.objects.health import Health
from storage.objects.locations import open_location
from storage.objects.retry import RetryingStore

OPEN_SECONDS_MAX = 30.0
"""How long opening asks a store that does not answer. Once open, a store is asked for ever."""


class Unlocked(Protocol):
    """The keys of a store, which come soon, or are here."""

    @property
    def health(self) -> Health:
        """Whether the store answers, as far as is known."""

    async def result(self) -> tuple[DataKey, int]:
        """What `keys.load` gives, or raises."""


class UnlockedBefore:
    """Keys that were opened while another server had the store. It may have changed passwords since, which the store
    says. A data key that it drew since is taken at the next start, as by every server that runs (decision 26); if a
    writer has taken it already, what that wrote is refused, as sealed under a key that this process does not have.
    """

    def __init__(self, location: str, unlocked: Unlocked, seconds: float) -> None:
        """`seconds`: how long a store that does not answer is asked."""
        self._location = location
        self._unlocked = unlocked
        self._seconds = seconds

    @property
    def health(self) -> Health:
        """Whether the store answers, as far as is known."""
        return self._unlocked.health

    async def result(self) -> tuple[DataKey, int]:
        """The key of the store, and the number of the keys object that is in force now."""
        key, number = await self._unlocked.result()
        env = RealEnv()
        store = RetryingStore(open_location(self._location, env), env, self._seconds)
        try:
            return key, await keys.vouched_number(store, key, number)
        finally:
            await store.close()
            env.close()


class EarlyUnlock:
    """One attempt, begun when it is made. Nobody has to wait for it: its thread ends with the process."""

    def __init__(
        self, location: str, password: bytes | bytearray, seconds: float, cost: keys.Cost = keys.DEFAULT_COST
    ) -> None:
        """The password must not be wiped before `result` has returned. `seconds`: how long a store that does not answer
        is asked. Invalid: no such kind of place."""
        env = RealEnv()
        # Here and not in the thread: its modules are imported by one thread at a time.
        store = RetryingStore(open_location(location, env), env, seconds)
        self._cost = cost
        self.health = store.health
        """Whether the store answers, as far as is known."""
        self._found: Future[tuple[DataKey, int]] = Future()
        self._found.set_running_or_notify_cancel()  # who gives up waiting does not take from the thread where to put it
        Thread(target=self._run, args=(store, password, env), name="keys", daemon=True).start()

    async def result(self) -> tuple[DataKey, int]:
        """What `keys.load` gives, or raises."""
        return await asyncio.wrap_future(self._found)

    def _run(self, store: RetryingStore, password: bytes | bytearray, env: RealEnv) -> None:
        async def load() -> tuple[DataKey, int]:
            try:
                return await keys.load(store, password, env, self._cost)
            finally:
                await store.close()

        try:
            self._found.set_result(asyncio.run(load()))
        except BaseException as error:
            self._found.set_exception(error)
        finally:
            env.close()
