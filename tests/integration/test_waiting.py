"""Who waits is told for what: commands, a server that starts, a server that stops; and `status` sees all of it."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nbdserver.admin.sockets import socket_name
from nbdserver.admin.starting import starting
from nbdserver.protocol import wire
from tests.support.minio import RunningMinio
from tests.support.processes import end, until
from tests.support.program import COMMAND, EXIT_UNAVAILABLE, Host, Server
from tests.support.requirements import require
from tests.support.stores import Away, StoreUnderTest, minio_store

PROBLEMS = 3


@pytest.fixture
def served(local_store: StoreUnderTest, make_server: Callable[..., Server]) -> Server:
    """A server of a folder store with a device `disk`; NBDSERVER_STORE names it."""
    server = make_server(local_store, create={"disk": "64M"}, tcp=False)
    server.host.store_environment = {"NBDSERVER_STORE": local_store.location}
    server.start()
    return server


def status(host: Host, expected: int) -> dict[str, Any]:
    """What `status --json` says, with this exit status."""
    found: dict[str, Any] = json.loads(host.run("status", "--json", status=expected).stdout)
    return found


def start(host: Host, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env={**host.environment(), "NBDSERVER_NEW_PASSWORD": "another"},
        cwd=host.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def first_line(process: "subprocess.Popen[bytes]") -> str:
    assert process.stderr is not None
    return process.stderr.readline().decode()


@pytest.mark.slow
def test_an_outage_is_seen_and_said(work: Path, make_server: Callable[..., Server]) -> None:
    require("minio")
    minio = RunningMinio(work)
    minio.start()
    try:
        store = minio_store(minio, "away")
        served = make_server(store, create={"disk": "64MiB"}, tcp=False)
        served.host.store_environment = {**store.environment, "NBDSERVER_STORE": store.location}
        served.start()
        see_an_outage(served, minio)
        assert served.stop() == 0
    finally:
        minio.stop()


def see_an_outage(served: Server, minio: RunningMinio) -> None:
    host = served.host
    assert status(host, 0)["problems"] == []
    with served.connect() as client:
        minio.stop()
        client.write(0, b"x" * 4096)
        until(lambda: "store_failing" in served.said(), seconds=60, what="the failure of the log's upload")
        found = status(host, PROBLEMS)
        assert found["store"]["failing"]["reason"]
        assert found["store"]["unlogged_bytes"] >= 4096
        assert re.match(r"the store fails since \d{4}-", found["problems"][0])
        lines = host.run("status", status=PROBLEMS).stdout.splitlines()
        assert [line for line in lines if line.startswith("problem\tthe store fails since ")]
        for command in (("flush",), ("device", "create", "new", "1M")):
            process = start(host, *command)
            line = first_line(process)
            assert "still waiting" in line, line
            assert "the store fails since" in line
            assert "not durable yet" in line
            end(process, sign=signal.SIGINT)
        process = start(host, "flush")
        first_line(process)
        minio.start()
        try:
            assert process.wait(150) == 0  # a request may hang for a minute before it is sent again
        except subprocess.TimeoutExpired:
            pytest.fail(f"the flush did not end:\n{served.said()}")
        end(process)
    assert status(host, 0)["problems"] == []


def test_a_stop_says_what_it_waits_for(served: Server, local_store: StoreUnderTest) -> None:
    host, store = served.host, Away(local_store.location)
    with served.connect() as client:
        client.write(0, b"x" * 4096)
        store.leave()
        client.write(0, b"y" * 4096)
    served.send(signal.SIGTERM)
    until(lambda: "waits_for=" in served.said(), seconds=60, what="a word about what the stop waits for")
    until(lambda: "the store fails since" in served.said(), seconds=60, what="the reason")
    found = status(host, PROBLEMS)
    assert found["store"]["closing"]
    assert "which is stopping" in host.run("status", status=PROBLEMS).stdout
    done = host.run("device", "create", "new", "1M", status=EXIT_UNAVAILABLE)
    assert done.stderr == "nbdserver: the server of this store is stopping: try again when it has ended\n"
    store.come_back()
    assert served.wait(120) == 0
    assert [line for line in host.run("device", "list").stdout.splitlines() if line.startswith("disk\t")]


def test_a_stop_that_waits_for_clients_is_seen(served: Server) -> None:
    """Seen: `served by process 1`, as if nobody had asked it to stop, for as long as its clients took."""
    with served.connect(structured=False) as slow:
        for _ in range(40):  # more than the sockets hold: the stop waits until they are read
            slow.submit(wire.CMD_READ, 0, 1 << 20)
        slow.receive()
        served.send(signal.SIGTERM)
        asked = partial(served.host.run, "status", status=None)
        until(lambda: "which is stopping" in asked().stdout, seconds=60, what="the stop in the status")
        until(lambda: "clients end what is under way" in served.said(), seconds=60, what="what the stop waits for")
    assert served.wait(120) == 0


ASKING = (
    "status",
    "stats",
    "scrub",
    "client list",
    "device list",
    "device show disk",
    "snapshot list",
    "fs ls /",
    "password list",
)
"""What a server answers at once."""

WORKING = (
    "flush",
    "device create other 1MiB",
    "device import other /dev/null",
    "device export disk image",
    "snapshot create disk@one",
    "fs mkdir /folder",
    "password add another",
    "gc",
    "gc --dry-run",
    "compact",
    "compact --dry-run",
    "check",
)
"""What may take long, or changes something."""


def test_a_server_that_hangs_is_said_to(served: Server) -> None:
    """By every command, whatever the server does: it is stopped, so that only the kernel answers for it. Who asks gets
    an end; who wants something done is told what is waited for.
    """
    host = served.host
    served.send(signal.SIGSTOP)
    asked = {command: start(host, *command.split()) for command in ASKING}
    waiting = {command: start(host, *command.split()) for command in WORKING}
    try:
        for command, process in asked.items():
            _, said = process.communicate(timeout=120)
            assert process.returncode == EXIT_UNAVAILABLE, command
            assert b"does not answer: it is stopped, or hangs" in said, command
            assert f"process {served.pid}".encode() in said, command
        for command, process in waiting.items():
            assert "still waiting" in first_line(process), command
    finally:
        served.send(signal.SIGCONT)
        for process in (*asked.values(), *waiting.values()):
            process.wait(60)
            end(process)


@pytest.mark.parametrize("command", [["status"], ["init"], ["serve", "--run", "true"]], ids=" ".join)
def test_an_endpoint_that_does_not_answer_is_said_at_once(host: Host, silent_endpoint: str, command: list[str]) -> None:
    host.store_environment = {
        "NBDSERVER_STORE": "s3://bucket/x",
        "AWS_ENDPOINT_URL_S3": silent_endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    process = start(host, *command)
    line = first_line(process)
    assert line.startswith("nbdserver: opening s3://bucket/x"), line
    assert "waiting for its keys" in line
    assert process.poll() is None, "it said so before it gave up"
    process.kill()
    end(process)


def test_the_log_goes_where_it_was_asked_to(host: Host, local_store: StoreUnderTest, work: Path) -> None:
    """In the background too; readable by its owner only, and opened anew at SIGHUP."""
    log, moved = work / "log", work / "log.1"
    serve = ("serve", local_store.location, "--create", "a=1M", "--fork", "--unix", "s", "--pid-file", "pid")
    if not os.path.exists("/dev/log"):
        refused = host.run(*serve, status=2)
        assert "--log-file" in refused.stderr
        assert not Path(local_store.location.removeprefix("file://")).exists(), "not before anything was done"
    host.run(*serve, "--log-file", "log", "-v")
    pid = int((work / "pid").read_text())
    try:
        assert log.stat().st_mode & 0o777 == 0o600
        until(lambda: "serving" in log.read_text(), seconds=60, what="the first line")
        assert "object_request" in log.read_text(), "-v says more"
        log.rename(moved)
        os.kill(pid, signal.SIGHUP)
        until(lambda: log.exists() and "log_reopened" in log.read_text(), seconds=60, what="the new file")
        log.unlink()
        log.symlink_to(moved)
        before = moved.read_text()
        os.kill(pid, signal.SIGHUP)
        # What is logged next goes to the file that is open, which has no name any more.
        host.run("--store", local_store.location, "flush")
        assert moved.read_text() == before, "it followed a link"
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists(), seconds=60, what="the end of the server")


@pytest.mark.parametrize(
    ("path", "status_", "reason"), [(".", 2, "Is a directory"), ("link", 2, "a link"), ("no/x", 2, "No such")]
)
def test_a_log_file_that_cannot_be_is_refused(
    host: Host, local_store: StoreUnderTest, work: Path, path: str, status_: int, reason: str
) -> None:
    (work / "link").symlink_to("elsewhere")
    done = host.run("serve", local_store.location, "--run", "true", "--log-file", path, status=status_)
    assert reason.lower() in done.stderr.lower()
    assert not (work / "elsewhere").exists()


def test_a_server_that_makes_its_store_is_starting(
    local_store: StoreUnderTest, make_server: Callable[..., Server]
) -> None:
    """It takes seconds over a new password: long enough to ask for its status, and to be told there is no store."""
    server = make_server(local_store, arguments=["--create", "disk=1M"], tcp=False)
    host = server.host
    host.store_environment = {"NBDSERVER_STORE": local_store.location}
    server.spawn()
    until(lambda: any(host.runtime.glob("*.starting")), seconds=60, what="the mark of a server that starts")
    server.send(signal.SIGSTOP)
    refused = host.run("status", status=EXIT_UNAVAILABLE)
    assert f"process {server.pid} is starting, and makes the store {local_store.location}" in refused.stderr
    server.send(signal.SIGCONT)
    until(lambda: any(host.runtime.glob("*.sock")), seconds=60, what="the admin socket")
    assert status(host, 0)["store"]["devices"] == 1
    assert not list(host.runtime.glob("*.starting"))
    assert server.stop() == 0


def test_a_server_that_opens_its_store_is_starting(served: Server, local_store: StoreUnderTest) -> None:
    """Seen in the mark that it leaves, which is this process's here; without a process it says nothing."""
    host = served.host
    assert served.stop() == 0
    left = host.runtime / f"{socket_name(local_store.location)}.{pid_that_is_gone()}.starting"
    left.touch()
    assert status(host, 0)["starting"] is None
    with starting(local_store.location, host.environment()) as started:
        assert not left.exists()
        found = status(host, 0)
        assert (found["served"], found["starting"]) == (False, os.getpid())
        assert f"served\tnot yet: process {os.getpid()} is starting" in host.run("status").stdout
        started()
        assert status(host, 0)["starting"] is None
    assert not list(host.runtime.glob("*.starting"))


def pid_that_is_gone() -> int:
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid
