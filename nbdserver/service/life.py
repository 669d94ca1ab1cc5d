"""The life of `nbdserver serve`, from the opening of the store to its closing.

It checks that it can listen, with --replace has its predecessor stop, opens the store, makes devices, listens, says so,
and waits for the first of:

- a signal: clients finish what is under way, the store is flushed and closed, status 0;
- the end of the command of --run: the same, with the command's status;
- the failure of the store: clients are dropped at once and without an answer, for they were promised nothing.

SIGHUP has it read certificates, access list and configuration again. A second signal of the others ends the process
where it stands, which costs what was not flushed, as a power cut would.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import TypeVar

import msgspec

from nbdserver.admin.client import find_reader, find_server
from nbdserver.admin.starting import starting
from nbdserver.attachments import Attachments
from nbdserver.config import STOP_SECONDS, ServeSettings
from nbdserver.journal_folder import journal_folder
from nbdserver.service import logs
from nbdserver.service.announce import Announcement
from nbdserver.service.condition import opening, waits_for
from nbdserver.service.last_server import attachments_after, tell
from nbdserver.service.predecessor import Predecessor, predecessor
from nbdserver.service.rehearsal import NOWHERE, rehearse
from nbdserver.service.rereading import Rereading
from nbdserver.service.serve_policy import ServePolicy
from nbdserver.service.served import OwnStore, Served
from nbdserver.service.service import ENDED_BY_SIGNAL, Service, admin_socket, price_list, scrub_seconds
from nbdserver.service.service_manager import ServiceManager
from nbdserver.service.tuning import give_back
from nbdserver.service.waiting import saying
from storage import EngineOptions, Opening, Store, StoreOptions, open_follower, open_store
from storage.env import Env
from storage.fs.early_unlock import EarlyUnlock
from storage.secret import Secret

logger = logging.getLogger("nbdserver")

Ready = Callable[[list[Announcement]], None]
T = TypeVar("T")


async def serve(
    settings: ServeSettings,
    rereading: Rereading,
    password: Secret,
    early: EarlyUnlock,
    env: Env,
    ready: Ready,
    say: Callable[[str], None],
) -> int:
    """Serve until the end; returns the exit status. The password is wiped once the store is open. `ready` is called
    once clients can connect; until then `say` tells who waits what for. What a stop waits for is logged. At SIGHUP
    `rereading` says what changed of the settings.
    Raises the StorageError for which it cannot start, or with which the store has failed.
    """
    asyncio.get_running_loop().set_exception_handler(logs.on_loop_error)
    stopped = _stopped_by_signals()
    manager = ServiceManager(os.environ)
    security = ServePolicy(settings, env)
    with contextlib.ExitStack() as held:
        old = _predecessor(held, settings)
        unique = env.random_bytes(4).hex()
        await rehearse(settings.tcp, settings.unix, unique, NOWHERE if old is None else old.held)
        if old is not None and not await _replace(old, early, stopped, say):
            return ENDED_BY_SIGNAL
    with starting(settings.store, os.environ) as started:

        def ready_now(announcements: list[Announcement]) -> None:
            started()
            ready(announcements)

        return await _open_and_serve(
            settings, rereading, password, early, env, security, stopped, ready_now, say, manager
        )


def _predecessor(held: contextlib.ExitStack, settings: ServeSettings) -> Predecessor | None:
    """Whose place it is to take: of its own kind, since one that only reads cannot do what the writer does."""
    if not settings.replace:
        return None
    find = find_reader if settings.read_only else find_server
    return held.enter_context(predecessor(find(settings.store, os.environ)))


async def _replace(old: Predecessor, early: EarlyUnlock, stopped: asyncio.Event, say: Callable[[str], None]) -> bool:
    """Have a predecessor stop once all is ready that needs no store; False if a signal came before it had ended."""

    async def stop() -> bool:
        await early.result()  # or it raises: a wrong password stops nobody
        await old.stop()
        return True

    async with saying(say, lambda waited: f"waiting for process {old.pid}, which is stopping, for {waited:.0f} s"):
        return await _unless(stopped, stop()) is not None


async def _open_and_serve(
    settings: ServeSettings,
    rereading: Rereading,
    password: Secret,
    early: EarlyUnlock,
    env: Env,
    security: ServePolicy,
    stopped: asyncio.Event,
    ready: Ready,
    say: Callable[[str], None],
    manager: ServiceManager,
) -> int:
    """`serve`, once everything is checked that does not need the store."""
    told = Opening()
    waits = partial(_waiting, manager)
    async with waits(say, "opening the store", lambda waited: opening(settings.store, told, waited)):
        with password:
            served = await _unless(stopped, _open(settings, password, early, env, told))
    if served is None:
        return ENDED_BY_SIGNAL
    await env.run("store", give_back)
    service: Service | None = None
    try:
        attachments = Attachments(None)
        if not settings.read_only:
            attachments = await attachments_after(served.newest, settings.after_loss)
        service = Service(served, settings, rereading, env, security, attachments, manager, stopped.set)
        try:
            async with waits(say, "making devices", lambda _: _waits_for(served.newest)):
                announcements = await service.start()
            ready(announcements)
            manager.ready(service.summary())
            tell(served.newest, attachments)
            async with manager.alive(service.summary):
                status = await service.until_the_end(stopped)
        except BaseException:
            await service.stop(grace_seconds=0)
            raise
        manager.stopping("clients end what is under way")
        async with waits(_say_stopping, "stopping", service.waits_for):
            await service.stop(grace_seconds=STOP_SECONDS)
        return status
    finally:
        try:
            async with waits(_say_stopping, "closing the store", lambda _: _waits_for(served.newest)):
                await served.close()
        finally:
            if service is not None:
                await service.end()


@contextlib.asynccontextmanager
async def _waiting(
    manager: ServiceManager, say: Callable[[str], None], usual: str, describe: Callable[[float], str]
) -> AsyncIterator[None]:
    """While the block runs, whoever waits is told what for: people, and the manager, who goes on waiting."""
    async with saying(say, describe), manager.waiting(usual, describe):
        yield


def _waits_for(store: Store) -> str:
    return waits_for(msgspec.to_builtins(store.status()))


def _say_stopping(sentence: str) -> None:
    logger.warning("stopping", extra={"waits_for": sentence})


async def _open(settings: ServeSettings, password: Secret, early: EarlyUnlock, env: Env, told: Opening) -> Served:
    cache = EngineOptions().cache_bytes if settings.cache_bytes is None else settings.cache_bytes
    options = StoreOptions(
        engine=EngineOptions(cache_bytes=cache),
        state_folder=settings.state_folder,
        journal_folder=None if settings.read_only else journal_folder(settings.journal, os.environ),
        admin_socket=admin_socket(settings),
        keep=settings.keep,
        scrub_seconds=scrub_seconds(settings),
        prices=price_list(settings),
        unlocked=early,
        opening=told,
    )
    if settings.read_only:
        return await open_follower(settings.store, password, env=env, options=options)
    store = await open_store(
        settings.store,
        password,
        env=env,
        create=settings.make_store,
        take_over=settings.take_over,
        accept_rollback=settings.accept_rollback,
        options=options,
    )
    return OwnStore(store)


def _stopped_by_signals() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process."""
    stopped = asyncio.Event()

    def on_signal() -> None:
        if stopped.is_set():
            os._exit(ENDED_BY_SIGNAL)
        stopped.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    # Until there is more to read again. A handler, since "ignored" would be inherited by the command of --run.
    loop.add_signal_handler(signal.SIGHUP, logs.reopen_files)
    return stopped


async def _unless(stopped: asyncio.Event, work: Coroutine[None, None, T]) -> T | None:
    """The result of `work`, or None if a signal came first."""
    task = asyncio.create_task(work)
    signalled = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait({task, signalled}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        signalled.cancel()
        await asyncio.wait({task, signalled})
