"""A server that comes and goes, the kernel's client, and the notes of who keeps a device."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nbdserver.kernel_client import keeper as keeping
from nbdserver.kernel_client.lineage import remember
from tests.nbdserver.kernel_client.kept_device import Place
from tests.nbdserver.kernel_client.kernel_of_one_device import Kernel


@pytest.fixture
async def place(work: Path, notes: Path) -> AsyncIterator[Place]:
    made = Place(work / "s")
    yield made
    await made.stop()


@pytest.fixture
def kernel(work: Path) -> Iterator[Kernel]:
    made = Kernel(work / "sys")
    yield made
    made.close()


@pytest.fixture
def notes(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is noted in which incarnation the device is attached."""
    monkeypatch.setattr(keeping, "remember", lambda address, incarnation: remember(address, incarnation, work))
    return work
