"""`serve --standby`: one server writes, the other waits, on the same host or elsewhere. It takes the store when the
writer has ended, and from nobody who lives; what was flushed is there, and who was attached is not fooled.

Another host is a state folder of its own, and another way to the same MinIO: a name, or a proxy that can be silent.
"""

import contextlib
import json
import re
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbdserver.admin.client import AdminClient
from nbdserver.admin.sockets import socket_path
from nbdserver.config import locate
from tests.crash.test_take_over import NOTICE_SECONDS, block, fill, holds, must_not_acknowledge
from tests.support.minio import RunningMinio
from tests.support.nbd import NbdError
from tests.support.processes import until
from tests.support.program import EXIT_FENCED, Host, Server
from tests.support.stores import StoreUnderTest, minio_store
from tests.support.successors import end_of
from tests.support.wayward import CUT, WaywardProxy

SECONDS = 60
"""Far above what a take-over takes: a lease of four seconds, and a start."""

STANDBY = ("--standby",)

PROBLEMS = 3


class Pair:
    """Two hosts with one bucket, each with its own way there."""

    def __init__(self, minio: RunningMinio, endpoints: list[str], work: Path, make: Callable[..., Server]) -> None:
        prefix = f"test-{uuid.uuid4().hex[:12]}"
        self.servers: list[Server] = []
        for name, endpoint in zip("ab", endpoints, strict=True):
            (work / name).mkdir()
            store = minio_store(minio, prefix, endpoint=endpoint)
            create = {"disk": "64MiB"} if name == "a" else None
            on = Host(work / name, store.environment)
            self.servers.append(make(store, on=on, create=create, arguments=STANDBY, after_loss="refuse"))

    def start(self) -> tuple[Server, Server]:
        """The first one serves, and the other stands by."""
        first, second = self.servers
        first.start()
        stands_by(second)
        return first, second


class Manager:
    """A service manager, as far as it listens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(SECONDS)

    def told(self, beginning: str) -> bool:
        """Whether a message comes that begins so."""
        while not self._socket.recv(4096).decode().startswith(beginning):
            pass
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(work: Path) -> Iterator[Manager]:
    made = Manager(work / "n")
    yield made
    made.close()


@pytest.fixture
def pair(minio: RunningMinio, work: Path, make_server: Callable[..., Server]) -> Pair:
    endpoints = [minio.endpoint, minio.endpoint.replace("127.0.0.1", "localhost")]
    return Pair(minio, endpoints, work, make_server)


def stands_by(server: Server) -> None:
    count = server.said().count("standing_by")
    server.spawn()
    until(lambda: server.said().count("standing_by") > count, seconds=SECONDS, what="standing by")


def serves(server: Server) -> bool:
    """Whether it serves in this life of its."""
    return "serving" in server.said().rsplit("standing_by", 1)[-1]


def takes_over(server: Server) -> None:
    until(lambda: serves(server), seconds=SECONDS, what="the take-over")


def standby_of(server: Server) -> dict[str, object]:
    """What the server that stands by says of itself; as it takes the store over, this ends."""
    found = json.loads(server.host.run("status", "--json", "--store", server.location, status=None).stdout)
    assert isinstance(found, dict)
    standby = found["standby"]
    assert isinstance(standby, dict)
    return standby


def no_answer(method: str, path: str) -> bytes | None:
    return CUT


def every_answer(method: str, path: str) -> bytes | None:
    return None


def test_a_writer_elsewhere_is_killed(pair: Pair) -> None:
    """What was flushed is there. Who was attached may miss what he was answered, and is refused until that is accepted.
    Handed back by a clean stop nothing is missing, and nobody is refused: both hosts are in truth this machine, whose
    own clients the second one has accepted for the first."""
    first, second = pair.start()
    with first.connect() as client:
        fill(client, range(20))
        client.write(0, block(77))
        until(lambda: standby_of(second)["basis"] == "signs", seconds=SECONDS, what="a sign of life")
        assert standby_of(second)["epoch"] == 1
        first.kill()
        takes_over(second)
    with pytest.raises(NbdError, match="disk was attached from here when its server was lost"):
        second.connect()
    stands_by(first)
    second.host.run("client", "accept", "disk", "--store", second.location)
    with second.connect() as client:
        holds(client, range(1, 20))
        assert client.read(0, 4096) in (block(0), block(77))
        client.write(20 * 4096, block(20))
        assert second.stop() == 0
    takes_over(first)
    assert "may_have_lost" not in first.said()
    with first.connect() as client:
        holds(client, range(1, 21))
    assert first.stop() == 0


def test_one_that_stands_by_is_replaced_by_another(pair: Pair) -> None:
    """By hand and by a restart: the writer elsewhere goes on, and the newcomer waits for its turn as it did."""
    first, second = pair.start()
    host, location = second.host, second.location
    store = locate(location, host.store_environment)
    admin = AdminClient(socket_path(host.runtime, store, role="standby"))
    pids = [second.pid]
    options = ("--unix", str(host.folder / "another"), "--log-file", str(host.folder / "log"))
    try:
        for how in (("serve", location, "--standby", "--replace", "--fork", *options), ("restart", location)):
            host.run(*how)
            pids.append(admin.process()["pid"])
            assert pids[-1] not in pids[:-1]
        assert second.wait() == 0, "it was asked, and ended well"
        with first.connect() as client:
            fill(client, range(4))
        assert standby_of(second)["epoch"] == 1
    finally:
        if pids[-1] != pids[0]:
            end_of(pids[-1])


def test_a_stopped_writer_that_wakes_up_is_superseded(pair: Pair) -> None:
    """A process that stands still looks as if it had ended. It comes to no harm but its own end."""
    first, second = pair.start()
    old = first.connect()
    fill(old, range(10))
    first.send(signal.SIGSTOP)
    takes_over(second)
    second.host.run("client", "accept", "disk", "--store", second.location)
    with second.connect() as new:
        fill(new, range(10, 20))
        first.send(signal.SIGCONT)
        with contextlib.suppress(OSError, EOFError):
            must_not_acknowledge(old)
        assert first.wait(NOTICE_SECONDS) == EXIT_FENCED
        fill(new, range(20, 30))
        holds(new, range(30))
    assert second.stop() == 0
    second.start()  # what is closed is waited for by nobody
    with second.connect() as again:
        holds(again, range(30))


@pytest.mark.slow
def test_a_store_that_is_away_is_no_sign_of_an_end(
    minio: RunningMinio, work: Path, make_server: Callable[..., Server]
) -> None:
    """For both, and for longer than a lease: nobody takes anything."""
    with WaywardProxy(minio.endpoint) as one, WaywardProxy(minio.endpoint) as other:
        pair = Pair(minio, [one.endpoint, other.endpoint], work, make_server)
        try:
            both_lose_their_store(pair, [one, other])
        finally:
            for server in pair.servers:
                server.close()


def both_lose_their_store(pair: Pair, ways: list[WaywardProxy]) -> None:
    first, second = pair.start()

    def looks_go_on(count: int) -> None:
        before = len(ways[1].seen)
        until(lambda: len(ways[1].seen) > before + count, seconds=SECONDS, what="looks")

    with first.connect() as client:
        fill(client, range(4))
        lease = standby_of(second)["patience_seconds"]
        assert isinstance(lease, float)
        for each in ways:
            each.decide = no_answer
        looks_go_on(round(3 * lease))  # at most two a second: for longer than its patience
        for each in ways:
            each.decide = every_answer
        looks_go_on(round(2 * lease))
        fill(client, range(4, 8))
        holds(client, range(8))
    assert not serves(second)
    assert standby_of(second)["reason"] == ""


def test_beside_a_writer_of_the_same_host(
    local_store: StoreUnderTest, make_server: Callable[..., Server], memory: Path, manager: Manager
) -> None:
    """Whether it lives says its lock, so one that stands still is left alone. The standby has its journal, port and
    socket, and nobody is refused; a restart by somebody else comes before it."""
    first = make_server(local_store, create={"disk": "64MiB"}, after_loss="refuse")
    first.arguments = [*STANDBY, "--journal", str(memory)]
    first.start()
    same_host = Host(first.host.folder, {"NOTIFY_SOCKET": str(manager.path)})
    second = make_server(local_store, on=same_host, arguments=first.arguments, after_loss="refuse")
    second.port, second.socket = first.port, first.socket
    stands_by(second)
    assert manager.told("READY=1\nSTATUS=stands by")
    old = first.connect()
    fill(old, range(10))
    old.write(0, block(77))
    found = standby_of(second)
    assert (found["basis"], found["writer_pid"]) == ("lock", first.pid)
    second.send(signal.SIGSTOP)
    told = first.host.run("status", "--store", first.location, status=PROBLEMS).stdout
    assert f"by process {first.pid}" in told
    assert re.search(rf"of one which stands by: .*process {second.pid}.* does not answer", told)
    second.send(signal.SIGCONT)
    first.send(signal.SIGSTOP)
    watched = AdminClient(socket_path(first.host.runtime, locate(first.location, {}), role="standby"))
    asked = [watched.status()["standby"] for _ in range(50)]
    assert all(each["basis"] == "lock" and not each["silent_seconds"] for each in asked)
    first.kill()
    old.close()
    takes_over(second)
    with second.connect() as client:
        holds(client, range(1, 10))
        assert client.read(0, 4096) == block(77), "the journal was gone on with"
    assert "may_have_lost" not in second.said()
