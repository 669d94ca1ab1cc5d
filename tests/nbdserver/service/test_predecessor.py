"""A predecessor: when its successor goes on, and what it does before."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nbdserver.admin.api import Admin
from nbdserver.admin.client import AdminClient
from nbdserver.config import ServeSettings
from nbdserver.service.predecessor import Find, Predecessor, give_way, is_halted, predecessor
from nbdserver.service.rehearsal import NOWHERE
from storage import Store, StoreOptions, open_store
from storage.crypto.keys import Cost
from storage.env import RealEnv
from storage.errors import AccessDenied, Conflict, Unavailable
from storage.fs.early_unlock import EarlyUnlock
from tests.support.processes import kill_quietly
from tests.support.waiting import soon, until

MIB = 1 << 20


class Server:
    """The admin socket of a server that lives in this process, and so goes on living when it has stopped."""

    def __init__(self, path: Path, store: Store) -> None:
        self.asked = asyncio.Event()
        self.store = store
        about: dict[str, object] = {"ports": [], "unix": None}
        self.admin = Admin(lambda: store, dict, process=lambda: dict(about), stop=self.asked.set)
        self.client = AdminClient(path)


@pytest.fixture
async def server(work: Path) -> AsyncIterator[Server]:
    env = RealEnv()
    options = StoreOptions(cost=Cost.for_tests())
    store = await open_store("memory://", b"password", env=env, create=True, options=options)
    made = Server(work / "a.sock", store)
    await made.admin.start(work / "a.sock")
    yield made
    await made.admin.stop()
    await store.close()
    env.close()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing, and answers nobody."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    kill_quietly(process)


@pytest.fixture
def old(server: Server) -> Iterator[Predecessor]:
    descriptor = os.pidfd_open(os.getpid())
    yield Predecessor([lambda: server.client], 0, os.getpid(), NOWHERE, descriptor)
    os.close(descriptor)


async def test_it_goes_on_where_its_successor_could_not_serve(server: Server, old: Predecessor, work: Path) -> None:
    """A disk of another size than is asked for shows before anybody is asked to stop."""
    await server.store.create_device("disk", MIB)
    assert await old.devices() == {"disk": MIB}
    env, location = RealEnv(), str(work / "store")
    unlocked = await open_store(
        location, b"password", env=env, create=True, options=StoreOptions(cost=Cost.for_tests(), state_folder=work)
    )
    await unlocked.close()
    early = EarlyUnlock(location, b"password", 30.0, Cost.for_tests())
    settings = ServeSettings(store=location, create=(("disk", 2 * MIB),))
    with pytest.raises(Conflict, match="there is a 'disk' already"):
        await give_way(old, settings, early, env)
    assert not server.asked.is_set()
    env.close()


async def test_it_is_waited_for_until_it_has_let_go_and_not_for_its_process(
    server: Server, old: Predecessor, work: Path
) -> None:
    async with asyncio.timeout(30):
        stopping = asyncio.create_task(old.stop())
        await server.asked.wait()
        await server.admin.quiesce()
        done, _ = await asyncio.wait({stopping}, timeout=0.2)
        assert not done, "it has not let go yet"
        assert (work / "a.sock").exists()
        ended = asyncio.create_task(server.admin.stop(released=True))
        await stopping
        assert not (work / "a.sock").exists(), "its successor puts its own there"
        await ended


async def test_what_a_stop_would_flush_is_flushed_before(server: Server, old: Predecessor) -> None:
    await server.store.create_device("disk", MIB)
    server.store.device("disk").write(0, b"\x01" * MIB)
    assert server.store.status().memtable_bytes
    async with asyncio.timeout(30):
        await old.flush_ahead()
    assert not server.store.status().memtable_bytes
    assert not server.asked.is_set(), "it serves"


async def test_one_that_says_nothing_is_waited_for_until_its_process_has_ended(
    server: Server, sleeper: subprocess.Popen[bytes]
) -> None:
    """It has answered, and its admin socket ends without the word: as when it dies, and when one that stood by has
    become a writer meanwhile."""
    descriptor = os.pidfd_open(sleeper.pid)
    try:
        async with asyncio.timeout(30):
            old = Predecessor([lambda: server.client], 0, os.getpid(), NOWHERE, descriptor)
            stopping = asyncio.create_task(old.stop())
            await server.asked.wait()
            await server.admin.stop()
            done, _ = await asyncio.wait({stopping}, timeout=0.2)
            assert not done, "an end is no word"
            sleeper.kill()
            await stopping
    finally:
        os.close(descriptor)


async def test_one_that_cannot_flush_now_is_asked_to_stop_all_the_same(old: Predecessor, server: Server) -> None:
    await server.admin.stop()
    async with asyncio.timeout(30):
        await old.flush_ahead()


class Odd(AdminClient):
    """Gets an answer that nobody foresaw."""

    def flush_ahead(self) -> None:
        raise ValueError("an answer that is none")


async def test_an_answer_that_nobody_foresaw_is_not_waited_for(old: Predecessor, server: Server) -> None:
    server.client = Odd(server.client.path)
    async with asyncio.timeout(30):
        await old.flush_ahead()


class Changing(Predecessor):
    """Changes the passwords at the last moment, and lets go of its store."""

    store: Store

    async def flush_ahead(self) -> None:
        await self.store.maintenance.flush_ahead()

    async def stop(self) -> None:
        await self.store.passwords.add(b"password", b"another", "second")
        await self.store.close()


async def test_passwords_that_change_while_it_gives_way_keep_no_successor_from_the_store(work: Path) -> None:
    env = RealEnv()
    options = StoreOptions(cost=Cost.for_tests(), state_folder=work / "state")
    location = str(work / "store")
    old = Changing([], 0, 0, NOWHERE, 0)
    old.store = await open_store(location, b"password", env=env, create=True, options=options)
    early = EarlyUnlock(location, b"password", 30.0, Cost.for_tests())
    ahead = await give_way(old, ServeSettings(store=location), early, env)
    assert ahead.view is not None
    unlocked = replace(options, unlocked=ahead.unlocked, ahead=ahead.view)
    store = await open_store(location, b"password", env=env, options=unlocked)
    assert [entry.label for entry in await store.passwords.list(b"another")] == ["main", "second"]
    await store.close()
    env.close()


class Said:
    """A server that says of its process, each time it is asked, the next of these; and whether it was asked to stop."""

    def __init__(self, *processes: tuple[int, int]) -> None:
        self._processes = list(processes)
        self.stopped = False

    def process(self) -> dict[str, object]:
        pid, uid = self._processes.pop(0) if len(self._processes) > 1 else self._processes[0]
        return {"pid": pid, "uid": uid, "ports": [4], "unix": None}

    def stop(self) -> None:
        self.stopped = True


def found(*servers: Said | None) -> list[Find]:
    return [lambda server=server: server for server in servers]  # type: ignore[misc]


def test_whose_place_is_taken(sleeper: subprocess.Popen[bytes]) -> None:
    own, pid = os.geteuid(), sleeper.pid
    with predecessor(found(None, None)) as none:
        assert none is None
    with predecessor(found(None, Said((pid, own)))) as old:
        assert old is not None
        assert (old.pid, old.kind, old.held.ports) == (pid, 1, frozenset((4,)))
    with (
        pytest.raises(AccessDenied, match=f"process {pid} of user {own + 1}"),
        predecessor(found(Said((pid, own + 1)))),
    ):
        pass
    # Between the two answers it ended, and its number may be another process's.
    exchanged = found(Said((pid, own), (pid + 1, own)))
    with pytest.raises(Unavailable, match="exchanged just now"), predecessor(exchanged):
        pass
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(Unavailable, match="cannot be seen from here"), predecessor(found(Said((pid, own)))):
        pass


async def test_only_the_process_that_was_found_is_asked_to_stop(sleeper: subprocess.Popen[bytes]) -> None:
    """Another one may listen in its place by then, as the writer or as one that stands by."""
    own = os.geteuid()
    other, same = Said((os.getpid(), own)), Said((sleeper.pid, own))
    with predecessor(found(same, None)) as old:
        assert old is not None
        descriptor = os.pidfd_open(old.pid)
        try:
            turned = Predecessor(found(other, same), old.kind, old.pid, NOWHERE, descriptor)
            stopping = asyncio.create_task(turned.stop())
            await until(lambda: same.stopped)
            sleeper.kill()
            await soon(stopping)
        finally:
            os.close(descriptor)
    assert not other.stopped
    assert turned.kind == 1, "it stands by by now"


async def test_one_that_is_halted_is_not_asked_and_who_waits_is_told(sleeper: subprocess.Popen[bytes]) -> None:
    """It would find the question when it goes on, and end for nobody."""
    said = Said((sleeper.pid, os.geteuid()))
    with predecessor(found(said)) as old:
        assert old is not None
        assert not is_halted(old.pid)
        sleeper.send_signal(signal.SIGSTOP)
        await until(lambda: is_halted(old.pid))
        with pytest.raises(Unavailable, match=f"halted by a signal, and was not asked to stop.*-CONT {old.pid}"):
            await soon(asyncio.ensure_future(old.stop()))
        await soon(asyncio.ensure_future(old.flush_ahead()))
        assert "is halted by a signal and cannot end, for 7 s" in old.waiting(7.0)
    assert not said.stopped
