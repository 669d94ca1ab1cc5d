"""Requests to the kernel's NBD client, byte for byte as linux/nbd-netlink.h has them, and its answers."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from nbdserver.kernel_client import nbd_family, netlink
from nbdserver.kernel_client.nbd_family import Timeouts

WAITS = Timeouts(request=10, dead=3600)


def test_connect() -> None:
    said = nbd_family.connect(3, 1 << 40, 0x16D, [7, 9], WAITS, "nbd://h/x")
    assert said == b"".join(
        (
            struct.pack("=HHI", 8, 1, 3),  # NBD_ATTR_INDEX
            struct.pack("=HHQ", 12, 2, 1 << 40),  # NBD_ATTR_SIZE_BYTES
            struct.pack("=HHQ", 12, 3, 512),  # NBD_ATTR_BLOCK_SIZE_BYTES
            struct.pack("=HHQ", 12, 5, 0x16D),  # NBD_ATTR_SERVER_FLAGS
            struct.pack("=HHQ", 12, 4, 10),  # NBD_ATTR_TIMEOUT
            struct.pack("=HHQ", 12, 8, 3600),  # NBD_ATTR_DEAD_CONN_TIMEOUT
            struct.pack("=HH10s2x", 14, 10, b"nbd://h/x\0"),  # NBD_ATTR_BACKEND_IDENTIFIER
            struct.pack("=HH", 28, 7),  # NBD_ATTR_SOCKETS
            *(struct.pack("=HHHHI", 12, 1, 8, 1, descriptor) for descriptor in (7, 9)),  # NBD_SOCK_ITEM, NBD_SOCK_FD
        )
    )


def test_any_free_device_is_asked_for_by_no_number() -> None:
    assert nbd_family.ATTR_INDEX not in dict(netlink.attributes(nbd_family.connect(None, 512, 0, [3], WAITS, "x")))


@given(st.integers(0, 1 << 31), st.integers(0, 1 << 60), st.lists(st.integers(0, 1 << 20), max_size=16))
def test_reconfigure(index: int, size: int, sockets: list[int]) -> None:
    said = dict(netlink.attributes(nbd_family.reconfigure(index, size, sockets, WAITS, "x")))
    assert nbd_family.index_of(said) == index
    assert netlink.number(said[nbd_family.ATTR_SIZE_BYTES]) == size
    items = [dict(netlink.attributes(item)) for _, item in netlink.attributes(said.get(nbd_family.ATTR_SOCKETS, b""))]
    assert [netlink.number(item[nbd_family.SOCK_FD]) for item in items] == sockets
    # A flag that is not said stays as it is: what the device may ask for was settled when it was attached.
    assert nbd_family.ATTR_SERVER_FLAGS not in said


@given(st.dictionaries(st.integers(0, 0xFFFFFFFF), st.booleans(), max_size=20))
def test_status(devices: dict[int, bool]) -> None:
    items = [
        netlink.nested(1, netlink.u32(1, index), netlink.attribute(2, bytes([used]))) for index, used in devices.items()
    ]
    said = netlink.request(30, nbd_family.CMD_STATUS, 1, 1, netlink.nested(nbd_family.ATTR_DEVICE_LIST, *items))
    [message] = netlink.messages(said)
    assert nbd_family.connected(message.attributes) == devices


def test_the_group_of_dead_connections() -> None:
    groups = [
        netlink.nested(number, netlink.text(1, name), netlink.u32(2, identity))
        for number, name, identity in ((1, "another", 5), (2, "nbd_mc_group", 9))
    ]
    family = dict(netlink.attributes(netlink.nested(netlink.CTRL_ATTR_MCAST_GROUPS, *groups)))
    assert nbd_family.group_of(family, nbd_family.DEAD_LINKS) == 9
    assert nbd_family.group_of({}, nbd_family.DEAD_LINKS) is None
