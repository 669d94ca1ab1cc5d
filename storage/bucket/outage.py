"""Whether a store that refuses one object gives others, and how long to leave it alone when it gives nothing."""

import asyncio
from collections.abc import Awaitable, Callable

from storage.env import Env
from storage.errors import StorageError, Unavailable
from storage.objects.retry import MENDABLE

WITNESS_SECONDS_MAX = 10.0
"""How long the store may take to show that it gives other objects: a byte."""

OUTAGE_PAUSE_SECONDS_MIN = 0.1
OUTAGE_PAUSE_SECONDS_MAX = 10.0
"""Between two rounds of tries of a store that is away, doubling."""

REFUSALS = (Unavailable, *MENDABLE)
"""What may pass by itself or be mended: everything else is an answer."""


class Outage:
    """What the reads of one store tell of it. Owned by the event loop."""

    def __init__(self, witness: Callable[[], Awaitable[object]], env: Env) -> None:
        """`witness` asks the store, once, for a byte of an object that is there."""
        self._witness = witness
        self._env = env
        self._asking = asyncio.Lock()
        self._gave_at = float("-inf")
        """When the store last gave anything."""
        self._silent_at = float("-inf")
        """When it was last asked for a witness, and gave none."""
        self._pause = 0.0
        self.until = float("-inf")
        """Nothing is to be asked before (`Env.monotonic`)."""

    def gave(self) -> None:
        """The store gave an object."""
        self._gave_at = self._env.monotonic()
        self._pause, self.until = 0.0, float("-inf")

    async def gives_others(self, since: float) -> bool:
        """Whether the store gave anything since then; if nobody asked, it is asked."""
        async with self._asking:
            if self._gave_at >= since:
                return True
            if self._silent_at >= since:
                return False
            began = self._env.monotonic()
            try:
                async with asyncio.timeout(WITNESS_SECONDS_MAX):
                    await self._witness()
            except (*REFUSALS, TimeoutError):
                if self._gave_at >= since:
                    return True  # meanwhile: then it is the witness that is withheld
                self._silent_at = began
                return False
            except StorageError:
                pass  # an answer all the same
            self._gave_at = self._env.monotonic()
            return True

    def goes_on(self, error: StorageError) -> None:
        """The store gave nothing: leave it alone for a while, longer each time, and as long as it asks for."""
        now = self._env.monotonic()
        if now >= self.until:
            self._pause = min(max(self._pause * 2, OUTAGE_PAUSE_SECONDS_MIN), OUTAGE_PAUSE_SECONDS_MAX)
            asked = error.retry_after or 0.0 if isinstance(error, Unavailable) else 0.0
            self.until = now + max(self._pause * self._env.jitter(), min(asked, OUTAGE_PAUSE_SECONDS_MAX))
