"""What a service manager is told, over a socket of its own."""

import asyncio
import os
import resource
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbdserver.service.service_manager import ServiceManager

TESTS_SECONDS = 10.0


class Manager:
    """A service manager that listens."""

    def __init__(self, address: str) -> None:
        self.environ = {"NOTIFY_SOCKET": address.replace("\0", "@"), "WATCHDOG_USEC": "3000", "OTHER": "stays"}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(TESTS_SECONDS)

    def hears(self) -> list[str]:
        return self._socket.recv(4096).decode().splitlines()

    async def hears_soon(self) -> list[str]:
        return await asyncio.to_thread(self.hears)

    def forget(self) -> None:
        """All that has come: a socket holds only a few messages, and what finds no room is not sent."""
        while select.select([self._socket], [], [], 0)[0]:
            self._socket.recv(4096)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, work: Path) -> Iterator[Manager]:
    made = Manager(str(work / "notify") if request.param == "path" else f"\0nbdserver-test-{os.getpid()}")
    yield made
    made.close()


def test_what_is_meant_for_this_process_is_left_to_no_child(manager: Manager) -> None:
    ServiceManager(manager.environ)
    assert manager.environ == {"OTHER": "stays"}


def test_one_message_for_each_change(manager: Manager) -> None:
    service = ServiceManager(manager.environ)
    service.ready("two\nlines")
    service.reloading(1.5)
    service.stopping("clients leave")
    assert manager.hears() == ["READY=1", "STATUS=two lines"]
    assert manager.hears() == ["RELOADING=1", "MONOTONIC_USEC=1500000"]
    assert manager.hears() == ["STOPPING=1", "STATUS=clients leave"]


def test_it_is_told_though_there_are_no_descriptors_left(manager: Manager) -> None:
    service = ServiceManager(manager.environ)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        service.tell("WATCHDOG=1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert manager.hears() == ["WATCHDOG=1"]


async def test_a_start_that_waits_is_not_given_up(manager: Manager) -> None:
    service = ServiceManager(manager.environ)
    async with service.waiting("opening", lambda waited: f"for {waited:.3f} s" if waited else ""):
        told = [await manager.hears_soon() for _ in range(2)]
    assert told[0] == ["STATUS=opening", "EXTEND_TIMEOUT_USEC=60000000", "WATCHDOG=1"]
    assert told[1] == ["STATUS=for 0.001 s", "EXTEND_TIMEOUT_USEC=60000000", "WATCHDOG=1"]


async def test_it_is_told_that_the_loop_turns_for_as_long_as_it_serves(manager: Manager) -> None:
    service = ServiceManager(manager.environ)
    async with service.alive(lambda: "well"):
        for _ in range(3):
            assert await manager.hears_soon() == ["STATUS=well", "WATCHDOG=1"]
    manager.forget()
    service.stopping("all of it")
    assert manager.hears() == ["STOPPING=1", "STATUS=all of it"]


@pytest.mark.parametrize("whose", ["another's", "ours", "anybody's"])
async def test_a_watchdog_of_another_process_is_not_ours(manager: Manager, whose: str) -> None:
    pid = {"another's": "1", "ours": str(os.getpid()), "anybody's": ""}[whose]
    service = ServiceManager({**manager.environ, "WATCHDOG_PID": pid})
    async with service.alive(lambda: "well"):
        assert ("WATCHDOG=1" in await manager.hears_soon()) == (pid != "1")


async def test_nobody_is_told_where_nobody_listens(work: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(work / "nobody")}, {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "many"}):
        service = ServiceManager(dict(environ))
        service.ready("well")
        async with service.alive(lambda: "well"), service.waiting("well", lambda waited: ""):
            await asyncio.sleep(0)
