"""Standing by: a process that waits beside the server of a store until its own turn has come, and says so meanwhile.

Nothing listens for clients, so that they are refused at once and go to the server that has the store. What needs no
store was checked before: certificates, the access list, whether it could listen. `storage.fs.succession` decides when
the turn has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from functools import partial

import msgspec

from nbdserver.admin.asked import Answer
from nbdserver.admin.client import find_server
from nbdserver.admin.metrics import CONTENT_TYPE
from nbdserver.admin.metrics_listener import MetricsListener
from nbdserver.admin.sockets import make_runtime_folder, runtime_folder, socket_path
from nbdserver.admin.standby_api import standby_admin
from nbdserver.admin.standby_metrics import StandbyMetrics
from nbdserver.config import ServeSettings
from nbdserver.listen_errors import in_use
from nbdserver.service.condition import standing_by
from nbdserver.service.launch import Launch
from nbdserver.service.predecessor import listening_of
from nbdserver.service.rehearsal import NOWHERE, Listening
from nbdserver.service.service_manager import ServiceManager
from storage.errors import Conflict, StorageError
from storage.fs.succession.standby import Standby, Turn

logger = logging.getLogger("nbdserver")

NEXT_TURN_SECONDS = 1.0
"""After a turn that was none, before it is waited for the next."""


def neighbours_place(settings: ServeSettings) -> Listening:
    """What the server of this store listens on if it is on this host: in use now, and free when it has ended."""
    with contextlib.suppress(StorageError):
        server = find_server(settings.store, os.environ)
        if server is not None:
            return listening_of(server.process())
    return NOWHERE


@contextlib.asynccontextmanager
async def answering(
    settings: ServeSettings, standby: Standby, launch: Launch, stop: Callable[[], None]
) -> AsyncIterator[None]:
    """While the block runs, commands of this host can ask this process, and end it by `stop`."""

    def status() -> Answer:
        return {"store": settings.store, "standby": msgspec.to_builtins(standby.status())}

    folder = runtime_folder(os.environ)
    make_runtime_folder(folder)
    process = partial(msgspec.to_builtins, launch)
    metrics = MetricsListener(StandbyMetrics(settings.store, standby.status).text, CONTENT_TYPE)
    admin = standby_admin(status, process, stop, metrics.answer)
    await admin.start(socket_path(folder, settings.store, role="standby"))
    try:
        if settings.metrics is not None:
            try:
                await metrics.listen(*settings.metrics)
            except Conflict as error:
                if not in_use(error):
                    raise
                # The server that has the store is on this host, with the same options.
                logger.warning("standby_without_metrics", extra={"error": str(error)})
        yield
    finally:
        await metrics.stop()
        await admin.stop()


async def next_turn(standby: Standby, manager: ServiceManager) -> Turn:
    """Wait for it; the service manager is told meanwhile how things are."""

    def describe() -> str:
        return standing_by(msgspec.to_builtins(standby.status()))

    logger.info("standing_by")
    async with manager.alive(describe):
        turn = await standby.wait()
    logger.warning("turn_has_come", extra={"why": turn.why, "epoch": turn.epoch, "silent_seconds": turn.silent_seconds})
    return turn


async def turn_was_none(error: StorageError) -> None:
    """Somebody else was quicker, or the store is away: say so, and wait a little."""
    logger.warning("turn_was_none", extra={"reason": str(error)})
    await asyncio.sleep(NEXT_TURN_SECONDS)
