"""A check as it travels: lines of JSON that say how far it is, and at the end one with the report, or with what kept it
from an end.

    {"step": "data", "done": 1048576, "total": 4194304}
    {"report": {...}}  or  {"failure": {...}}
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from nbdserver.admin.error_transfer import Failure, from_error, to_error
from storage.errors import StorageError

if TYPE_CHECKING:
    from storage import CheckReport
    from storage.check.read_run import CheckProgress

TELL_SECONDS = 0.5
"""How often it is said how far a check is."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line; one of the last two stands in the last one."""

    step: str = ""
    done: int = 0
    total: int = 0
    report: dict[str, Any] | None = None
    failure: Failure | None = None

    def encode(self) -> bytes:
        """As it travels."""
        return msgspec.json.encode(self) + b"\n"


def decode(line: bytes) -> Line:
    """What `encode` gave. StorageError: the check did not come to its end. msgspec.MsgspecError: it is none."""
    found = msgspec.json.decode(line, type=Line)
    if found.failure is not None:
        raise to_error(found.failure)
    return found


async def watched(
    work: Awaitable[CheckReport], progress: CheckProgress, tell: Callable[[Line], Awaitable[None]]
) -> dict[str, Any]:
    """The report of a check that goes on meanwhile; `tell` is told how far it is. It ends with who waits."""
    import asyncio  # a command that only asks a server does without

    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=TELL_SECONDS)
            await tell(Line(progress.step, progress.done, progress.total))
        found: dict[str, Any] = msgspec.to_builtins(task.result())
        return found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def last_line(work: Awaitable[dict[str, Any]]) -> Line:
    """The line that ends a check."""
    try:
        return Line(report=await work)
    except StorageError as error:
        return Line(failure=from_error(error))
