"""What is attached, gone on with, left alone and detached: with the real server, and a stand-in for the kernel."""

import asyncio
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from nbdserver.exports import Exports
from nbdserver.kernel_client import attaching, keeper, staying
from nbdserver.kernel_client.attaching import FOR_EVER_SECONDS, AttachSettings, attach, detach, devices
from nbdserver.kernel_client.export_address import ExportAddress
from nbdserver.kernel_client.keeper import Keeper
from nbdserver.kernel_client.keeper_lock import KeeperLock, attaching_alone
from nbdserver.kernel_client.keeper_lock import keeper as keeper_of
from nbdserver.kernel_client.kernel_device import KernelDevice
from nbdserver.kernel_client.lineage import recall, recall_user, remember, remember_user
from nbdserver.kernel_client.nbd_family import Timeouts
from nbdserver.kernel_client.staying import Ending, stay
from nbdserver.server.listener import Listener
from storage.errors import Conflict, Invalid, RolledBack
from tests.nbdserver.kernel_client.kept_device import stranger_at
from tests.support.memory_device import MemoryDevice
from tests.support.requirements import require
from tests.support.waiting import soon, until

SIZE = 1 << 20


class ShownDevice(KernelDevice):
    """One that is in use as long as the folder that stands in for sysfs says so."""

    @property
    def claimed(self) -> bool:
        return (self.sys / f"nbd{self.index}" / "mounted").exists()


class DevicesOfKernel:
    """The kernel's client with as many devices as are asked for. It takes every socket, and notes what it is asked."""

    def __init__(self, sys: Path) -> None:
        self.sys = sys
        self.asked: list[tuple[object, ...]] = []
        self.blocking: list[bool] = []
        self.refusal: Exception | None = None
        self.refused: list[int] = []
        self._taken: list[socket.socket] = []
        self._used: set[int] = set()

    def __enter__(self) -> "DevicesOfKernel":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, index: int, **files: object) -> None:
        """What sysfs says of a device, which was opened at least once."""
        self._used.add(index)
        folder = self.sys / f"nbd{index}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (folder / name).write_text(f"{value}\n")

    def connect(
        self, index: int | None, size: int, flags: int, sockets: Sequence[int], waits: Timeouts, backend: str
    ) -> int:
        if self.refusal is not None:
            self.refused = list(sockets)
            raise self.refusal
        self.asked.append(("connect", index, size, len(set(sockets)), waits, backend))
        for descriptor in sockets:
            self._take(descriptor)
        number = 5 if index is None else index
        self.show(number, pid=1, size=size // 512, backend=backend)
        return number

    def reconfigure(self, index: int, size: int, sockets: Sequence[int], waits: Timeouts, backend: str) -> None:
        self.asked.append(("reconfigure", index, size, len(sockets), waits, backend))
        for descriptor in sockets:
            self._take(descriptor)

    def disconnect(self, index: int) -> None:
        self.asked.append(("disconnect", index))
        (self.sys / f"nbd{index}" / "pid").unlink()

    def in_use(self) -> list[int]:
        return sorted(self._used)

    def dead_links(self) -> socket.socket:
        listener, told = socket.socketpair()
        self._taken.append(told)
        listener.setblocking(False)
        return listener

    def close(self) -> None:
        for sock in self._taken:
            sock.close()

    def _take(self, descriptor: int) -> None:
        sock = socket.socket(fileno=socket.dup(descriptor))
        self.blocking.append(sock.getblocking() and os.get_blocking(descriptor))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
        self._taken.append(sock)


class Lineage:
    """Of a store: which incarnations nothing was lost since."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.id = known[-1]

    def is_unbroken_since(self, incarnation: str) -> bool:
        return incarnation in self.known


@pytest.fixture
def kernel(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DevicesOfKernel]:
    """The kernel, and this machine's notes of who keeps what, in a folder."""
    made = DevicesOfKernel(work / "sys")
    locks = work / "locks"
    monkeypatch.setattr(attaching, "KernelDevice", partial(ShownDevice, sys=made.sys))
    monkeypatch.setattr(attaching, "KeeperLock", partial(KeeperLock, folder=locks))
    monkeypatch.setattr(attaching, "attaching_alone", partial(attaching_alone, folder=locks))
    monkeypatch.setattr(attaching, "keeper", partial(keeper_of, folder=locks))
    monkeypatch.setattr(attaching, "recall", partial(recall, folder=locks))
    monkeypatch.setattr(attaching, "recall_user", partial(recall_user, folder=locks))
    monkeypatch.setattr(attaching, "remember_user", partial(remember_user, folder=locks))
    for module in (attaching, keeper):
        monkeypatch.setattr(module, "remember", partial(remember, folder=locks))
    yield made
    made.close()


@pytest.fixture
async def address(work: Path) -> AsyncIterator[ExportAddress]:
    """A server of `disk`."""
    disk = MemoryDevice(SIZE)
    disk.identity = "1.0"
    server = Listener(Exports(lambda _: disk, lambda: ["disk"], incarnation=lambda: Lineage("a")))
    await server.listen_unix(work / "s")
    yield ExportAddress("disk", unix=work / "s")
    await server.stop(0)


def end(kept: tuple[KernelDevice, Keeper, KeeperLock]) -> None:
    _, keeping, lock = kept
    keeping.close()
    lock.close()


async def test_what_the_kernel_is_asked_for(kernel: DevicesOfKernel, address: ExportAddress, work: Path) -> None:
    assert address.unix is not None
    kept = await attach(kernel, AttachSettings(address))  # type: ignore[arg-type]
    waits = Timeouts(10, FOR_EVER_SECONDS)
    assert kernel.asked == [("connect", None, SIZE, 3, waits, address.uri)]
    assert kernel.blocking == [True] * 3, "the kernel waits on them"
    assert recall(address, work / "locks") == "a-1.0"
    assert recall_user(address, work / "locks") == os.geteuid()
    assert kept[0].index == 5
    end(kept)
    kernel.disconnect(5)
    named = AttachSettings(address, ShownDevice(2, kernel.sys), connections=2, request_seconds=7, dead_seconds=8)
    end(await attach(kernel, named))  # type: ignore[arg-type]
    assert kernel.asked[2:] == [("connect", 2, SIZE, 2, Timeouts(7, 8), address.uri)]


@pytest.mark.parametrize(("host", "seconds"), [("127.0.0.1", 10), ("10.0.0.1", 30)])
def test_how_long_a_reply_is_waited_for(host: str, seconds: int) -> None:
    """From another machine a dead connection is noticed after 25 seconds: who sends again before that may be overtaken
    by what he sent first. A server that is away is waited for as long as it takes.
    """
    waits = AttachSettings(ExportAddress("disk", host)).waits
    assert waits.request == seconds
    assert waits.dead == FOR_EVER_SECONDS > 50 * 365 * 86400


async def test_a_refusal_of_the_kernel_leaves_nothing(kernel: DevicesOfKernel, address: ExportAddress) -> None:
    kernel.refusal = Conflict("in use")
    with pytest.raises(Conflict, match="in use"):
        await attach(kernel, AttachSettings(address))  # type: ignore[arg-type]
    assert len(kernel.refused) == 3
    for descriptor in kernel.refused:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


async def test_a_device_that_lost_its_keeper_is_gone_on_with(
    kernel: DevicesOfKernel, address: ExportAddress, work: Path
) -> None:
    """From the incarnation that is remembered: over a loss it is torn away, not gone on with."""
    kernel.show(1, pid=1, size=SIZE // 512, backend="nbd://elsewhere/disk")
    kernel.show(4, pid=1, size=SIZE // 512, backend=address.uri)
    for known in ("a-1.0", "lost-1.0"):
        remember(address, known, work / "locks")
        kept = await attach(kernel, AttachSettings(address, connections=2))  # type: ignore[arg-type]
        device, keeping, _ = kept
        assert device.index == 4
        assert not kernel.asked, "it is attached"
        task = asyncio.ensure_future(keeping.keep())
        if known == "a-1.0":
            waits = Timeouts(10, FOR_EVER_SECONDS)
            await until(lambda: len(kernel.asked) == 2)
            assert kernel.asked == [("reconfigure", 4, SIZE, 1, waits, address.uri)] * 2
            task.cancel()
            await asyncio.wait([task])
        else:
            with pytest.raises(RolledBack, match="writes that it had answered"):
                await soon(task)
            assert kernel.asked == [("disconnect", 4)]
        end(kept)
        kernel.asked.clear()


async def test_who_keeps_a_device_again_gives_it_to_no_stranger(kernel: DevicesOfKernel, work: Path) -> None:
    require("root")
    address = ExportAddress("disk", unix=work / "s")
    kernel.show(4, pid=1, size=SIZE // 512, backend=address.uri)
    remember(address, "a-1.0", work / "locks")
    remember_user(address, 0, work / "locks")
    with stranger_at(work / "s", 0, "a"):
        kept = await attach(kernel, AttachSettings(address))  # type: ignore[arg-type]
        task = asyncio.ensure_future(kept[1].keep())
        said = work / "locks" / "nbd4"
        await until(lambda: "answers there, and the device was attached to one of user root" in said.read_text())
        task.cancel()
        await asyncio.wait([task])
    end(kept)
    assert kernel.asked == []


async def test_one_that_is_read_only_is_gone_on_with(kernel: DevicesOfKernel, work: Path) -> None:
    """As it was attached, so it is served: nothing is missing of what the kernel may ask for."""
    disk = MemoryDevice(SIZE)
    disk.identity, disk.read_only = "1.0", True
    server = Listener(Exports(lambda _: disk, lambda: ["disk"], incarnation=lambda: Lineage("a")))
    await server.listen_unix(work / "s")
    address = ExportAddress("disk", unix=work / "s")
    kernel.show(4, pid=1, size=SIZE // 512, backend=address.uri, ro=1)
    remember(address, "a-1.0", work / "locks")
    kept = await attach(kernel, AttachSettings(address, connections=1))  # type: ignore[arg-type]
    task = asyncio.ensure_future(kept[1].keep())
    await until(lambda: len(kernel.asked) == 1)
    assert kernel.asked[0][:4] == ("reconfigure", 4, SIZE, 1)
    task.cancel()
    await asyncio.wait([task])
    end(kept)
    await server.stop(0)


async def test_two_at_once_attach_one_device(kernel: DevicesOfKernel, address: ExportAddress) -> None:
    """Both saw that the export was not attached, and two devices were one disk with two page caches."""
    both = [attach(kernel, AttachSettings(address)) for _ in range(2)]  # type: ignore[arg-type]
    first, second = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(second, Conflict)
    assert "is being attached already" in str(second)
    assert not isinstance(first, BaseException)
    assert [what for what, *_ in kernel.asked] == ["connect"]
    end(first)
    kernel.disconnect(5)
    end(await attach(kernel, AttachSettings(address)))  # type: ignore[arg-type]


async def test_what_somebody_keeps_or_has_is_left_alone(
    kernel: DevicesOfKernel, address: ExportAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.show(4, pid=1, size=SIZE // 512, backend=address.uri)
    with pytest.raises(Conflict, match=r"is attached as /dev/nbd4 already$"):
        await attach(kernel, AttachSettings(address, ShownDevice(2, kernel.sys)))  # type: ignore[arg-type]
    monkeypatch.setattr(attaching, "keeper", lambda index: (77, None) if index == 4 else (None, None))
    for device in (None, ShownDevice(4, kernel.sys)):
        with pytest.raises(Conflict, match="as /dev/nbd4 already, and process 77 keeps it so"):
            await attach(kernel, AttachSettings(address, device))  # type: ignore[arg-type]
    assert not kernel.asked
    # One that was detached and is still open is none.
    kernel.show(4, pid=-1)
    end(await attach(kernel, AttachSettings(address)))  # type: ignore[arg-type]
    assert [what for what, *_ in kernel.asked] == ["connect"]


def test_what_is_attached_is_listed(kernel: DevicesOfKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.show(1, pid=1, size=2048, backend="nbd://h/one")
    kernel.show(2, pid=1, size=2048)
    kernel.show(3, pid=0)
    monkeypatch.setattr(attaching, "keeper", lambda index: (77, "a server") if index == 1 else (None, None))
    found = [(each.device.index, each.keeper, each.waits_for) for each in devices(kernel)]  # type: ignore[arg-type]
    assert found == [(1, 77, "a server"), (2, None, None)]


def test_what_is_in_use_is_not_torn_away_unasked(kernel: DevicesOfKernel) -> None:
    device = ShownDevice(1, kernel.sys)
    with pytest.raises(Invalid, match="/dev/nbd1 is not attached"):
        detach(kernel, device, force=True)  # type: ignore[arg-type]
    kernel.show(1, pid=1, mounted=1)
    with pytest.raises(Conflict, match=r"/dev/nbd1 is in use: .*--force"):
        detach(kernel, device, force=False)  # type: ignore[arg-type]
    assert device.attached
    detach(kernel, device, force=True)  # type: ignore[arg-type]
    assert not device.attached


@pytest.mark.parametrize("mounted", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_detaches_what_nobody_uses(
    kernel: DevicesOfKernel,
    address: ExportAddress,
    monkeypatch: pytest.MonkeyPatch,
    mounted: bool,
    number: signal.Signals,
) -> None:
    """What is in use works on, and is there for who keeps it next."""
    endured: list[str] = []
    monkeypatch.setattr(staying, "KernelClient", lambda: kernel)
    monkeypatch.setattr(staying, "endure", lambda: endured)

    def ready(_: KernelDevice) -> None:
        os.kill(os.getpid(), number)

    if mounted:
        kernel.show(5, mounted=1)
    device, ending = await soon(asyncio.ensure_future(stay(AttachSettings(address), ready, lambda: None)))
    assert device.index == 5
    assert device.attached is mounted
    assert ending is (Ending.LEFT_ATTACHED if mounted else Ending.DETACHED)
    detached = [what for what, *_ in kernel.asked if what == "disconnect"]
    assert len(detached) == (not mounted)


@pytest.mark.parametrize("mounted", [True, False])
@pytest.mark.parametrize("where", ["told", "kept"])
async def test_one_that_fails_behind_the_kernel_is_detached(
    kernel: DevicesOfKernel, address: ExportAddress, monkeypatch: pytest.MonkeyPatch, where: str, mounted: bool
) -> None:
    """Who asked takes it that nothing is attached, and what nobody keeps waits for ever at the next restart."""
    monkeypatch.setattr(staying, "KernelClient", lambda: kernel)

    def fails(*_: object) -> None:
        raise BrokenPipeError

    if where == "kept":
        monkeypatch.setattr(attaching, "KeeperLock", fails)
    kernel.show(5, **({"mounted": 1} if mounted else {}))
    with pytest.raises(BrokenPipeError):
        await stay(AttachSettings(address), fails, lambda: None)
    assert ShownDevice(5, kernel.sys).attached is mounted
