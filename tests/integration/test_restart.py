"""`nbdserver restart` and `serve --replace`: a new server is ready before the old one stops, and whatever keeps it from
starting leaves the old one as it is.
"""

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbdserver.admin.client import AdminClient
from nbdserver.admin.sockets import socket_path
from nbdserver.config import locate
from nbdserver.service.predecessor import is_halted, predecessor
from storage.errors import Unavailable
from tests.crash.reconnecting import ReconnectingClient
from tests.support.messages import READ
from tests.support.processes import kill_quietly, until, unused_port
from tests.support.program import COMMAND, EXIT_CONFLICT, EXIT_WRONG_PASSWORD, Host, Server
from tests.support.stores import StoreUnderTest
from tests.support.successors import end_of, pid_of

EXIT_NOT_FOUND = 10
ANSWERS = 300


@pytest.fixture
def served(work: Path) -> Iterator[Server]:
    """A server with one disk, and at the end whoever has come in its place."""
    host = Host(work)
    server = Server(
        host, str(work / "store"), create={"disk": "64MiB"}, arguments=["--log-file", str(work / "log")], tcp=True
    )
    server.start()
    began = server.pid
    try:
        yield server
    finally:
        successor = pid_of(host, server.location)
        server.close()
        if successor is not None and successor != began:
            end_of(successor)


def test_a_client_that_attaches_again_sees_a_pause(served: Server) -> None:
    """Twice, so that a successor has one too; it listens where the first did, and has its options."""
    client = ReconnectingClient(served.connect, seed=7)

    def answered() -> None:
        goal = client.answered + ANSWERS
        until(lambda: client.answered >= goal or client.failure is not None, seconds=60, what="answers")

    client.start()
    try:
        pids = [served.pid]
        for _ in range(2):
            answered()
            served.host.run("restart", served.location)
            pids.append(pid_of(served.host, served.location) or 0)
        answered()
    finally:
        client.stop()
    assert served.wait() == 0, "the first one was asked, and ended well"
    assert len(set(pids)) == 3
    found = served.host.json("status", "--store", served.location)
    assert isinstance(found, dict)
    assert found["listening"] == [f"nbd://127.0.0.1:{served.port}/", f"nbd+unix:///?socket={served.socket}"]
    assert found["refused"] == []


@pytest.mark.parametrize("stands", ["password", "port", "argument", "socket"])
def test_what_keeps_the_new_one_from_starting_leaves_the_old_one(served: Server, stands: str, work: Path) -> None:
    arguments: tuple[str, ...] = ("--port", str(served.port), "--log-file", str(work / "other"))
    password, status = served.host.password, EXIT_CONFLICT
    if stands == "password":
        password, status = "another one", EXIT_WRONG_PASSWORD
    elif stands == "argument":
        arguments, status = (*arguments, "--tls", "require"), 2
    elif stands == "socket":
        (work / "taken").write_text("no socket")
        arguments = (*arguments, "--unix", str(work / "taken"))
    with served.connect() as client:
        if stands == "port":
            other = Server(served.host, str(work / "other store"), create={"disk": "1MiB"})
            other.start()
            arguments = ("--port", str(other.port), *arguments[2:])
        said = served.host.run(
            "serve", served.location, "--replace", *arguments, status=status, NBDSERVER_PASSWORD=password
        ).stderr
        assert len(said.removeprefix("Usage: nbdserver serve [OPTIONS] [STORE]\n").splitlines()) == 1, said
        client.write(0, b"still served" + bytes(500))
        if stands == "port":
            assert other.stop() == 0
    assert pid_of(served.host, served.location) == served.pid


def test_a_server_that_is_stopping_is_not_asked_twice(served: Server) -> None:
    """The second signal would end it where it stands: whoever takes its place waits for the first."""
    with served.connect(structured=False) as slow:
        for _ in range(40):  # a client that reads only the first of its replies, so that the stop takes its time
            slow.submit(READ, 0, 1 << 20)
        slow.receive()
        served.send(signal.SIGTERM)
        until(lambda: is_stopping(served), seconds=30, what="the stop")
        successor = subprocess.Popen(
            [*COMMAND, "restart", served.location], env=served.host.environment(), cwd=served.host.folder
        )
        try:
            assert served.wait() == 0, "it ended in its own time"
            assert successor.wait(60) == 0
        finally:
            kill_quietly(successor)
    assert "may_have_lost" not in (served.host.folder / "log").read_text()


def test_a_restart_that_is_interrupted_leaves_a_server(served: Server) -> None:
    """Once the old one was asked to stop; and the SIGTERM of who is impatient then is the first that it gets."""
    with served.connect(structured=False) as slow:
        for _ in range(40):
            slow.submit(READ, 0, 1 << 20)
        slow.receive()
        restart = subprocess.Popen(
            [*COMMAND, "restart", served.location], env=served.host.environment(), cwd=served.host.folder
        )
        until(lambda: is_stopping(served), seconds=60, what="the stop")
        restart.send_signal(signal.SIGINT)
        assert restart.wait(60) != 0
        served.send(signal.SIGTERM)
        assert served.wait() == 0, "it ended in its own time"
    until(lambda: pid_of(served.host, served.location) is not None, seconds=60, what="its successor")
    with served.connect() as client:
        client.write(0, b"served by another" + bytes(495))
        client.flush()


async def test_one_that_is_halted_is_left_alone_and_said_to_be(served: Server) -> None:
    """It was halted after it was found: nobody may say that it is stopping, nor ask it to when nobody will wait."""
    find = AdminClient(socket_path(served.host.runtime, locate(served.location, {})))
    with predecessor([lambda: find]) as old:
        assert old is not None
        assert "which is stopping" in old.waiting(5.0)
        served.send(signal.SIGSTOP)
        try:
            until(lambda: is_halted(served.pid), seconds=30, what="the halt")
            assert f"kill -CONT {served.pid}" in old.waiting(5.0)
            with pytest.raises(Unavailable, match=f"is halted by a signal, and was not asked.*-CONT {served.pid}"):
                await old.stop()
        finally:
            served.send(signal.SIGCONT)
        with served.connect() as client:
            client.write(0, b"still served" + bytes(500))
        assert pid_of(served.host, served.location) == served.pid
        await old.stop()
    assert served.wait() == 0


def is_stopping(server: Server) -> bool:
    """Asked without a command, which may take as long to begin as the stop does."""
    store = locate(server.location, server.host.store_environment)
    return bool(AdminClient(socket_path(server.host.runtime, store)).status().get("stopping"))


def test_one_that_reads_does_not_take_the_place_of_one_that_writes(served: Server, work: Path) -> None:
    follower = ("serve", served.location, "--read-only", "--replace", "--fork", "--log-file", str(work / "f"))
    for number in range(2):
        served.host.run(*follower, "--unix", str(work / f"f{number}"))
    try:
        assert served.running()
        with served.connect() as client:
            client.write(0, b"the writer writes" + bytes(495))
        found = served.host.json("status", "--store", served.location)
        assert isinstance(found, dict)
        assert found["pid"] == served.pid
        assert not (work / "f0").exists(), "the second follower came in the place of the first"
        assert (work / "f1").exists()
    finally:
        for pid in followers_of(served):
            end_of(pid)


def followers_of(server: Server) -> list[int]:
    """The processes that hold a follower's socket of this store."""
    return [pid for pid in pids_with("--read-only", server.location) if pid != server.pid]


def pids_with(*words: str) -> list[int]:
    """Processes whose command line has all of these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            said = path.read_bytes().decode(errors="replace").split("\0")
            if set(words) <= set(said):
                found.append(int(path.parent.name))
    return found


def test_what_was_wanted_once_is_not_repeated(local_store: StoreUnderTest, work: Path) -> None:
    """Also of a server whose store stands behind "--"."""
    host = Host(work)
    server = Server(host, local_store.location, create={"disk": "1MiB"}, arguments=["--log-file", str(work / "log")])
    server.start("--take-over", "--accept-rollback")
    try:
        server.host.run("restart", server.location)
        assert server.wait() == 0
        (pid,) = pids_with("serve", server.location)
        said = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert {"--take-over", "--accept-rollback"}.isdisjoint(said)
        assert "--log-file" in said
        end_of(pid)
    finally:
        server.close()


def test_a_value_that_is_called_as_the_command_is(work: Path) -> None:
    """Before the command and behind it; and restarts leave no more behind each time."""
    host, location = Host(work), str(work / "store")
    (host.folder / "serve").write_text("")
    rest = ["--create", "serve=1MiB", "--unix", str(work / "s"), "--log-file", "log", "--fork"]
    host.run("--config", "serve", "serve", location, *rest)
    try:
        for as_json in ((), ("--json",), ()):
            before = pid_of(host, location)
            printed = host.run("restart", location, *as_json).stdout
            assert printed.startswith("{") == bool(as_json)
            assert pid_of(host, location) not in (None, before)
        (pid,) = pids_with("serve", location)
        said = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert said[said.index("--config") : -1] == ["--config", "serve", "serve", location, *rest[:-1]]
    finally:
        end_of(pid_of(host, location) or 0)


def test_what_lies_in_the_folder_of_the_old_one_is_not_run(served: Server, work: Path) -> None:
    """With the password: whoever could write where a server was started, as below /tmp, had root."""
    found, elsewhere = work / "nbdserver", work / "elsewhere"
    elsewhere.mkdir()
    found.mkdir()
    (found / "__init__.py").touch()
    (found / "__main__.py").write_text("raise SystemExit(77)\n")
    environment = served.host.environment()
    try:
        for python_path in (environment["PYTHONPATH"], f":{environment['PYTHONPATH']}"):
            before = pid_of_server(served)
            restart = subprocess.run(
                [*COMMAND, "restart", served.location],
                env={**environment, "PYTHONPATH": python_path},
                cwd=elsewhere,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert restart.returncode == 0, restart.stderr
            assert pid_of_server(served) != before
    finally:
        shutil.rmtree(found)


def pid_of_server(server: Server) -> object:
    """Asked without a command, which would be that of the folder it runs in."""
    store = locate(server.location, server.host.store_environment)
    return AdminClient(socket_path(server.host.runtime, store)).status()["pid"]


def test_with_nobody_to_replace_it_starts(work: Path) -> None:
    server = Server(Host(work), str(work / "store"), create={"disk": "1MiB"}, arguments=["--replace"])
    server.start()
    assert server.stop() == 0


def test_a_server_elsewhere_may_be_asked_to_move(served: Server, work: Path) -> None:
    """By options of its own: another port, while the old one keeps its own until it ends."""
    port = unused_port()
    moved = ("--port", str(port), "--fork", "--log-file", str(work / "log"))
    served.host.run("serve", served.location, "--replace", *moved)
    assert served.wait() == 0
    found = served.host.json("status", "--store", served.location)
    assert isinstance(found, dict)
    assert found["listening"] == [f"nbd://127.0.0.1:{port}/"]


def test_whom_nobody_restarts(served: Server, work: Path) -> None:
    """A store that nobody serves; a server of --run, which ends with its command."""
    said = served.host.run("restart", str(work / "nothing"), status=EXIT_NOT_FOUND).stderr
    assert "start one with nbdserver serve" in said
    assert served.stop() == 0
    command = f"{' '.join(COMMAND)} restart {served.location} 2> {work / 'said'}; echo $? > {work / 'status'}"
    served.spawn("--run", command)
    assert served.wait() == 0
    assert (work / "status").read_text() == f"{EXIT_CONFLICT}\n"
    assert "serves for its command (--run)" in (work / "said").read_text()
