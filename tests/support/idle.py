"""The end of everything that a loop can do without the world: what has not happened then waits for a request, a timer
or the network, and does not happen by itself.
"""

import asyncio
from collections.abc import Callable

TURNS_MAX = 100_000
"""Far more than any test needs: what is not idle then goes round in circles."""


async def idle() -> None:
    """Return when the running loop has nothing left to do but to wait. AssertionError: it never has.

    Behind it a test may say both that something has happened, and that something has not. For tests without threads,
    on asyncio's own loop, which has no public word for it. uvloop, on which the server runs, keeps its queue where
    Python cannot see it, and what the server counts of its own work does not include the callbacks and tasks that are
    about to run: "not yet" would pass for "never". So what needs this runs on asyncio's loop with a wire in place of a
    network; all tests with real sockets run on uvloop, and so does the program in the tests of integration.
    """
    assert not await comes_true(lambda: False)


async def comes_true(condition: Callable[[], bool]) -> bool:
    """Return as soon as something is so: True; or when the running loop is idle: whether it is so then. The limits are
    those of `idle`.
    """
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    for _ in range(TURNS_MAX):
        if condition():
            return True
        await asyncio.sleep(0)
        if not ready:
            return condition()
    raise AssertionError(f"the loop is not idle after {TURNS_MAX} turns: something goes round in circles")


async def turns(count: int) -> None:
    """Let the loop turn so often, for a test that cuts into something at every step of it."""
    for _ in range(count):
        await asyncio.sleep(0)
