"""What the kernel tells of dead connections, as it comes over a socket, and what was lost of that."""

import errno
import socket
from collections.abc import Iterator

import pytest

from nbdserver.kernel_client import nbd_family, netlink
from nbdserver.kernel_client.netlink_socket import news

DEAD = nbd_family.CMD_LINK_DEAD


@pytest.fixture
def told() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket that is listened on, not blocking, and the other end."""
    listener, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.setblocking(False)
    with listener, other:
        yield listener, other


def message(command: int, index: int) -> bytes:
    return netlink.request(30, command, 1, 0, netlink.u32(nbd_family.ATTR_INDEX, index))


@pytest.mark.parametrize(
    ("said", "want"),
    [
        ([], False),
        ([message(DEAD, 3)], True),
        ([message(DEAD, 4)], False),
        ([message(nbd_family.CMD_STATUS, 3)], False),
        ([message(DEAD, 4) + message(DEAD, 3)], True),
        ([message(DEAD, 3), message(DEAD, 4)], True),
    ],
)
def test_of_one_device(told: tuple[socket.socket, socket.socket], said: list[bytes], want: bool) -> None:
    listener, other = told
    for each in said:
        other.send(each)
    assert news(listener, 3) is want
    assert news(listener, 3) is False, "all of it was taken"


class Overrun:
    """A socket whose room was too small: what it says of that, and then nothing."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked = 0

    def recv(self, _: int) -> bytes:
        self.asked += 1
        if self.asked > 1:
            raise BlockingIOError
        raise OSError(self.number, "said by the test")


def test_what_was_lost_may_have_been_of_it() -> None:
    assert news(Overrun(errno.ENOBUFS), 3) is True  # type: ignore[arg-type]
    with pytest.raises(OSError, match="said by the test"):
        news(Overrun(errno.EBADF), 3)  # type: ignore[arg-type]
