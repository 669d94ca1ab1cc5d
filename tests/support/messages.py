"""The wire as tests know it: its numbers, and what a client says, including what no client should say.

Numbers are those of the specification's section "Values", written down here once more: a mistake in the server's own
(`nbdserver.protocol.wire`) must not be in its tests too. Who reads a server's answers has them from here.
"""

import struct

IHAVEOPT = 0x49484156454F5054
REQUEST_MAGIC = 0x25609513
EXTENDED_REQUEST_MAGIC = 0x21E41C71

EXPORT_NAME, ABORT, LIST, PEEK_EXPORT, STARTTLS, INFO, GO = range(1, 8)
STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT, EXTENDED_HEADERS = range(8, 12)

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, RESIZE = range(9)
FLAG_HAS_FLAGS, FLAG_READ_ONLY, FLAG_SEND_FLUSH, FLAG_SEND_FUA = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FLAG_SEND_TRIM, FLAG_SEND_WRITE_ZEROES, FLAG_SEND_DF, FLAG_CAN_MULTI_CONN = 1 << 5, 1 << 6, 1 << 7, 1 << 8
FLAG_SEND_CACHE, FLAG_SEND_FAST_ZERO = 1 << 10, 1 << 11
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))

OPTIONS = (
    "0", "EXPORT_NAME", "ABORT", "LIST", "PEEK_EXPORT", "STARTTLS", "INFO", "GO", "STRUCTURED_REPLY",
    "LIST_META_CONTEXT", "SET_META_CONTEXT", "EXTENDED_HEADERS",
)  # fmt: skip
INFOS = {0: "EXPORT", 1: "NAME", 2: "DESCRIPTION", 3: "BLOCK_SIZE"}
OPTION_ERRORS = {
    1: "UNSUP", 2: "POLICY", 3: "INVALID", 4: "PLATFORM", 5: "TLS_REQD", 6: "UNKNOWN", 7: "SHUTDOWN",
    8: "BLOCK_SIZE_REQD", 9: "TOO_BIG", 10: "EXT_HEADER_REQD",
}  # fmt: skip
ERRORS = {
    1: "EPERM", 5: "EIO", 12: "ENOMEM", 22: "EINVAL", 28: "ENOSPC", 75: "EOVERFLOW", 95: "ENOTSUP",
    108: "ESHUTDOWN",
}  # fmt: skip

GREETING = struct.pack(">QQH", 0x4E42444D41474943, 0x49484156454F5054, 3)
OPTION_REPLY_MAGIC = struct.pack(">Q", 0x3E889045565A9)
SIMPLE_MAGIC = struct.pack(">I", 0x67446698)
STRUCTURED_MAGIC = struct.pack(">I", 0x668E33EF)
EXTENDED_MAGIC = struct.pack(">I", 0x6E8A278C)
PADDING_BYTES = 124
"""Zeros behind the answer to EXPORT_NAME, unless the client asked for none."""

REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT, REP_ERROR = 1, 2, 3, 4, 1 << 31
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_STATUS_EXT = 0, 1, 2, 5, 6
CHUNK_ERROR, CHUNK_ERROR_OFFSET = (1 << 15 | number for number in (1, 2))
CHUNK_DONE = 1
"""The flag of the last chunk of a reply."""

BASE = "base:allocation"

PLAIN_FLAGS, FIXED_FLAGS, ZEROLESS_PLAIN_FLAGS, FIXED_ZEROLESS_FLAGS = (
    struct.pack(">I", flags) for flags in (0, 1, 2, 3)
)


def option(number: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    """An option; `length` says another length than that of the data."""
    return struct.pack(">QII", IHAVEOPT, number, len(data) if length is None else length) + data


def acknowledged(number: int) -> bytes:
    """What a server says at the end of an option that it carried out."""
    return OPTION_REPLY_MAGIC + struct.pack(">III", number, REP_ACK, 0)


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


def write(offset: int, data: bytes = b"s" * 4096, *, cookie: int = 1, fua: bool = False) -> bytes:
    """One WRITE; its cookie, and those of `read` and `flush`, differ, so that their answers can be told apart."""
    return request(WRITE, offset, data=data, cookie=cookie, flags=FUA if fua else 0)


def read(offset: int = 0, length: int = 4096, *, cookie: int = 2) -> bytes:
    return request(READ, offset, length, cookie=cookie)


def flush(cookie: int = 3) -> bytes:
    return request(FLUSH, cookie=cookie)


GOODBYE = request(DISC)


def simple(name: str = "disk") -> bytes:
    """A handshake up to the transmission phase with simple replies."""
    return FIXED_ZEROLESS_FLAGS + go(name)


def structured(name: str = "disk") -> bytes:
    """The same with structured replies and base:allocation."""
    return FIXED_ZEROLESS_FLAGS + option(STRUCTURED_REPLY) + set_contexts(name, BASE) + go(name)


def extended_headers(name: str = "disk") -> bytes:
    """The same with extended headers."""
    return FIXED_ZEROLESS_FLAGS + option(EXTENDED_HEADERS) + set_contexts(name, BASE) + go(name)
