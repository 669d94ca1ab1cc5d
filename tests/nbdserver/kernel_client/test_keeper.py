"""What a keeper does when connections end: with a real server, and a stand-in for the kernel."""

import asyncio
import socket
from pathlib import Path

import pytest

from nbdserver.kernel_client.export_address import ExportAddress
from nbdserver.kernel_client.lineage import Lineage, ask, recall, remember
from nbdserver.protocol import wire
from storage.errors import RolledBack
from tests.nbdserver.kernel_client.kept_device import OTHER, Place, ended, kept
from tests.nbdserver.kernel_client.kernel_of_one_device import Kernel
from tests.support.waiting import until


async def test_each_dead_connection_gets_another(place: Place, kernel: Kernel, work: Path) -> None:
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        for later in (("a", "b"), ("a", "b", "c"), ("b", "c", "d")):
            kernel.forget()
            await place.serve(*later)
            await until(lambda: len(kernel.taken) == 2)
            await until(lambda: recall(place.address, work) == f"{later[-1]}-1.0")  # noqa: B023
        assert not task.done()


@pytest.mark.parametrize("refused", [False, True])
async def test_a_device_that_may_miss_something_fails(place: Place, kernel: Kernel, work: Path, refused: bool) -> None:
    """Before the kernel has a connection on which it could go on; also where the server refuses the export for it."""
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        await place.serve("b", refused=refused)
        with pytest.raises(RolledBack, match=r"detached, and its requests failed.*have the filesystem checked"):
            await ended(task)
    assert kernel.taken == []
    assert not kernel.device.attached


@pytest.mark.parametrize("disk", ["2.0", "1.1", "@1"])
async def test_another_disk_of_that_name_is_not_gone_on_with(
    place: Place, kernel: Kernel, work: Path, disk: str
) -> None:
    """Nothing was lost, and what the kernel has in memory is of a disk that the name does not mean any more."""
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        await place.serve("a", "b", disk=disk)
        with pytest.raises(RolledBack, match=r"detached, and its requests failed.*another disk now"):
            await ended(task)
    assert kernel.taken == []
    assert not kernel.device.attached


@pytest.mark.parametrize("before", [["2.0"], ["2.0", "2.0"], ["1.0"] * 3 + ["2.0"]])
async def test_a_name_that_means_another_disk_for_a_moment(
    place: Place, kernel: Kernel, work: Path, before: list[str]
) -> None:
    """It means the right one again when it is asked which one it is, and did not when it was connected."""
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        kernel.forget()
        await place.serve("a", before=before)
        await until(lambda: len(kernel.taken) == 2 or task.done())
        assert not task.done()
        for sock in kernel.taken:
            request = wire.REQUEST.pack(0x25609513_0000_0000, b"cookie!!", 0, len(OTHER))
            await asyncio.to_thread(sock.sendall, request)
            reply = await asyncio.to_thread(sock.recv, 16 + len(OTHER), socket.MSG_WAITALL)
            assert reply[16:] == bytes(len(OTHER))


async def test_what_was_noticed_once_is_asked_about_from_then_on(place: Place, kernel: Kernel, work: Path) -> None:
    """A loss after the last reconnection, of which the first incarnation is as unknown as the others."""
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        await place.serve("a", "b")
        await until(lambda: len(kernel.taken) == 2)
        await place.serve("a", "c")
        with pytest.raises(RolledBack):
            await ended(task)


async def test_a_server_that_does_not_say_is_waited_for(place: Place, kernel: Kernel, work: Path) -> None:
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        await place.serve()
        said = work / "locks" / "nbd0"
        await until(lambda: "does not say any more whether anything was lost" in said.read_text())
        assert kernel.taken == []
        await place.serve("a", "b")
        await until(lambda: len(kernel.taken) == 2)
        assert not task.done()


async def test_one_that_never_said_is_gone_on_with(place: Place, kernel: Kernel, work: Path) -> None:
    """A server of another kind."""
    await place.serve()
    async with kept(place, kernel, work, None):
        await place.serve()
        await until(lambda: len(kernel.taken) == 2)


async def test_it_grows_when_each_connection_has_the_new_size(place: Place, kernel: Kernel, work: Path) -> None:
    """A session ends where its disk ended when it began: what the kernel sends over an older one would fail."""
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0"):
        await place.serve("a", "b")
        await until(lambda: kernel.asked == [(1 << 20, 1)] * 2)
        place.device.size = 2 << 20
        for number in range(2):
            assert kernel.asked == [(1 << 20, 1)] * (2 + number)
            kernel.taken[number].shutdown(socket.SHUT_RDWR)
            await until(lambda: len(kernel.taken) == 3 + number)  # noqa: B023
        await until(lambda: kernel.asked == [(1 << 20, 1)] * 4 + [(2 << 20, 0)])


async def test_a_disk_that_was_cut_off_is_not_gone_on_with(place: Place, kernel: Kernel, work: Path) -> None:
    """Also by a server that says of itself that nothing was lost."""
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        place.device.size = 1 << 19
        await place.serve("a", "b")
        with pytest.raises(RolledBack, match="524288 bytes now and had 1048576"):
            await ended(task)
    assert kernel.taken == []


async def test_one_that_is_served_otherwise_is_waited_for(place: Place, kernel: Kernel, work: Path) -> None:
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        place.device.read_only = True
        await place.serve("a", "b")
        said = work / "locks" / "nbd0"
        await until(lambda: "read-only now and was not" in said.read_text())
        assert kernel.taken == []
        place.device.read_only = False
        await place.serve("a", "b")
        await until(lambda: len(kernel.taken) == 2)
        await until(lambda: said.read_text() == "")
        assert not task.done()


async def test_what_the_kernel_does_not_take_is_offered_again(
    place: Place, kernel: Kernel, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a device that another process attached nobody knows whether a connection is missing."""
    kernel.takes = False
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0", adopted=True) as task:
        await until(lambda: len(kernel.asked) >= 3)
        assert "connection_lost" not in caplog.messages
        kernel.tell_of_a_dead_link()
        await until(lambda: "connection_lost" in caplog.messages)
        kernel.takes = True
        await until(lambda: len(kernel.taken) == 2)
        asked = len(kernel.asked)
        kernel.tell_of_a_dead_link()
        await place.serve("a", "b")
        await until(lambda: len(kernel.asked) == asked + 2)
        assert not task.done()


async def test_detached_by_somebody_else(place: Place, kernel: Kernel, work: Path) -> None:
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        kernel.disconnect(0)
        await place.stop()
        await ended(task)
    assert kernel.taken == []


async def test_what_a_server_says(place: Place) -> None:
    await place.serve("a", "b")
    assert await ask(place.address, None) == Lineage("b-1.0", unbroken=False)
    assert await ask(place.address, "a-1.0") == Lineage("b-1.0", unbroken=True)
    assert await ask(place.address, "b-1.0") == Lineage("b-1.0", unbroken=True)
    for other in ("c-1.0", "a-2.0", "a-1.1", "a-11.0", "a", "", "-1.0"):
        assert await ask(place.address, other) == Lineage("b-1.0", unbroken=False)
    await place.serve()
    assert await ask(place.address, "a-1.0") == Lineage(None, unbroken=False)
    await place.serve("a", disk="")
    assert await ask(place.address, "a-1.0") == Lineage(None, unbroken=False)


def test_what_is_noted_is_of_one_export(work: Path) -> None:
    one, other = ExportAddress("one"), ExportAddress("other")
    assert recall(one, work) is None
    remember(one, "a", work)
    remember(other, None, work)
    assert (recall(one, work), recall(other, work)) == ("a", None)
