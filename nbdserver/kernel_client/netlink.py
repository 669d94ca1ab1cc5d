"""Generic netlink messages as bytes: built, and taken apart.

Layouts are those of linux/netlink.h and linux/genetlink.h, in the machine's byte order: a message is a header, a
generic header and attributes; an attribute is a length, a kind and a value, filled up to four bytes. What comes in is
checked against its own lengths and raises `Malformed`.
"""

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

NLMSG_ERROR = 2
"""The kind of a message that answers a request: 0, or an errno below zero."""

NLM_F_REQUEST = 1
NLM_F_ACK = 4
NLA_TYPE_MASK = 0x3FFF
"""Kinds of attributes less the flags "nested" and "in network byte order"."""

GENL_ID_CTRL = 0x10
"""The family that knows all others by name."""
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2
CTRL_ATTR_MCAST_GROUPS = 7
CTRL_ATTR_MCAST_GRP_NAME = 1
CTRL_ATTR_MCAST_GRP_ID = 2

MESSAGE_HEADER = struct.Struct("=IHHII")
"""Length with this header, kind (of a request the family), flags, sequence, port."""
COMMAND_HEADER = struct.Struct("=BBH")
"""Command, version, reserved."""
ATTRIBUTE_HEADER = struct.Struct("=HH")
"""Length with this header and without filling, kind."""
_ERROR = struct.Struct("=i")

Attributes = dict[int, bytes]
"""Values by kind; of several of a kind the last, as the kernel takes them."""


class Malformed(ValueError):
    """Bytes that are no netlink message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: `body` is all behind its header."""

    kind: int
    sequence: int
    body: bytes

    @property
    def error(self) -> int | None:
        """Of an answer that ends a request: 0, or the errno; None for any other message."""
        if self.kind != NLMSG_ERROR:
            return None
        if len(self.body) < _ERROR.size:
            raise Malformed("an answer without its error number")
        return -int(_ERROR.unpack_from(self.body)[0])

    @property
    def command(self) -> int:
        """What a generic message is about."""
        return self._generic()[0]

    @property
    def attributes(self) -> Attributes:
        """What a generic message says."""
        return dict(attributes(self._generic()[1]))

    def _generic(self) -> tuple[int, bytes]:
        if len(self.body) < COMMAND_HEADER.size:
            raise Malformed("a generic message without its header")
        return self.body[0], self.body[COMMAND_HEADER.size :]


def request(family: int, command: int, version: int, sequence: int, *values: bytes) -> bytes:
    """A request that is answered with an error number, 0 if it was done."""
    body = COMMAND_HEADER.pack(command, version, 0) + b"".join(values)
    length = MESSAGE_HEADER.size + len(body)
    return MESSAGE_HEADER.pack(length, family, NLM_F_REQUEST | NLM_F_ACK, sequence, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, filled up."""
    length = ATTRIBUTE_HEADER.size + len(value)
    return ATTRIBUTE_HEADER.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, *values: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind, b"".join(values))


def u32(kind: int, value: int) -> bytes:
    """An attribute of 32 bits."""
    return attribute(kind, struct.pack("=I", value))


def u64(kind: int, value: int) -> bytes:
    """An attribute of 64 bits."""
    return attribute(kind, struct.pack("=Q", value))


def text(kind: int, value: str) -> bytes:
    """A string with its final NUL. ValueError: it has one inside, where it would end."""
    if "\0" in value:
        raise ValueError(f"{value!r} has a NUL inside")
    return attribute(kind, value.encode(errors="surrogateescape") + b"\0")


def number(value: bytes) -> int:
    """The number an attribute of 8 to 64 bits holds."""
    if len(value) not in (1, 2, 4, 8):
        raise Malformed(f"a number of {len(value)} bytes")
    return int.from_bytes(value, sys.byteorder)


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages that came together."""
    place = 0
    while place < len(datagram):
        if len(datagram) - place < MESSAGE_HEADER.size:
            raise Malformed("a message ends within its header")
        length, kind, _, sequence, _ = MESSAGE_HEADER.unpack_from(datagram, place)
        if not MESSAGE_HEADER.size <= length <= len(datagram) - place:
            raise Malformed(f"a message of {length} bytes in {len(datagram) - place}")
        yield Message(kind, sequence, datagram[place + MESSAGE_HEADER.size : place + length])
        place += length + -length % 4


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kinds and values of the attributes in `data`, which may be the value of one that holds others."""
    place = 0
    while place < len(data):
        if len(data) - place < ATTRIBUTE_HEADER.size:
            raise Malformed("an attribute ends within its header")
        length, kind = ATTRIBUTE_HEADER.unpack_from(data, place)
        if not ATTRIBUTE_HEADER.size <= length <= len(data) - place:
            raise Malformed(f"an attribute of {length} bytes in {len(data) - place}")
        yield kind & NLA_TYPE_MASK, data[place + ATTRIBUTE_HEADER.size : place + length]
        place += length + -length % 4
