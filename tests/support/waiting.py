"""Waiting for what is to happen in the running loop, with a limit that only ends a test which would hang."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SECONDS_MAX = 20.0
PAUSE_SECONDS = 0.001


async def until(condition: Callable[[], bool], seconds: float = SECONDS_MAX) -> None:
    """Go on when `condition` holds. TimeoutError: it did not come to that."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(PAUSE_SECONDS)


async def soon(coroutine: "asyncio.Future[T] | asyncio.Task[T]", seconds: float = SECONDS_MAX) -> T:
    """The result of something that must not hang."""
    async with asyncio.timeout(seconds):
        return await asyncio.shield(coroutine)
