"""This file knows how a client writes down what it says, including what no client should say.

Numbers are those of the specification's section "Values".
"""

import struct

IHAVEOPT = 0x49484156454F5054
REQUEST_MAGIC = 0x25609513
EXTENDED_REQUEST_MAGIC = 0x21E41C71

EXPORT_NAME, ABORT, LIST, PEEK_EXPORT, STARTTLS, INFO, GO = range(1, 8)
STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT, EXTENDED_HEADERS = range(8, 12)

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, RESIZE = range(9)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))

BASE = "base:allocation"

PLAIN_FLAGS, FIXED_FLAGS, ZEROLESS_PLAIN_FLAGS, FIXED_ZEROLESS_FLAGS = (
    struct.pack(">I", flags) for flags in (0, 1, 2, 3)
)


def option(number: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    """An option; `length` says another length than that of the data."""
    return struct.pack(">QII", IHAVEOPT, number, len(data) if length is None else length) + data


def text(value: str | bytes) -> bytes:
    """A string behind its 32 bits of length."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">I", len(raw)) + raw


def info_data(name: str | bytes, *wanted: int) -> bytes:
    """The data of INFO and GO."""
    return text(name) + struct.pack(f">H{len(wanted)}H", len(wanted), *wanted)


def go(name: str | bytes = "disk", *wanted: int) -> bytes:
    return option(GO, info_data(name, *wanted))


def info(name: str | bytes = "disk", *wanted: int) -> bytes:
    return option(INFO, info_data(name, *wanted))


def export_name(name: bytes = b"disk") -> bytes:
    return option(EXPORT_NAME, name)


def context_data(name: str | bytes, *queries: str | bytes) -> bytes:
    """The data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    return text(name) + struct.pack(">I", len(queries)) + b"".join(map(text, queries))


def set_contexts(name: str | bytes, *queries: str | bytes) -> bytes:
    return option(SET_META_CONTEXT, context_data(name, *queries))


def list_contexts(name: str | bytes, *queries: str | bytes) -> bytes:
    return option(LIST_META_CONTEXT, context_data(name, *queries))


def request(
    command: int,
    offset: int = 0,
    length: int | None = None,
    *,
    data: bytes = b"",
    flags: int = 0,
    cookie: int = 1,
    magic: int = REQUEST_MAGIC,
) -> bytes:
    """A compact request; its length is that of the data unless given."""
    size = len(data) if length is None else length
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, size) + data


def extended(
    command: int,
    offset: int = 0,
    length: int | None = None,
    *,
    data: bytes = b"",
    flags: int = 0,
    cookie: int = 1,
    magic: int = EXTENDED_REQUEST_MAGIC,
) -> bytes:
    """An extended request; PAYLOAD_LEN is set where there are data."""
    size = len(data) if length is None else length
    return struct.pack(">IHHQQQ", magic, flags | (PAYLOAD_LEN if data else 0), command, cookie, offset, size) + data


def status_payload(length: int, *contexts: int) -> bytes:
    """The payload of BLOCK_STATUS: 64 bits effect length, then context ids."""
    return struct.pack(f">Q{len(contexts)}I", length, *contexts)
