"""The predecessor: a server of this host whose place a new one takes.

The new server gets ready first: its modules are loaded, its password is right, it could listen. Only then the
predecessor is asked to flush, beside its clients, and then to stop. The store is opened when it says that it has let go
of everything, or when its process has ended. So the store has one writer at any time, and whatever keeps the new server
from starting shows while the old one still serves.

What a crash leaves: of the new server before it asks for the stop, the old one, which serves, and has flushed early; of
either after that, a store that is at rest or was not closed, as ever. The old one gives its word behind all that it
does to the store and on this host: one that dies in front of that gives none, and its end is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from nbdserver.admin.asked import Answer
from nbdserver.admin.client import AdminClient
from nbdserver.admin.operations import ListDevices
from nbdserver.config import ServeSettings
from nbdserver.service.rehearsal import Listening, check_devices
from storage import StoreOptions, view_ahead
from storage.env import Env
from storage.errors import AccessDenied, StorageError, Unavailable
from storage.fs.early_unlock import OPEN_SECONDS_MAX, EarlyUnlock, Unlocked, UnlockedBefore
from storage.lsm.recovery.view import ViewAhead

Find = Callable[[], AdminClient | None]
"""Looks for a server of one kind: one that writes, one that reads, or one that stands by."""

_log = logging.getLogger("nbdserver")

ASKED_TIMES = 3
"""To stop. Each time it has its own seconds to answer, if anybody listens."""

ENDING_SECONDS = 5.0
"""How long a process that answers nobody may be about to end, each time."""


class Predecessor:
    """A running server, held by a descriptor of its process, so that no other process is ever meant."""

    def __init__(self, find: Sequence[Find], kind: int, pid: int, held: Listening, descriptor: int) -> None:
        """`find` all kinds that it may be, the one that it is now at `kind`."""
        self.pid = pid
        self._find = find
        self._descriptor = descriptor
        self.kind = kind
        """As `find` has them; one that stood by may be the writer by the time that it is asked to stop."""
        self.held = held
        """What it listens on, and its successor will."""

    async def flush_ahead(self) -> None:
        """Have it flush, while it serves, what it would have to flush when it stops. If it cannot, its stop does."""
        with contextlib.suppress(StorageError):
            server = None if is_halted(self.pid) else await asyncio.to_thread(self._server)
            if server is not None:
                done = asyncio.Event()
                _in_thread(server.flush_ahead, done, always=True)
                await done.wait()

    async def devices(self) -> dict[str, int] | None:
        """The devices that there are, with their sizes in bytes. None: it does not say, or stands by and has none."""
        with contextlib.suppress(StorageError):
            server = None if is_halted(self.pid) else await asyncio.to_thread(self._server)
            if server is not None and self.kind == 0:
                listed = await asyncio.to_thread(server.perform, ListDevices())
                return {device["name"]: device["size"] for device in listed["devices"]}
        return None

    async def stop(self) -> None:
        """Ask it to stop, and return when it has let go of everything, which takes as long as its store does, or has
        ended: to give back its memory takes it longer. Unavailable: it cannot be asked, or does not answer.

        Not by a signal: the second one that a server gets ends it where it stands, and somebody may have sent one.
        """
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._descriptor, ended.set)
        try:
            if (word := await self._ask(ended)) is not None:
                _in_thread(word, ended, always=False)
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)

    async def _ask(self, ended: asyncio.Event) -> Callable[[], None] | None:
        """Until it has answered, or ended before that; gives what waits for its word (see `AdminClient.stop`)."""
        reason = "nobody listens for it"
        for _ in range(ASKED_TIMES):
            if is_halted(self.pid):
                # Nor may it find the question when it goes on: by then nobody waits to take its place.
                raise Unavailable(
                    f"the server of this store (process {self.pid}) is halted by a signal, and was not asked to stop: "
                    f"let it go on (kill -CONT {self.pid}) and try again, or end it (kill -KILL {self.pid}), which "
                    "costs what it has not flushed"
                )
            try:
                if (server := await asyncio.to_thread(self._server)) is not None:
                    return await asyncio.to_thread(server.stop)
            except StorageError as error:  # it may end before it has answered
                reason = str(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ENDING_SECONDS):
                    await ended.wait()
                    return None
        raise Unavailable(
            f"the server of this store (process {self.pid}) was asked to stop and has neither answered nor ended "
            f"({reason}): its log may say why; if it stops yet, start a server then, and if it hangs, end it "
            f"(kill -KILL {self.pid}), which costs what it has not flushed"
        )

    def _server(self) -> AdminClient | None:
        """Where this process can be asked now. Unavailable: it does not answer."""
        for kind in sorted(range(len(self._find)), key=lambda kind: kind != self.kind):
            server = self._find[kind]()
            if server is not None and server.process()["pid"] == self.pid:
                self.kind = kind
                return server
        return None

    def waiting(self, seconds: float) -> str:
        """What its successor waits for, for so long already."""
        if is_halted(self.pid):
            return (
                f"waiting for process {self.pid}, which is halted by a signal and cannot end, for {seconds:.0f} s: "
                f"let it go on (kill -CONT {self.pid})"
            )
        return f"waiting for process {self.pid}, which is stopping, for {seconds:.0f} s"


@dataclass(frozen=True, slots=True)
class Ahead:
    """What was read of a store while a predecessor had it."""

    unlocked: Unlocked
    view: ViewAhead | None


async def give_way(old: Predecessor, settings: ServeSettings, early: EarlyUnlock, env: Env) -> Ahead:
    """Have a predecessor give way once all is ready that needs no store, or its writer to have closed it. Any
    StorageError of the password, or of the devices that are wanted, which stops nobody.
    """
    await early.result()
    # Of one that only reads the view may be older than what is asked for.
    if not settings.read_only and (devices := await old.devices()) is not None:
        check_devices(settings, devices)
    await old.flush_ahead()
    view = None
    if not settings.read_only and not old.kind:
        view = await view_ahead(settings.store, early, env=env, options=StoreOptions())
    await old.stop()
    return Ahead(UnlockedBefore(settings.store, early, OPEN_SECONDS_MAX), view)


def _in_thread(work: Callable[[], None], done: asyncio.Event, *, always: bool) -> None:
    """In one that keeps no process from ending. `done` is set when it is, and with `always` when it fails."""
    loop = asyncio.get_running_loop()

    def run() -> None:
        over = always
        try:
            work()
            over = True
        except StorageError:
            pass
        except Exception as error:  # nobody foresaw it, and nobody is to wait for ever for it
            _log.warning("predecessor_not_understood", extra={"error": f"{type(error).__name__}: {error}"})
        if over:
            with contextlib.suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(done.set)

    Thread(target=run, name="predecessor", daemon=True).start()


@contextlib.contextmanager
def predecessor(find: Sequence[Find]) -> Iterator[Predecessor | None]:
    """The process of a server of this host, if there is one: of the first kind of which there is. AccessDenied: it is
    another user's. Unavailable: it does not answer, or cannot be seen as a process from here."""
    found = ((kind, server) for kind, each in enumerate(find) if (server := each()) is not None)
    kind, server = next(found, (0, None))
    if server is None:
        yield None
        return
    about = server.process()
    pid, uid = about["pid"], about["uid"]
    if uid != os.geteuid():
        raise AccessDenied(f"the server of this store is process {pid} of user {uid}: take its place as that user")
    try:
        descriptor = os.pidfd_open(pid)
    except OSError as error:
        raise Unavailable(
            f"the server of this store cannot be seen from here as a process ({error.strerror})"
        ) from error
    try:
        if server.process()["pid"] != pid:
            raise Unavailable("the server of this store was exchanged just now: try again")
        yield Predecessor(find, kind, pid, listening_of(about), descriptor)
    finally:
        os.close(descriptor)


def is_halted(pid: int) -> bool:
    """Whether a signal (SIGSTOP), or a debugger, has a process stand still."""
    with contextlib.suppress(OSError):
        # Behind its name, which may have spaces and brackets.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False


def listening_of(about: Answer) -> Listening:
    """Where a server listens, by what it says of its process."""
    unix = about["unix"]
    return Listening(frozenset(about["ports"]), None if unix is None else Path(unix))
