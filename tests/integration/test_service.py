"""As a service of systemd: what it tells the service manager, and that the units of docs/systemd let it work."""

import os
import queue
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import keys
from tests.support.commands import run
from tests.support.processes import until
from tests.support.program import REPOSITORY, Server
from tests.support.requirements import SYSTEM_PATH, require
from tests.support.stores import StoreUnderTest

UNITS = REPOSITORY / "docs" / "systemd"

WAIT_SECONDS = 120.0


class ServiceManager:
    """What systemd hears."""

    def __init__(self, path: Path) -> None:
        self.variables = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "600000"}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._heard: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        # As soon as they come: what a full socket does not take is not sent again.
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        while told := self._socket.recv(4096):
            self._heard.put(told.decode().splitlines())

    def wait_for(self, line: str) -> list[list[str]]:
        """All messages up to the one that has this line."""
        heard: list[list[str]] = []
        while not heard or line not in heard[-1]:
            heard.append(self._heard.get(timeout=WAIT_SECONDS))
        return heard

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self._socket.getsockname())
        self._listening.join()
        self._socket.close()


@pytest.fixture
def manager(work: Path) -> Iterator[ServiceManager]:
    made = ServiceManager(work / "notify")
    yield made
    made.close()


def test_it_is_told_from_the_start_to_the_end(
    local_store: StoreUnderTest, make_server: Callable[..., Server], manager: ServiceManager
) -> None:
    server = make_server(local_store, create={"disk": "64M"}, tcp=False)
    server.host.store_environment = manager.variables
    server.spawn()
    opening = manager.wait_for("READY=1")
    assert any("STATUS=opening the store" in told for told in opening)
    assert opening[-1] == ["READY=1", "STATUS=1 devices, 0 connections; everything durable"]
    with server.connect() as client:
        client.write(0, b"x" * 4096)
        client.flush()
        manager.wait_for("STATUS=1 devices, 1 connections; everything durable")
    server.send(signal.SIGHUP)
    assert manager.wait_for("READY=1")[-2][0] == "RELOADING=1"
    manager.wait_for("WATCHDOG=1")
    server.send(signal.SIGTERM)
    manager.wait_for("STOPPING=1")
    manager.wait_for("EXTEND_TIMEOUT_USEC=60000000")
    assert server.wait() == 0


def test_a_start_that_waits_for_its_store_is_given_time(
    local_store: StoreUnderTest, make_server: Callable[..., Server], manager: ServiceManager, silent_endpoint: str
) -> None:
    server = make_server(local_store, tcp=False)
    server.location = "s3://bucket/store"
    server.host.store_environment = {
        "AWS_ENDPOINT_URL_S3": silent_endpoint,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        **manager.variables,
    }
    server.spawn()
    told: list[str] = []
    while not any(line.startswith("STATUS=") and "waiting for" in line for line in told):
        told = manager.wait_for("EXTEND_TIMEOUT_USEC=60000000")[-1]
    server.kill()


@pytest.mark.parametrize("name", ["nbdserver.service", "nbdserver-attach@.service"])
def test_a_unit_is_one(name: str) -> None:
    require("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(UNITS / name)],
        env={"PATH": SYSTEM_PATH},
        capture_output=True,
        text=True,
        timeout=60,
    )
    # The program is not installed here, and nothing else may be wrong.
    said = [line for line in done.stderr.splitlines() if "/usr/local/bin/nbdserver is not executable" not in line]
    assert said == []


def test_the_service_may_do_little() -> None:
    require("systemd-analyze")
    said = run("systemd-analyze", "security", "--offline=true", "--threshold=25", UNITS / "nbdserver.service")
    assert re.search(r"Overall exposure level for nbdserver.service: [01]\.\d", said), said


def allowed_calls() -> set[str]:
    """The system calls that the unit's filter lets through."""
    wanted, refused = re.findall(r"^SystemCallFilter=(.*)$", (UNITS / "nbdserver.service").read_text(), re.MULTILINE)
    assert refused.startswith("~")
    return calls_of(*wanted.split()) - calls_of(*refused[1:].split())


def calls_of(*groups: str) -> set[str]:
    """The system calls of systemd's groups."""
    calls: set[str] = set()
    for line in run("systemd-analyze", "syscall-filter", *groups).splitlines():
        word = line.strip()
        if line.startswith(" ") and not word.startswith("#"):
            calls |= calls_of(word) if word.startswith("@") else {word}
    return calls


@pytest.mark.slow
def test_it_works_with_the_calls_that_the_unit_allows(
    local_store: StoreUnderTest, make_server: Callable[..., Server], work: Path
) -> None:
    """Those that the filter refuses, with the error that it gives; what it needs is not among them."""
    require("strace", "systemd-analyze")
    server = make_server(local_store, create={"disk": "64M"}, tcp=False)
    used = traced(server, work, "trace=all")
    refused = sorted(used - allowed_calls())
    assert "accept4" in used
    assert refused, "numpy asks for mbind, at least, and does without"
    traced(server, work, f"inject={','.join(refused)}:error=EPERM")


def traced(server: Server, work: Path, expression: str) -> set[str]:
    """The system calls of a server that takes a write and a flush, and ends well."""
    calls = work / "calls"
    tracing = ["strace", "-f", "-qq", "-c", "-U", "name", "-o", str(calls), "-e", expression]
    keys.prepare(server.location, {}, server.host.password)
    environment = {**server.host.environment(), "PATH": SYSTEM_PATH}
    with server.log.open("ab") as log:
        process = subprocess.Popen([*tracing, *server.command()], env=environment, stdout=log, stderr=log)
    try:
        until(lambda: server.socket.exists() and "nbd+unix" in server.said(), seconds=WAIT_SECONDS, what="a server")
        with server.connect() as client:
            client.write(0, b"x" * 4096)
            client.flush()
            assert client.read(0, 4096) == b"x" * 4096
    finally:
        # strace passes no signal on: the program is its child.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        status = process.wait(WAIT_SECONDS)
    assert status == 0, server.said()
    return {line.split()[0] for line in calls.read_text().splitlines()[2:-2]}
