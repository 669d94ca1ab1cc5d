"""What is said to the kernel's NBD client, and what it says, as bytes: the netlink family `nbd`.

Numbers are those of linux/nbd-netlink.h. Two things of drivers/block/nbd.c that no header says: RECONFIGURE answers 0
also when no connection is dead and the socket was not taken (see `netlink_socket.was_taken`); and a device remembers
the text it was attached with, its *backend*, and takes a RECONFIGURE only with the same one (Linux 5.14 and later,
where it can also be read from sysfs).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nbdserver.kernel_client import netlink

FAMILY = "nbd"
VERSION = 1
DEAD_LINKS = "nbd_mc_group"
"""The multicast group in which the kernel tells of connections that died."""

CMD_CONNECT = 1
CMD_DISCONNECT = 2
CMD_RECONFIGURE = 3
CMD_LINK_DEAD = 4
CMD_STATUS = 5

ATTR_INDEX = 1
ATTR_SIZE_BYTES = 2
ATTR_BLOCK_SIZE_BYTES = 3
ATTR_TIMEOUT = 4
ATTR_SERVER_FLAGS = 5
ATTR_SOCKETS = 7
ATTR_DEAD_CONN_TIMEOUT = 8
ATTR_DEVICE_LIST = 9
ATTR_BACKEND_IDENTIFIER = 10

SOCK_ITEM = 1
SOCK_FD = 1
DEVICE_INDEX = 1
DEVICE_CONNECTED = 2

LOGICAL_BLOCK_BYTES = 512
"""The logical block of a device, as nbd-client has it: what one of the two wrote, the other reads."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the kernel waits, in seconds."""

    request: int
    """For the reply to one request, before it gives up that connection and sends the request on another. At least 1."""
    dead: int
    """For a connection, when there is none any more, before requests fail."""


def connect(index: int | None, size: int, flags: int, sockets: Sequence[int], waits: Timeouts, backend: str) -> bytes:
    """Attributes of CONNECT: device `index`, or any that is free, over these sockets (descriptors of this process)."""
    return b"".join(
        (
            b"" if index is None else netlink.u32(ATTR_INDEX, index),
            netlink.u64(ATTR_SIZE_BYTES, size),
            netlink.u64(ATTR_BLOCK_SIZE_BYTES, LOGICAL_BLOCK_BYTES),
            netlink.u64(ATTR_SERVER_FLAGS, flags),
            _common(sockets, waits, backend),
        )
    )


def reconfigure(index: int, size: int, sockets: Sequence[int], waits: Timeouts, backend: str) -> bytes:
    """Attributes of RECONFIGURE: new sockets for connections that are dead."""
    return b"".join(
        (
            netlink.u32(ATTR_INDEX, index),
            netlink.u64(ATTR_SIZE_BYTES, size),
            _common(sockets, waits, backend),
        )
    )


def disconnect(index: int) -> bytes:
    """Attributes of DISCONNECT: whatever waits for the device fails."""
    return netlink.u32(ATTR_INDEX, index)


def connected(status: netlink.Attributes) -> dict[int, bool]:
    """What an answer to STATUS says: the devices there are, and whether each is attached or opened."""
    found = {}
    for _, item in netlink.attributes(status.get(ATTR_DEVICE_LIST, b"")):
        device = dict(netlink.attributes(item))
        if DEVICE_INDEX in device and DEVICE_CONNECTED in device:
            found[netlink.number(device[DEVICE_INDEX])] = bool(netlink.number(device[DEVICE_CONNECTED]))
    return found


def index_of(values: netlink.Attributes) -> int | None:
    """The device that an answer to CONNECT, or the news of a dead connection, is about."""
    value = values.get(ATTR_INDEX)
    return None if value is None else netlink.number(value)


def group_of(family: netlink.Attributes, name: str) -> int | None:
    """The number of a multicast group, from what the kernel says of a family."""
    for _, item in netlink.attributes(family.get(netlink.CTRL_ATTR_MCAST_GROUPS, b"")):
        group = dict(netlink.attributes(item))
        if group.get(netlink.CTRL_ATTR_MCAST_GRP_NAME, b"").rstrip(b"\0") == name.encode():
            number = group.get(netlink.CTRL_ATTR_MCAST_GRP_ID)
            return None if number is None else netlink.number(number)
    return None


def _common(sockets: Sequence[int], waits: Timeouts, backend: str) -> bytes:
    items = [netlink.nested(SOCK_ITEM, netlink.u32(SOCK_FD, descriptor)) for descriptor in sockets]
    return b"".join(
        (
            netlink.u64(ATTR_TIMEOUT, waits.request),
            netlink.u64(ATTR_DEAD_CONN_TIMEOUT, waits.dead),
            netlink.text(ATTR_BACKEND_IDENTIFIER, backend),
            netlink.nested(ATTR_SOCKETS, *items) if items else b"",
        )
    )
