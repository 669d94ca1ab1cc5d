"""What a keeper does whose device somebody else detached, or that lacks no connection after all."""

from pathlib import Path

import pytest

from storage.errors import RolledBack
from tests.nbdserver.kernel_client.kept_device import Place, ended, kept
from tests.nbdserver.kernel_client.kernel_of_one_device import Kernel
from tests.support.waiting import until


async def test_detached_by_somebody_else_while_it_is_open(place: Place, kernel: Kernel, work: Path) -> None:
    """It looks attached until it is closed: the kernel's refusal tells, and leaves the server no connection."""
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        kernel.detached = True
        await place.serve("a", "b")
        await ended(task)
        assert kernel.device.attached
        assert len(kernel.asked) == 1
        await until(lambda: place.clients == 0)


async def test_detached_by_somebody_else_while_its_server_is_away(
    place: Place, kernel: Kernel, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody looks for it any more."""
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        await place.stop()
        await until(lambda: "waiting_for_server" in caplog.messages)
        kernel.disconnect(0)
        await ended(task)


async def test_a_loss_is_told_though_the_device_was_detached_meanwhile(
    place: Place, kernel: Kernel, work: Path
) -> None:
    """Whoever had it mounted is to know that its filesystem needs a check."""
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        kernel.detached = True
        await place.serve("b")
        with pytest.raises(RolledBack, match="have the filesystem checked"):
            await ended(task)


async def test_where_none_was_missing_nothing_is_waited_for(place: Place, kernel: Kernel, work: Path) -> None:
    """Of one that another process attached, whose connections the kernel has all, after a server that was away."""
    kernel.takes = False
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0", adopted=True) as task:
        await place.stop()
        said = work / "locks" / "nbd0"
        kernel.tell_of_a_dead_link()
        await until(lambda: said.read_text() != "")
        await place.serve("a", "b")
        await until(lambda: said.read_text() == "")
        assert not task.done()
