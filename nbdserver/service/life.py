"""The life of `nbdserver serve`, from the opening of the store to its closing.

It checks that it can listen, with --replace has its predecessor stop, with --standby waits for its turn, opens the
store, makes devices, listens, says so, and waits for the first of:

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
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from nbdserver.admin.client import find_reader, find_server, find_standby
from nbdserver.admin.starting import starting
from nbdserver.attachments import Attachments
from nbdserver.config import STOP_SECONDS, ServeSettings
from nbdserver.journal_folder import journal_folder
from nbdserver.service import logs
from nbdserver.service.announce import Announcement
from nbdserver.service.condition import opening, waits_for
from nbdserver.service.ending import ENDED_BY_SIGNAL, EndOfService, end_by_signals, unless
from nbdserver.service.last_server import attachments_after, tell
from nbdserver.service.launch import Launch, launch
from nbdserver.service.predecessor import Ahead, Predecessor, give_way, predecessor
from nbdserver.service.rehearsal import NOWHERE, rehearse
from nbdserver.service.rereading import Rereading
from nbdserver.service.serve_policy import ServePolicy
from nbdserver.service.served import OwnStore, Served
from nbdserver.service.service import Service, admin_socket, price_list, scrub_seconds
from nbdserver.service.service_manager import ServiceManager
from nbdserver.service.standing_by import answering, neighbours_place, next_turn, turn_was_none
from nbdserver.service.tuning import give_back
from nbdserver.service.waiting import saying
from storage import EngineOptions, Opening, Store, StoreOptions, open_follower, open_standby, open_store
from storage.env import Env
from storage.errors import Fenced, Unavailable
from storage.format.sign import Word
from storage.fs.early_unlock import EarlyUnlock, Unlocked
from storage.fs.store_options import LastLook, no_look
from storage.lsm.recovery.view import ViewAhead
from storage.secret import Secret

logger = logging.getLogger("nbdserver")

Ready = Callable[[list[Announcement] | None], None]


@dataclass(frozen=True, slots=True)
class _Start:
    """What every step of a start needs; see `serve`."""

    settings: ServeSettings
    rereading: Rereading
    env: Env
    security: ServePolicy
    ending: EndOfService
    ready: Ready
    say: Callable[[str], None]
    manager: ServiceManager
    launch: Launch
    """How this process was started, known before it goes to the background."""
    journal: Path | None
    starts: contextlib.ExitStack
    """What is to be given up once clients can connect."""
    ahead: ViewAhead | None
    """What was read of the store while the predecessor had it."""

    def tell(self, announcements: list[Announcement] | None) -> None:
        """`ready`, to who may have been interrupted: the end of this process too, but not once others have given way to
        it, since nobody would serve then.
        """
        try:
            self.ready(announcements)
        except BrokenPipeError:
            if not self.settings.replace:
                self.ending.stopped.set()

    def waits(self, usual: str, describe: Callable[[float], str]) -> AbstractAsyncContextManager[None]:
        """While the block runs, whoever waits for the start is told what for."""
        return _waiting(self.manager, self.say, usual, describe)


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
    once clients can connect, and before that with None once this process stands by; until then `say` tells who waits
    what for. What a stop waits for is logged. At SIGHUP `rereading` says what changed of the settings.
    Raises the StorageError for which it cannot start, or with which the store has failed.
    """
    asyncio.get_running_loop().set_exception_handler(logs.on_loop_error)
    ending = EndOfService()
    end_by_signals(ending.stopped)
    manager = ServiceManager(os.environ)
    started = launch(settings, os.environ, managed=manager.present)
    journal = None if settings.read_only else journal_folder(settings.journal, os.environ)
    security = ServePolicy(settings, env)
    with contextlib.ExitStack() as held:
        old = _predecessor(held, settings)
        beside = neighbours_place(settings) if settings.standby else NOWHERE
        unique = env.random_bytes(4).hex()
        await rehearse(settings, unique, beside if old is None else old.held.and_of(beside))
        ahead: Ahead | None = Ahead(early, None)
        if old is not None:
            ahead = await _replace(old, settings, early, env, ending.stopped, say)
        if ahead is None:
            return ENDED_BY_SIGNAL
    with contextlib.ExitStack() as starts:
        start = _Start(
            settings, rereading, env, security, ending, ready, say, manager, started, journal, starts, ahead.view
        )
        if settings.standby:
            return await _stand_by_and_serve(start, password, ahead.unlocked, at_once=old is not None and not old.kind)
        served = await _open_told(start, password, ahead.unlocked, take_over=settings.take_over)
        return ENDED_BY_SIGNAL if served is None else await _serve(start, served)


async def _stand_by_and_serve(start: _Start, password: Secret, early: Unlocked, *, at_once: bool) -> int:
    """Wait for our turn, and serve from then on; `at_once`: the first one has come. As long as it turns out not to have
    come, wait for the next."""
    settings, ending = start.settings, start.ending
    served: Served | None = None
    with password:
        standby = await unless(
            ending.stopped, open_standby(settings.store, early, env=start.env, options=StoreOptions(**_host(settings)))
        )
    if standby is None:
        return ENDED_BY_SIGNAL
    try:
        async with answering(settings, standby, start.launch, ending.stop):
            while served is None:
                force: bool | bytes = False
                if not at_once:
                    start.tell(None)
                    start.manager.ready("stands by")
                    turn = await unless(ending.stopped, next_turn(standby, start.manager))
                    if turn is None:
                        return 0
                    force = turn.tag or False
                at_once = False
                try:
                    last_look = standby.still_due if force else no_look
                    served = await _open_told(start, password, standby, take_over=force, last_look=last_look)
                except (Fenced, Unavailable) as error:
                    start.starts.close()
                    await unless(ending.stopped, turn_was_none(error))
                    continue
                if served is None:
                    return ENDED_BY_SIGNAL
    finally:
        await standby.close()
    start.security.reload()  # certificates of when it began may have run out
    return await _serve(start, served)


def _predecessor(held: contextlib.ExitStack, settings: ServeSettings) -> Predecessor | None:
    """Whose place it is to take: of its own kind, since one that only reads cannot do what the writer does. One that
    is to stand by takes that of the writer, or where that is elsewhere of one that stands by."""
    if not settings.replace:
        return None
    kinds = [find_reader] if settings.read_only else [find_server, *([find_standby] if settings.standby else [])]
    return held.enter_context(predecessor([partial(find, settings.store, os.environ) for find in kinds]))


async def _replace(
    old: Predecessor,
    settings: ServeSettings,
    early: EarlyUnlock,
    env: Env,
    stopped: asyncio.Event,
    say: Callable[[str], None],
) -> Ahead | None:
    """Have a predecessor stop once all is ready that needs no store, or its writer to have closed it. None: a signal
    came before it had ended."""
    async with saying(say, old.waiting):
        return await unless(stopped, give_way(old, settings, early, env))


async def _open_told(
    start: _Start, password: Secret, early: Unlocked, *, take_over: bool | bytes, last_look: LastLook = no_look
) -> Served | None:
    """Open the store, while commands of this host are told that this process starts; None: a signal came first."""
    settings, told = start.settings, Opening()
    start.starts.enter_context(starting(settings.store, os.environ))
    async with start.waits("opening the store", lambda waited: opening(settings.store, told, waited)):
        with password:
            work = _open(start, password, early, told, take_over=take_over, last_look=last_look)
            try:
                return await unless(start.ending.stopped, work)
            finally:
                if start.ahead is not None:
                    start.ahead.drop()


async def _serve(start: _Start, served: Served) -> int:
    """`serve`, once the store is open."""
    settings, manager, ending = start.settings, start.manager, start.ending
    await start.env.run("store", give_back)
    service: Service | None = None
    stops = partial(_waiting, manager, _say_stopping)
    try:
        attachments = Attachments(None)
        if not settings.read_only:
            attachments = await attachments_after(served.newest, settings.after_loss)
        service = Service(
            served,
            settings,
            start.rereading,
            start.env,
            start.security,
            attachments,
            start.launch,
            manager,
            ending.stop,
        )
        try:
            async with start.waits("making devices", lambda _: _waits_for(served.newest)):
                announcements = await service.start()
            start.starts.close()
            start.tell(announcements)
            manager.ready(service.summary())
            tell(served.newest, attachments)
            async with manager.alive(service.summary):
                status = await service.until_the_end(ending.stopped)
        except BaseException:
            await service.stop(grace_seconds=0)
            raise
        manager.stopping("clients end what is under way")
        saying = asyncio.create_task(_say_how_it_ends(served, ending))
        async with stops("stopping", service.waits_for):
            await service.stop(grace_seconds=STOP_SECONDS)
        await saying
        return status
    finally:
        try:
            async with stops("closing the store", lambda _: _waits_for(served.newest)):
                await served.close()
        finally:
            if service is not None:
                await service.end()


async def _say_how_it_ends(served: Served, ending: EndOfService) -> None:
    """Who stands by elsewhere is told whether to come, or to leave the store to our successor on this host."""
    if served.newest.signs is not None and not served.failed.done():
        await served.newest.signs.say(Word.COMES_BACK if ending.replaced else Word.HANDS_OVER)


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


def _host(settings: ServeSettings) -> dict[str, Any]:
    """Where things lie on this host, for `StoreOptions`."""
    return {"state_folder": settings.state_folder, "admin_socket": admin_socket(settings)}


async def _open(
    start: _Start,
    password: Secret,
    early: Unlocked,
    told: Opening,
    *,
    take_over: bool | bytes,
    last_look: LastLook,
) -> Served:
    settings, env = start.settings, start.env
    cache = EngineOptions().cache_bytes if settings.cache_bytes is None else settings.cache_bytes
    options = StoreOptions(
        **_host(settings),
        engine=EngineOptions(cache_bytes=cache),
        journal_folder=start.journal,
        keep=settings.keep,
        scrub_seconds=scrub_seconds(settings),
        signs=settings.standby,
        tried=settings.standby,
        last_look=last_look,
        prices=price_list(settings),
        request_budget=settings.request_budget,
        unlocked=early,
        ahead=start.ahead,
        opening=told,
    )
    if settings.read_only:
        return await open_follower(settings.store, password, env=env, options=options)
    store = await open_store(
        settings.store,
        password,
        env=env,
        create=settings.make_store,
        take_over=take_over,
        accept_rollback=settings.accept_rollback,
        options=options,
    )
    return OwnStore(store)
