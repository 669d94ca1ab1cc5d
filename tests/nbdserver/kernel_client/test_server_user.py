"""Whose server it is that gets the disk of a device: with a process of another user, and a stand-in for the kernel."""

import os
import socket
from pathlib import Path

import pytest

from nbdserver.kernel_client import keeper as keeping
from nbdserver.kernel_client.dialing import dial
from nbdserver.kernel_client.export_address import ExportAddress
from nbdserver.kernel_client.lineage import Lineage, ask
from nbdserver.kernel_client.server_user import ELSEWHERE, ServerUser, stranger, user_of
from tests.nbdserver.kernel_client.kept_device import Place, kept, stranger_at
from tests.nbdserver.kernel_client.kernel_of_one_device import Kernel
from tests.support.other_users import NEIGHBOUR
from tests.support.processes import unused_port
from tests.support.requirements import require
from tests.support.waiting import until


@pytest.mark.parametrize("over", ["unix", "tcp"])
@pytest.mark.parametrize("told", [("a", "b"), ("lost",)])
async def test_a_stranger_gets_nothing_and_is_not_believed(
    kernel: Kernel, work: Path, notes: Path, caplog: pytest.LogCaptureFixture, over: str, told: tuple[str, ...]
) -> None:
    """Seen: who listened while the server was away, and said what it had said, got the filesystem and all writes to it;
    who said something else had the device detached."""
    require("root")
    port = unused_port() if over == "tcp" else 0
    place = Place(work / "s", port)
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        await place.stop()
        kernel.forget()
        said = work / "locks" / "nbd0"
        with stranger_at(work / "s", port, *told):
            await until(lambda: "it gets nothing" in said.read_text() or bool(kernel.asked) or task.done())
            assert (kernel.asked, kernel.taken, task.done()) == ([], [], False)
            complaints = [record.__dict__.get("error", "") for record in caplog.records]
        assert sum("it gets nothing" in each for each in complaints) == 1
        await place.serve("a", "b")
        await until(lambda: len(kernel.taken) == 2)
    await place.stop()


async def test_a_stranger_who_comes_right_behind_the_server_gets_nothing(
    kernel: Kernel, work: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was there when it was asked, and not any more when it was connected."""
    require("root")
    place = Place(work / "s")
    await place.serve("a")
    async with kept(place, kernel, work, "a-1.0") as task:
        await place.stop()
        kernel.forget()

        async def answered(address: ExportAddress, since: str | None) -> Lineage:
            return Lineage("a-1.0", True, ServerUser(True, 0))

        said = work / "locks" / "nbd0"
        with stranger_at(work / "s", 0, "a"):
            monkeypatch.setattr(keeping, "ask", answered)
            await until(lambda: "it gets nothing" in said.read_text() or bool(kernel.asked) or task.done())
            assert (kernel.asked, kernel.taken, task.done()) == ([], [], False)


@pytest.mark.parametrize("over", ["unix", "tcp"])
async def test_the_kernel_says_whose_it_is(work: Path, over: str) -> None:
    port = unused_port() if over == "tcp" else 0
    place = Place(work / "s", port)
    await place.serve("a")
    ours = ServerUser(True, os.geteuid())
    connection = await dial(place.address)
    connection.sock.close()
    assert connection.server == (await ask(place.address, None)).server == ours
    await place.stop()
    require("root")
    with stranger_at(work / "s", port, "a"):
        connection = await dial(place.address)
        connection.sock.close()
        assert connection.server == (await ask(place.address, None)).server == ServerUser(True, NEIGHBOUR)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_server_that_listens_to_both_families(family: socket.AddressFamily) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        with socket.create_connection((host, listener.getsockname()[1])) as ours, listener.accept()[0]:
            assert user_of(ours) == ServerUser(True, os.geteuid())


def test_who_has_closed_is_nobody() -> None:
    """Of a connection without a process the kernel says that it is root's."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as ours,
    ):
        listener.accept()[0].close()
        assert user_of(ours) == ServerUser(True, None)


def test_whom_a_device_goes_on_with() -> None:
    own, known, other = os.geteuid(), 12345, 54321
    for uid in (known, own, 0):
        assert stranger(known, ServerUser(True, uid)) is None
    assert "user 54321 answers there" in (stranger(known, ServerUser(True, other)) or "")
    assert "does not say whose" in (stranger(known, ServerUser(True, None)) or "")
    assert stranger(known, ELSEWHERE) is None, "the server has come to another machine"
    for anybody in (ServerUser(True, other), ServerUser(True, None), ELSEWHERE):
        assert stranger(None, anybody) is None, "it was not known when the device was attached"
