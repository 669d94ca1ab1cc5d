"""A command's way to a store: through the server that runs on it here, or by opening it."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nbdserver.cli.shared import passwords
from nbdserver.cli.shared.parameters import Place
from nbdserver.cli.shared.reminding import reminding
from nbdserver.cli.shared.standard import complain

if TYPE_CHECKING:
    from nbdserver.admin.asked import Answer
    from nbdserver.admin.checking import Line
    from nbdserver.admin.client import AdminClient
    from nbdserver.admin.operations import Operation
    from storage import CheckOptions, Store, StoreOptions
    from storage.env import Env
    from storage.objects.retry import RetryingStore
    from storage.secret import Secret

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""How long a command goes on asking a store that does not answer.

A server does for ever, but a person waits here.
"""


def perform(place: Place, operation: Operation, *, password: Secret | None = None, shows_view: bool = False) -> Answer:
    """Have an operation carried out on a store, served or at rest. Raises what the operation raises. One that follows
    the store's writer is asked for what changes nothing, where that writer is not on this host; how old its view is, a
    person is told here unless the command `shows_view` itself.

    The password is looked for only where it is needed, unless the command has it already.
    """
    from nbdserver.admin.client import find_reader, find_server
    from nbdserver.service.condition import view

    server = find_server(place.store, os.environ)
    if server is None and not operation.writes:
        server = find_reader(place.store, os.environ)
    if server is not None:
        with reminding(server):
            answer = server.perform(operation)
        if not shows_view and "view" in answer and sys.stderr.isatty():
            complain(f"a view {view(answer['view'])}")
        return answer
    return at_rest(place, operation.perform, writes=operation.writes, password=password)


@dataclass(frozen=True, slots=True)
class Way:
    """The way to a store: through `server`, or where that is None by opening it, with `password` unless that is to be
    looked for."""

    place: Place
    server: AdminClient | None
    password: Secret | None = None


def way_to(place: Place) -> Way:
    """As things are now. AccessDenied, Unavailable: there is a server, and it cannot be asked."""
    from nbdserver.admin.client import find_server

    return Way(place, find_server(place.store, os.environ))


def perform_in_turn(
    way: Way, asked: Generator[Operation, Answer, T], *, writes: bool, shows_progress: bool = False
) -> T:
    """Have operations carried out one after the other, each chosen by the answer to the one before, on a store that is
    served, or that is opened once for all of them. Gives what the generator returns. Raises what an operation raises.
    """
    if way.server is not None:
        with reminding(way.server, shows_progress=shows_progress):
            try:
                operation = next(asked)
                while True:
                    operation = asked.send(way.server.perform(operation))
            except StopIteration as end:
                result: T = end.value
                return result

    async def work(store: Store) -> T:
        try:
            operation = next(asked)
            while True:
                operation = asked.send(await operation.perform(store))
        except StopIteration as end:
            result: T = end.value
            return result

    return at_rest(way.place, work, writes=writes, password=way.password, shows_progress=shows_progress)


def at_rest(
    place: Place,
    work: Callable[[Store], Awaitable[T]],
    *,
    writes: bool,
    password: Secret | None = None,
    shows_progress: bool = False,
    damaged: bool = False,
) -> T:
    """Open a store, do something with it and close it: as its writer, or (not `writes`) as a reader, also of one where
    data is missing (`damaged`).

    If the store fails meanwhile, its error is raised, also where the work would have waited for ever. What is waited
    for is said, unless the work `shows_progress` itself and the store is well.
    """
    from storage.fs.early_unlock import OPEN_SECONDS_MAX, EarlyUnlock

    secret = passwords.current(os.environ).secret if password is None else password
    # All else is loaded while that is at work: half of what a command takes.
    early = None if damaged else EarlyUnlock(place.store, secret, OPEN_SECONDS_MAX)
    from storage import open_damaged, open_reader, open_store

    options = dataclasses.replace(_options(place), unlocked=early)

    async def opened(env: Env) -> Store:
        if writes:
            store = await open_store(place.store, secret, env=env, options=options)
            if store.opening.problem is not None:
                complain(store.opening.problem)
            return store
        if damaged:
            return await open_damaged(place.store, secret, env=env, options=options)
        return await open_reader(place.store, secret, env=env, options=options)

    try:
        return _run(opened, work, options, place.store, shows_progress=shows_progress)
    finally:
        secret.wipe()


def _options(place: Place) -> StoreOptions:
    """How a command opens a store. As its writer it does again what a killed server has left in its journal."""
    from nbdserver.journal_folder import journal_folder
    from storage import StoreOptions

    folder = journal_folder(place.journal, os.environ)
    return StoreOptions(state_folder=place.state_folder, journal_folder=folder, patience_seconds=PATIENCE_SECONDS)


def make_store(place: Place, password: Secret, work: Callable[[Store], Awaitable[T]], *, accept_rollback: bool) -> T:
    """Make a store, do something with it and close it. `Store.created` tells if it was there already."""
    from storage import open_store

    options = _options(place)

    def opened(env: Env) -> Awaitable[Store]:
        return open_store(place.store, password, env=env, create=True, accept_rollback=accept_rollback, options=options)

    return _run(opened, work, options, place.store)


def adopt_copy(place: Place, password: Secret, work: Callable[[Store], Awaitable[T]], *, take_over: bool) -> T:
    """Make the copy of a store a store of its own, do something with it and close it. `take_over`: somebody has said
    that it is a copy, though it looks like a store that runs elsewhere."""
    from storage import open_store

    options = _options(place)

    def opened(env: Env) -> Awaitable[Store]:
        return open_store(place.store, password, env=env, adopt=True, take_over=take_over, options=options)

    return _run(opened, work, options, place.store)


def without_opening(place: Place, check: CheckOptions, tell: Callable[[Line], None]) -> dict[str, Any]:
    """Check a store at rest, which may be one that does not open; `tell` is told how far that is. Its report."""
    import asyncio

    from nbdserver.admin.checking import watched
    from nbdserver.service.condition import opening
    from nbdserver.service.waiting import saying
    from storage import StoreOptions, check_store
    from storage.check.read_run import CheckProgress
    from storage.env import RealEnv

    options = StoreOptions(state_folder=place.state_folder)
    secret = passwords.current(os.environ).secret

    async def run() -> dict[str, Any]:
        env, progress = RealEnv(), CheckProgress()

        async def told(line: Line) -> None:
            tell(line)

        def waits(waited: float) -> str:
            return "" if progress.total else opening(place.store, options.opening, waited)

        try:
            async with saying(complain, waits):
                work = check_store(place.store, secret, env=env, check=check, progress=progress, options=options)
                return await watched(work, progress, told)
        finally:
            env.close()

    try:
        return asyncio.run(run())
    finally:
        secret.wipe()


def is_there(location: str) -> bool:
    """Whether there are keys at a place, or their copy, and so a store. Unavailable: it does not answer."""
    from storage.crypto.keys import KEYS_PREFIX
    from storage.crypto.spare_keys import copies

    async def ask(objects: RetryingStore, _: Env) -> bool:
        return bool(await objects.list(KEYS_PREFIX, "", 1) or await copies(objects))

    return without_keys(location, "its keys", ask)


def without_keys(location: str, step: str, work: Callable[[RetryingStore, Env], Awaitable[T]]) -> T:
    """Do something with the objects at a place; while that does not answer, it is said that `step` is waited for."""
    import asyncio

    from nbdserver.service.condition import opening
    from nbdserver.service.waiting import saying
    from storage import Opening
    from storage.env import RealEnv
    from storage.objects.locations import open_location
    from storage.objects.retry import RetryingStore

    async def run() -> T:
        env = RealEnv()
        objects = RetryingStore(open_location(location, env), env, PATIENCE_SECONDS)
        told = Opening(step, objects.health)

        def waits(waited: float) -> str:
            return opening(location, told, waited) if objects.health.failing is not None else ""

        try:
            async with saying(complain, waits):
                return await work(objects, env)
        finally:
            await objects.close()
            env.close()

    return asyncio.run(run())


def _run(
    opened: Callable[[Env], Awaitable[Store]],
    work: Callable[[Store], Awaitable[T]],
    options: StoreOptions,
    where: str,
    *,
    shows_progress: bool = False,
) -> T:
    import asyncio

    import msgspec

    from nbdserver.service import logs
    from nbdserver.service.condition import opening, waits_for
    from nbdserver.service.waiting import saying
    from storage.env import RealEnv

    async def run() -> T:
        asyncio.get_running_loop().set_exception_handler(logs.on_loop_error)
        env = RealEnv()
        try:
            async with saying(complain, lambda waited: opening(where, options.opening, waited)):
                store = await opened(env)

            def waits(_: float) -> str:
                status = store.status()
                if shows_progress and status.failing is None and not status.closing:
                    return ""
                return waits_for(msgspec.to_builtins(status))

            async with saying(complain, waits):
                try:
                    return await until_failed(store, work(store))
                finally:
                    await store.close()
        finally:
            env.close()

    return asyncio.run(run())


async def until_failed(store: Store, work: Awaitable[T]) -> T:
    """The result of `work`, or the error the store fails with before that."""
    import asyncio

    task = asyncio.ensure_future(work)
    try:
        either: set[asyncio.Future[Any]] = {task, store.failed}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise store.failed.result()
    finally:
        # What is cut short undoes what it began, on a store that is still open.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
