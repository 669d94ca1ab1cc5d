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

FOLDER_SECONDS = 10.0
"""A state folder that does not answer for so long is waited for no longer: flushes and clients wait behind it."""

SILENT = f"the state folder has not answered for {FOLDER_SECONDS:g} s"

_KEPT_WORDS: dict[State, str] = {
    "anchor": "how far it has seen the store",
    "attached": "who is attached",
    "reads": "when what is stored was last read",
    "requests": "what it asked of the store this month",
}

_log = logging.getLogger("nbdserver")


class Unsaved:
    """What of one store could not be saved, or read again, when that was tried last, with the reasons.

    A folder that does not answer is waited for as little as one that has no room. But a thread cannot be ended: its
    call goes on, nothing else of the same kind is called before its end, and until then nothing of it counts as kept.
    """

    def __init__(self) -> None:
        self._failed: dict[State, str] = {}
        self._newest: dict[State, Callable[[], object]] = {}
        """What was to be called last: what is tried again, since a call that ends late is older than it."""
        self._turns: dict[State, asyncio.Lock] = {}
        self._late: dict[State, asyncio.Task[object]] = {}
        """Calls that nobody waits for any more."""

    async def attempt(self, env: Env, what: State, call: Callable[[], T]) -> T | None:
        """What `call` gives, which saves `what`; it blocks, and is called in a thread. None where the state folder does
        not let that be, or does not answer, in which case it is tried again, unless something newer is.
        """
        self._newest[what] = call
        if self._is_late(what):
            return None  # it is said already
        until = asyncio.get_running_loop().time() + FOLDER_SECONDS
        turn = self._turn(what)
        try:
            async with asyncio.timeout_at(until):
                await turn.acquire()  # so that the newest is what stands
        except TimeoutError:
            self._not_kept(what, SILENT)
            return None
        running = asyncio.ensure_future(self._try(env, what, call))
        running.add_done_callback(lambda _: turn.release())
        gave_up = await _wait(running, until)
        if not running.done():
            self._late[what] = running
            self._not_kept(what, SILENT)
        if gave_up is not None:
            raise gave_up
        return running.result() if running.done() else None

    async def load(self, env: Env, what: State, call: Callable[[], T]) -> T | None:
        """What `call` gives, which loads `what`, like `attempt`, but however long it takes: whoever took it for nothing
        would save that over what is there.
        """
        self._newest[what] = call
        async with self._turn(what):
            return await when_ended(self._try(env, what, call))

    async def run(self, env: Env) -> None:
        """Try again what failed, for ever. A crash in here leaves what was kept before."""
        while True:
            await asyncio.sleep(SAVE_AGAIN_SECONDS)
            for what in list(self._failed):
                if what in self._failed and not self._turn(what).locked():  # else somebody tries it now
                    await self.attempt(env, what, self._newest[what])

    def _turn(self, what: State) -> asyncio.Lock:
        return self._turns.setdefault(what, asyncio.Lock())

    def _is_late(self, what: State) -> bool:
        """Whether a call still goes on that nobody waits for. What nobody tolerates of one that ended is raised."""
        late = self._late.get(what)
        if late is None or not late.done():
            return late is not None
        del self._late[what]
        late.result()
        return False

    async def _try(self, env: Env, what: State, call: Callable[[], T]) -> T | None:
        try:
            result = await env.run("store", call)
        except (OutOfSpace, AccessDenied) as error:
            self._not_kept(what, str(error))
            return None
        if call is self._newest[what] and self._failed.pop(what, None) is not None:
            _log.warning("state_kept", extra={"state": _KEPT_WORDS[what]})
        return result

    def _not_kept(self, what: State, reason: str) -> None:
        if what not in self._failed:
            _log.warning("state_not_kept", extra={"state": _KEPT_WORDS[what], "error": reason})
        self._failed[what] = reason

    def sentence(self) -> str | None:
        """All of it with the reason that was met first, for people; None: everything is kept."""
        if not self._failed:
            return None
        words = ", ".join(_KEPT_WORDS[each] for each in self._failed)
        return f"this host cannot keep {words}: {next(iter(self._failed.values()))}"


async def _wait(running: asyncio.Task[T], until: float) -> asyncio.CancelledError | None:
    """Wait for its end, but no longer than `until`. Who gives up meanwhile waits all the same, since what comes next
    may look at the same files; gives how.
    """
    gave_up: asyncio.CancelledError | None = None
    while not running.done() and (left := until - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.wait({running}, timeout=left)
        except asyncio.CancelledError as error:
            gave_up = error
    if gave_up is not None and running.done() and not running.cancelled():
        running.exception()  # nobody asks for it any more
    return gave_up
