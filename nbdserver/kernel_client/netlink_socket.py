"""The conversation with the kernel's NBD client over a netlink socket: requests, and the news of dead connections.

What it refuses comes as one sentence each: Unsupported (no module), AccessDenied (not root), Conflict (the device is in
use), Invalid (there is none of that number). A request to the kernel does not wait for any server.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

from nbdserver.kernel_client import nbd_family, netlink
from nbdserver.kernel_client.nbd_family import Timeouts
from storage.errors import AccessDenied, Conflict, Invalid, StorageError, Unsupported

NETLINK_GENERIC = 16
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
"""Of linux/netlink.h; the socket module has no names for them."""

DATAGRAM_BYTES_MAX = 1 << 16
TIMEVAL = struct.Struct("@ll")


class KernelClient:
    """The NBD client of this machine's kernel. Close it, or use it as a context."""

    def __init__(self) -> None:
        """Unsupported: the kernel has no NBD client, or it is not loaded."""
        self._socket = _netlink()
        self._sequence = 0
        try:
            self._family, self._group = self._look_up()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> KernelClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def connect(
        self, index: int | None, size: int, flags: int, sockets: Sequence[int], waits: Timeouts, backend: str
    ) -> int:
        """Attach an export over sockets that are in transmission; the index of the device, which is `index` if given.

        Conflict: that one is in use. The kernel keeps the sockets; ours may be closed.
        """
        said = nbd_family.connect(index, size, flags, sockets, waits, backend)
        with _explained(index):
            for answer in self._ask(nbd_family.CMD_CONNECT, said):
                found = nbd_family.index_of(answer.attributes)
                if found is not None:
                    return found
        raise Unsupported("the kernel attached a device and does not say which")

    def reconfigure(self, index: int, size: int, sockets: Sequence[int], waits: Timeouts, backend: str) -> None:
        """Give a device new sockets for dead connections; `was_taken` tells of each whether there was one.

        Conflict: the device is not attached, or not to `backend`.
        """
        said = nbd_family.reconfigure(index, size, sockets, waits, backend)
        try:
            self._ask(nbd_family.CMD_RECONFIGURE, said)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise Conflict(f"/dev/nbd{index} is not attached to {backend} any more") from None
            raise _sentence(error, index) from None

    def disconnect(self, index: int) -> None:
        """Detach a device; whatever waits for it fails."""
        with _explained(index):
            self._ask(nbd_family.CMD_DISCONNECT, nbd_family.disconnect(index))

    def in_use(self) -> list[int]:
        """The devices that are attached, or were and are still open."""
        found: list[int] = []
        with _explained(None):
            for answer in self._ask(nbd_family.CMD_STATUS, b""):
                found += [index for index, used in nbd_family.connected(answer.attributes).items() if used]
        return sorted(found)

    def dead_links(self) -> socket.socket:
        """A socket, not blocking, on which the kernel tells of connections that died: see `news`."""
        listener = _netlink()
        try:
            listener.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, self._group)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        return listener

    def _look_up(self) -> tuple[int, int]:
        """The numbers of the family and of its multicast group."""
        name = netlink.text(netlink.CTRL_ATTR_FAMILY_NAME, nbd_family.FAMILY)
        try:
            answers = self._ask(netlink.CTRL_CMD_GETFAMILY, name, family=netlink.GENL_ID_CTRL)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise Unsupported("the kernel's NBD client is not loaded: run modprobe nbd") from None
            raise
        for answer in answers:
            said = answer.attributes
            group = nbd_family.group_of(said, nbd_family.DEAD_LINKS)
            if netlink.CTRL_ATTR_FAMILY_ID in said and group is not None:
                return netlink.number(said[netlink.CTRL_ATTR_FAMILY_ID]), group
        raise Unsupported("the kernel's NBD client is too old: it tells nobody of dead connections")

    def _ask(self, command: int, values: bytes, *, family: int | None = None) -> list[netlink.Message]:
        """Ask, and take what comes up to the error number. OSError: it is not 0."""
        self._sequence += 1
        number = self._family if family is None else family
        self._socket.send(netlink.request(number, command, nbd_family.VERSION, self._sequence, values))
        answers: list[netlink.Message] = []
        while True:
            for message in netlink.messages(self._socket.recv(DATAGRAM_BYTES_MAX)):
                if message.sequence != self._sequence:
                    continue
                if message.error is None:
                    answers.append(message)
                elif message.error:
                    raise OSError(message.error, os.strerror(message.error))
                else:
                    return answers


def news(listener: socket.socket, index: int) -> bool:
    """Whether the kernel has told since of dead connections of a device; True too if something it told was lost."""
    told = False
    while True:
        try:
            datagram = listener.recv(DATAGRAM_BYTES_MAX)
        except BlockingIOError:
            return told
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            told = True
            continue
        for message in netlink.messages(datagram):
            if message.command == nbd_family.CMD_LINK_DEAD and nbd_family.index_of(message.attributes) == index:
                told = True


def was_taken(sock: socket.socket) -> bool:
    """Whether the kernel's client has taken a socket that was handed to it: then it has given it a time-out of its own
    for sending, the request time-out, which we never set."""
    seconds, microseconds = TIMEVAL.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, TIMEVAL.size))
    return (seconds, microseconds) != (0, 0)


def _netlink() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
    sock.bind((0, 0))
    return sock


@contextlib.contextmanager
def _explained(index: int | None) -> Iterator[None]:
    """Errors of the kernel as sentences."""
    try:
        yield
    except OSError as error:
        raise _sentence(error, index) from None


def _sentence(error: OSError, index: int | None) -> StorageError:
    device = "an NBD device" if index is None else f"/dev/nbd{index}"
    match error.errno:
        case errno.EPERM:
            return AccessDenied("the kernel lets only root attach and detach devices")
        case errno.EBUSY:
            return Conflict(f"{device} is in use: name another device, or none, and a free one is taken")
        case _:
            return Invalid(f"the kernel refuses {device}: {error.strerror}; its log (dmesg) may say more")
