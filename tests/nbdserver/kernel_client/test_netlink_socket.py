"""The conversation with the kernel: what is asked, whose answer counts, and its refusals as sentences."""

import errno
import struct
from collections.abc import Callable

import pytest

from nbdserver.kernel_client import nbd_family, netlink, netlink_socket
from nbdserver.kernel_client.nbd_family import Timeouts
from nbdserver.kernel_client.netlink_socket import KernelClient
from storage.errors import AccessDenied, Conflict, Invalid, StorageError, Unsupported

FAMILY, GROUP = 30, 9
WAITS = Timeouts(10, 3600)


class SocketOfKernel:
    """A netlink socket whose other end is a kernel that refuses with `refusals`, by command."""

    def __init__(self, refusals: dict[int, int]) -> None:
        self.refusals = refusals
        self.asked: list[tuple[int, netlink.Attributes]] = []
        self.options: list[tuple[object, ...]] = []
        self.closed = False
        self._answers: list[bytes] = []

    def send(self, datagram: bytes) -> None:
        (asked,) = netlink.messages(datagram)
        self.asked.append((asked.command, asked.attributes))
        number = self.refusals.get(asked.command if asked.kind == FAMILY else 0, 0)
        body = b"" if number else self._body(asked)
        self._answers = [
            message(asked.sequence - 1, -errno.EIO),  # of a question before, which nobody waited for
            *([netlink.request(FAMILY, asked.command, 1, asked.sequence, body)] if body else []),
            message(asked.sequence, -number),
        ]

    def recv(self, _: int) -> bytes:
        return self._answers.pop(0)

    def setsockopt(self, *option: object) -> None:
        self.options.append(option)

    def setblocking(self, flag: bool) -> None:
        self.options.append(("blocking", flag))

    def close(self) -> None:
        self.closed = True

    def _body(self, asked: netlink.Message) -> bytes:
        if asked.kind == netlink.GENL_ID_CTRL:
            group = netlink.nested(
                1, netlink.text(netlink.CTRL_ATTR_MCAST_GRP_NAME, nbd_family.DEAD_LINKS), netlink.u32(2, GROUP)
            )
            return netlink.attribute(1, struct.pack("=H", FAMILY)) + netlink.nested(7, group)
        if asked.command == nbd_family.CMD_STATUS:
            used = ((0, 0), (3, 1), (1, 1))
            items = [netlink.nested(1, netlink.u32(1, index), netlink.attribute(2, bytes([on]))) for index, on in used]
            return netlink.nested(nbd_family.ATTR_DEVICE_LIST, *items)
        return netlink.u32(nbd_family.ATTR_INDEX, 7)


def message(sequence: int, number: int) -> bytes:
    """An answer that ends a request."""
    body = struct.pack("=i", number)
    return netlink.MESSAGE_HEADER.pack(netlink.MESSAGE_HEADER.size + len(body), 2, 0, sequence, 0) + body


Make = Callable[..., KernelClient]


@pytest.fixture
def sockets() -> list[SocketOfKernel]:
    """Those that were opened; the first of each client is the one that asks."""
    return []


@pytest.fixture
def client(sockets: list[SocketOfKernel], monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(**refusals: int) -> KernelClient:
        def opened() -> SocketOfKernel:
            sockets.append(SocketOfKernel({int(command[1:]): number for command, number in refusals.items()}))
            return sockets[-1]

        monkeypatch.setattr(netlink_socket, "_netlink", opened)
        return KernelClient()

    return make


def test_what_is_done(client: Make, sockets: list[SocketOfKernel]) -> None:
    kernel = client()
    assert kernel.connect(None, 512, 0, [4], WAITS, "nbd://h/x") == 7
    kernel.reconfigure(7, 512, [5], WAITS, "nbd://h/x")
    assert kernel.in_use() == [1, 3]
    kernel.disconnect(7)
    commands = [command for command, _ in sockets[0].asked[1:]]
    assert commands == [1, 3, 5, 2]  # CONNECT, RECONFIGURE, STATUS, DISCONNECT
    kernel.dead_links()
    assert sockets[1].options == [(270, 1, GROUP), ("blocking", False)]


@pytest.mark.parametrize(
    ("number", "kind", "sentence"),
    [
        (errno.EBUSY, Conflict, "/dev/nbd7 is in use"),
        (errno.EPERM, AccessDenied, "only root"),
        (errno.EINVAL, Invalid, "the kernel refuses /dev/nbd7: Invalid argument"),
    ],
)
def test_what_is_refused(client: Make, number: int, kind: type[StorageError], sentence: str) -> None:
    kernel = client(_1=number, _2=number, _5=number)
    with pytest.raises(kind, match=sentence):
        kernel.connect(7, 512, 0, [4], WAITS, "nbd://h/x")
    with pytest.raises(kind, match=sentence):
        kernel.disconnect(7)
    with pytest.raises(kind):
        kernel.in_use()


def test_a_device_that_was_detached_gets_no_connection(client: Make) -> None:
    """Nor one that is attached to something else by now: whoever keeps it ends."""
    with pytest.raises(Conflict, match="not attached to nbd://h/x any more"):
        client(_3=errno.EINVAL).reconfigure(7, 512, [5], WAITS, "nbd://h/x")
    with pytest.raises(AccessDenied):
        client(_3=errno.EPERM).reconfigure(7, 512, [5], WAITS, "nbd://h/x")


def test_a_kernel_without_the_module(client: Make, sockets: list[SocketOfKernel]) -> None:
    with pytest.raises(Unsupported, match="run modprobe nbd"):
        client(_0=errno.ENOENT)
    assert sockets[0].closed
