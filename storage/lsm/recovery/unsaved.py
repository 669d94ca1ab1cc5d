"""What this host could not keep of a store in its state folder: logged when it begins, tried again, and known until it
is kept.

A host that cannot remember is no reason to stop, since the store is well. But what was to be remembered will be missed
some day, so nobody may be left in the belief that it is there. Owned by the event loop.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Literal, TypeVar

from storage.cancel import when_ended
from storage.env import Env
from storage.errors import AccessDenied, OutOfSpace

State = Literal["anchor", "attached", "reads", "requests"]
T = TypeVar("T")

SAVE_AGAIN_SECONDS = 60.0

_KEPT_WORDS: dict[State, str] = {
    "anchor": "how far it has seen the store",
    "attached": "who is attached",
    "reads": "when what is stored was last read",
    "requests": "what it asked of the store this month",
}

_log = logging.getLogger("nbdserver")


class Unsaved:
    """What of one store could not be saved, or read again, when that was tried last, with the reasons."""

    def __init__(self) -> None:
        self._failed: dict[State, tuple[str, Callable[[], object]]] = {}
        self._turns: dict[State, asyncio.Lock] = {}

    async def attempt(self, env: Env, what: State, call: Callable[[], T]) -> T | None:
        """What `call` gives, which saves or loads `what`; it blocks, and is called in a thread. None where the state
        folder does not let that be, in which case it is tried again, unless something newer is.
        """
        async with self._turns.setdefault(what, asyncio.Lock()):  # so that the newest is what stands
            return await self._try(env, what, call)

    async def run(self, env: Env) -> None:
        """Try again what failed, for ever. A crash in here leaves what was kept before."""
        while True:
            await asyncio.sleep(SAVE_AGAIN_SECONDS)
            for what in list(self._failed):
                async with self._turns[what]:
                    if (failed := self._failed.get(what)) is not None:
                        await self._try(env, what, failed[1])

    async def _try(self, env: Env, what: State, call: Callable[[], T]) -> T | None:
        try:
            # To its end, also if this is cancelled: who comes next writes to the same files.
            result = await when_ended(env.run("store", call))
        except (OutOfSpace, AccessDenied) as error:
            if what not in self._failed:
                _log.warning("state_not_kept", extra={"state": _KEPT_WORDS[what], "error": str(error)})
            self._failed[what] = str(error), call
            return None
        if self._failed.pop(what, None) is not None:
            _log.warning("state_kept", extra={"state": _KEPT_WORDS[what]})
        return result

    def sentence(self) -> str | None:
        """All of it with the reason that was met first, for people; None: everything is kept."""
        if not self._failed:
            return None
        words = ", ".join(_KEPT_WORDS[each] for each in self._failed)
        return f"this host cannot keep {words}: {next(iter(self._failed.values()))[0]}"
