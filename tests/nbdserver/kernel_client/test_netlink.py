"""Netlink messages: what is built is taken apart again, what is cut short is refused, and this kernel understands."""

import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbdserver.kernel_client import netlink
from nbdserver.kernel_client.netlink import Malformed, attributes, messages

kinds = st.integers(0, netlink.NLA_TYPE_MASK)
numbers = st.integers(0, 0xFFFFFFFF)
values = st.lists(st.tuples(kinds, st.binary(max_size=40)), max_size=6)


@given(values)
def test_attributes_come_back(given_values: list[tuple[int, bytes]]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in given_values)
    assert len(data) % 4 == 0
    assert list(attributes(data)) == given_values


@given(kinds, values)
def test_so_do_those_within_others(kind: int, given_values: list[tuple[int, bytes]]) -> None:
    data = netlink.nested(kind, *(netlink.attribute(*each) for each in given_values))
    [(found, inside)] = attributes(data)
    assert (found, list(attributes(inside))) == (kind, given_values)


@given(st.integers(0, 0xFFFF), st.integers(0, 255), numbers, values)
def test_a_request_is_one_message(
    family: int, command: int, sequence: int, given_values: list[tuple[int, bytes]]
) -> None:
    said = netlink.request(family, command, 1, sequence, *(netlink.attribute(*each) for each in given_values))
    [message] = messages(said)
    assert (message.kind, message.sequence) == (family, sequence)
    if family != netlink.NLMSG_ERROR:
        assert message.command == command
        assert message.attributes == dict(given_values)


@given(st.lists(st.tuples(st.integers(16, 0xFFFF), st.binary(max_size=30)), max_size=4))
def test_messages_that_came_together_are_told_apart(bodies: list[tuple[int, bytes]]) -> None:
    datagram = b""
    for kind, body in bodies:
        datagram += netlink.MESSAGE_HEADER.pack(netlink.MESSAGE_HEADER.size + len(body), kind, 0, 7, 0)
        datagram += body + bytes(-len(body) % 4)
    assert [(each.kind, each.body) for each in messages(datagram)] == bodies


@given(st.binary(max_size=80))
@example(struct.pack("=HH", 3, 1))
@example(struct.pack("=HH", 0, 1))
@example(netlink.MESSAGE_HEADER.pack(0, 1, 0, 0, 0))
@example(netlink.MESSAGE_HEADER.pack(17, 1, 0, 0, 0))
def test_nothing_but_malformed_comes_of_noise(data: bytes) -> None:
    """And it ends."""
    for read in (messages, attributes):
        try:
            for each in read(data):
                if isinstance(each, netlink.Message):
                    _ = each.error, each.command, each.attributes
        except Malformed:
            pass


@given(values.filter(len), st.data())
def test_what_is_cut_short_is_refused(given_values: list[tuple[int, bytes]], data: st.DataObject) -> None:
    whole = b"".join(netlink.attribute(kind, value) for kind, value in given_values[:-1])
    last = netlink.ATTRIBUTE_HEADER.pack(netlink.ATTRIBUTE_HEADER.size + 8, 1) + bytes(8)
    cut = data.draw(st.integers(1, len(last) - 1))
    with pytest.raises(Malformed):
        list(attributes(whole + last[:cut]))


@pytest.mark.parametrize("value", [0, 1, 0xFFFFFFFF])
def test_numbers(value: int) -> None:
    [(_, four)] = attributes(netlink.u32(1, value))
    [(_, eight)] = attributes(netlink.u64(1, value << 32 | value))
    assert (netlink.number(four), netlink.number(eight)) == (value, value << 32 | value)


def test_a_number_of_three_bytes_is_none() -> None:
    with pytest.raises(Malformed):
        netlink.number(b"abc")


def test_a_text_ends_with_nul_and_has_none_inside() -> None:
    assert netlink.text(1, "nbd") == struct.pack("=HH", 8, 1) + b"nbd\0"
    with pytest.raises(ValueError, match="NUL"):
        netlink.text(1, "a\0b")


def test_this_kernel_understands() -> None:
    """Asked for the family that every kernel has."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as sock:
        sock.settimeout(10)
        name = netlink.text(netlink.CTRL_ATTR_FAMILY_NAME, "nlctrl")
        sock.send(netlink.request(netlink.GENL_ID_CTRL, netlink.CTRL_CMD_GETFAMILY, 1, 42, name))
        found: list[netlink.Message] = []
        while not found or found[-1].error is None:
            found += messages(sock.recv(1 << 16))
    answer, end = found
    assert netlink.number(answer.attributes[netlink.CTRL_ATTR_FAMILY_ID]) == netlink.GENL_ID_CTRL
    assert (answer.sequence, end.sequence, end.error) == (42, 42, 0)
