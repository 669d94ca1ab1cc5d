"""The server's tests run on the event loop that the server runs on; most of them need a disk and one client of it, or
a server on real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from nbdserver.server.limits import Limits
from tests.support.memory_device import MemoryDevice
from tests.support.running import Running
from tests.support.wired import Wire, attach


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    # Only asyncio's own loop can say that it is idle, as tests ask that have a wire in place of a network.
    if any(found in (Wire, attach) for found in vars(item.module).values() if callable(found)):  # type: ignore[attr-defined]
        return {"asyncio": asyncio.SelectorEventLoop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def disk() -> MemoryDevice:
    return MemoryDevice(1 << 30)


@pytest.fixture
async def client(disk: MemoryDevice) -> AsyncIterator[Wire]:
    """A connection to `disk`, without a network."""
    with attach(disk) as wire:
        yield wire


@pytest.fixture
async def make(work: Path) -> AsyncIterator[Callable[..., Running]]:
    """Makes servers (not started) that stop when the test ends."""
    made: list[Running] = []

    def build(limits: Limits | None = None) -> Running:
        made.append(Running(work, limits or Limits()))
        return made[-1]

    yield build
    for running in made:
        await running.server.stop(0)


@pytest.fixture
async def running(make: Callable[..., Running]) -> Running:
    started = make()
    await started.start()
    return started
