"""Rows of the table of bad inputs that are about the handshake."""

import struct

from tests.nbdserver.protocol.bad_input import (
    GONE,
    LIST,
    LISTED,
    MIB,
    SIZE,
    Case,
    closed,
    goes_on,
)
from tests.support import messages as m

HANDSHAKE = [
    closed("1 client flag 4", bytes.fromhex("00000004"), before=b""),
    closed("1 all client flags", bytes.fromhex("ffffffff"), before=b""),
    closed("2 an HTTP client", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", before=b""),
    closed("2 a TLS client", bytes.fromhex("16030100c8010000c40303") + bytes(200), before=b""),
    closed("2 an SSH client", b"SSH-2.0-OpenSSH_9.2\r\n", before=b""),
    Case("4 no flags", m.option(m.EXPORT_NAME, b"disk"), [f"export {SIZE} padded"], before=m.PLAIN_FLAGS),
    Case(
        "4 only NO_ZEROES",
        m.option(m.EXPORT_NAME, b"disk"),
        [f"export {SIZE}"],
        before=struct.pack(">I", 2),
    ),
    Case("4 fixed", m.option(m.EXPORT_NAME, b"disk"), [f"export {SIZE} padded"]),
    Case("4 fixed, NO_ZEROES", m.option(m.EXPORT_NAME, b"disk"), [f"export {SIZE}"], before=m.FIXED_ZEROLESS_FLAGS),
    closed("5 LIST without the fix", LIST, before=m.PLAIN_FLAGS),
    closed("5 GO without the fix", m.go(), before=m.PLAIN_FLAGS),
    closed("5 an unknown option without the fix", m.option(99), before=m.PLAIN_FLAGS),
    closed("6 option magic off by one bit", b"IHAVEOPU" + LIST[8:]),
    goes_on("7 unknown option", m.option(0xDEADBEEF), "3735928559: ERR_UNSUP"),
    goes_on("7 option 0", m.option(0), "0: ERR_UNSUP"),
    goes_on("7 option 4 (withdrawn)", m.option(4), "PEEK_EXPORT: ERR_UNSUP"),
    goes_on("8 unknown option with data", m.option(0xDEADBEEF, b"hello"), "3735928559: ERR_UNSUP"),
    closed("9 LIST of 4 GiB", m.option(m.LIST, length=0xFFFFFFFF)),
    closed("9 unknown option of 4 GiB", m.option(99, length=0xFFFFFFFF)),
    closed("9 one byte over what is discarded", m.option(m.GO, length=MIB + 1)),
    goes_on("10 GO of 64 KiB + 1", m.option(m.GO, bytes(65537)), "GO: ERR_TOO_BIG"),
    goes_on("10 unknown option of 100,000 bytes", m.option(99, bytes(100_000)), "99: ERR_UNSUP"),
    goes_on("11 LIST with a byte", m.option(m.LIST, b"x"), "LIST: ERR_INVALID"),
    goes_on(
        "12 STRUCTURED_REPLY with data",
        m.option(m.STRUCTURED_REPLY, b"data"),
        "STRUCTURED_REPLY: ERR_INVALID",
    ),
    goes_on(
        "12 STRUCTURED_REPLY twice",
        m.option(m.STRUCTURED_REPLY) * 2,
        "STRUCTURED_REPLY: ACK",
        "STRUCTURED_REPLY: ACK",
    ),
    closed("13 ABORT", m.option(m.ABORT), "ABORT: ACK"),
    closed("13 ABORT with data", m.option(m.ABORT, b"bye") + LIST, "ABORT: ACK"),
    closed("14 EXPORT_NAME unknown", m.option(m.EXPORT_NAME, b"nothing")),
    closed("14 EXPORT_NAME of 4097 bytes", m.option(m.EXPORT_NAME, b"x" * 4097)),
    closed("14 EXPORT_NAME without a default", m.option(m.EXPORT_NAME)),
    closed("14 EXPORT_NAME not UTF-8", m.option(m.EXPORT_NAME, b"\xff\xfe")),
    *(goes_on(f"15 GO of {count} bytes", m.option(m.GO, bytes(count)), "GO: ERR_INVALID") for count in range(6)),
    goes_on(
        "16 name length ffffffff",
        m.option(m.GO, struct.pack(">I4sH", 0xFFFFFFFF, b"disk", 0)),
        "GO: ERR_INVALID",
    ),
    goes_on("16 name reaches into the count", m.option(m.GO, struct.pack(">I4sH", 5, b"disk", 0)), "GO: ERR_INVALID"),
    goes_on("17 unknown name of 1025 bytes", m.go("n" * 1025), "GO: ERR_UNKNOWN"),
    goes_on("17 unknown name of 4096 bytes", m.go("n" * 4096), "GO: ERR_UNKNOWN"),
    goes_on("18 name of 4097 bytes", m.go("n" * 4097), "GO: ERR_INVALID"),
    goes_on(
        "18 65,535 requests, none there", m.option(m.GO, struct.pack(">I4sH", 4, b"disk", 0xFFFF)), "GO: ERR_INVALID"
    ),
    goes_on("18 one request in 3 bytes", m.option(m.GO, m.go()[16:-2] + b"\0\1\0\0\0"), "GO: ERR_INVALID"),
    goes_on("18 bytes left over", m.option(m.GO, m.go()[16:] + b"x"), "GO: ERR_INVALID"),
    Case("19 unknown information", m.go("disk", 1234), GONE),
    Case("20 information asked twice", m.go("disk", 3, 3), ["GO: INFO_EXPORT", "GO: INFO_BLOCK_SIZE", "GO: ACK"]),
    Case(
        "20 all information",
        m.go("disk", 0, 1, 2, 3),
        [
            "GO: INFO_EXPORT",
            "GO: INFO_NAME",
            "GO: INFO_DESCRIPTION",
            "GO: INFO_BLOCK_SIZE",
            "GO: ACK",
        ],
    ),
    goes_on("21 name with NUL", m.go("di\0sk"), "GO: ERR_INVALID"),
    goes_on("21 name not UTF-8", m.go(b"\xff\xfe"), "GO: ERR_INVALID"),
    *(
        goes_on(f"21 name {name[:8]!r}", m.go(name), "GO: ERR_UNKNOWN")
        for name in ("..", "a/../b", "/etc", "a//b", "/" * 65, "")
    ),
    Case("23 INFO then GO", m.info("disk") + m.go(), ["INFO: INFO_EXPORT", "INFO: ACK", *GONE]),
    Case("24 GO that fails, LIST, GO", m.go("no") + LIST + m.go(), ["GO: ERR_UNKNOWN", *LISTED, *GONE]),
    closed("25 the 65th option", m.option(99) * 65, *["99: ERR_UNSUP"] * 64),
    goes_on("27 STARTTLS with data", m.option(m.STARTTLS, b"x"), "STARTTLS: ERR_INVALID"),
    goes_on("27 STARTTLS", m.option(m.STARTTLS), "STARTTLS: ERR_UNSUP"),
    goes_on(
        "34 SET_META_CONTEXT too early",
        m.set_contexts("disk", m.BASE),
        "SET_META_CONTEXT: ERR_INVALID",
    ),
    goes_on(
        "34 LIST_META_CONTEXT too early",
        m.list_contexts("disk"),
        "LIST_META_CONTEXT: ERR_INVALID",
    ),
    goes_on("40 EXTENDED_HEADERS with data", m.option(11, b"x"), "EXTENDED_HEADERS: ERR_INVALID"),
    goes_on("40 EXTENDED_HEADERS", m.option(11), "EXTENDED_HEADERS: ACK"),
    goes_on("40 EXTENDED_HEADERS twice", m.option(11) * 2, "EXTENDED_HEADERS: ACK", "EXTENDED_HEADERS: ACK"),
    goes_on(
        "40 STRUCTURED_REPLY, then EXTENDED_HEADERS",
        m.option(8) + m.option(11),
        "STRUCTURED_REPLY: ACK",
        "EXTENDED_HEADERS: ACK",
    ),
    goes_on(
        "40 EXTENDED_HEADERS, then STRUCTURED_REPLY",
        m.option(11) + m.option(8),
        "EXTENDED_HEADERS: ACK",
        "STRUCTURED_REPLY: ERR_EXT_HEADER_REQD",
    ),
    closed("40 EXTENDED_HEADERS, then EXPORT_NAME", m.option(11) + m.option(1, b"disk"), "EXTENDED_HEADERS: ACK"),
    closed("74 a request before GO", m.request(m.READ, 0, 4096)),
    goes_on("74 INFO after a failed GO", m.go("no") + m.info("no"), "GO: ERR_UNKNOWN", "INFO: ERR_UNKNOWN"),
]

STRUCTURED = m.FIXED_FLAGS + m.option(m.STRUCTURED_REPLY)
SET, LIST_CONTEXTS = m.SET_META_CONTEXT, m.LIST_META_CONTEXT
STATUS = m.request(m.BLOCK_STATUS, 0, 4096)


def context_case(name: str, say: bytes, *expect: str) -> Case:
    return Case(name, say + LIST, ["STRUCTURED_REPLY: ACK", *expect, *LISTED], before=STRUCTURED)


CONTEXTS = [
    context_case(
        "35 queries ffffffff",
        m.option(SET, struct.pack(">I4sI", 4, b"disk", 0xFFFFFFFF)),
        "SET_META_CONTEXT: ERR_INVALID",
    ),
    context_case(
        "35 query past the end",
        m.option(SET, struct.pack(">I4sII4s", 4, b"disk", 1, 5, b"base")),
        "SET_META_CONTEXT: ERR_INVALID",
    ),
    context_case(
        "35 name past the end", m.option(SET, struct.pack(">I4s", 99, b"disk")), "SET_META_CONTEXT: ERR_INVALID"
    ),
    context_case(
        "35 unknown export", m.option(SET, m.context_data("nothing", m.BASE)), "SET_META_CONTEXT: ERR_UNKNOWN"
    ),
    context_case("36 no namespace", m.option(SET, m.context_data("disk", "foo")), "SET_META_CONTEXT: ERR_INVALID"),
    context_case("36 unknown namespace", m.option(SET, m.context_data("disk", "x-no:y")), "SET_META_CONTEXT: ACK"),
    context_case("36 SET base:", m.option(SET, m.context_data("disk", "base:")), "SET_META_CONTEXT: ACK"),
    context_case("36 SET nothing", m.option(SET, m.context_data("disk")), "SET_META_CONTEXT: ACK"),
    context_case("36 SET base:none", m.option(SET, m.context_data("disk", "base:none")), "SET_META_CONTEXT: ACK"),
    *(
        context_case(
            f"36 LIST {queries}",
            m.option(LIST_CONTEXTS, m.context_data("disk", *queries)),
            f"LIST_META_CONTEXT: META_CONTEXT 0 {m.BASE}",
            "LIST_META_CONTEXT: ACK",
        )
        for queries in ((), ("base:",), (m.BASE,), ("x-no:y", "base:"))
    ),
    context_case("36 LIST x-no:", m.option(LIST_CONTEXTS, m.context_data("disk", "x-no:")), "LIST_META_CONTEXT: ACK"),
    context_case(
        "37 one query 1,000 times",
        m.option(SET, m.context_data("disk", *[m.BASE] * 1000)),
        f"SET_META_CONTEXT: META_CONTEXT 1 {m.BASE}",
        "SET_META_CONTEXT: ACK",
    ),
    Case(
        "38 a failed SET clears",
        m.option(SET, m.context_data("disk", m.BASE)) + m.option(SET, m.context_data("disk", "foo")) + m.go() + STATUS,
        [
            "STRUCTURED_REPLY: ACK",
            f"SET_META_CONTEXT: META_CONTEXT 1 {m.BASE}",
            "SET_META_CONTEXT: ACK",
            "SET_META_CONTEXT: ERR_INVALID",
            *GONE,
            "1: chunk error EINVAL",
        ],
        before=STRUCTURED,
    ),
    Case(
        "39 SET for another export",
        m.option(SET, m.context_data("locked", m.BASE)) + m.go() + STATUS,
        [
            "STRUCTURED_REPLY: ACK",
            f"SET_META_CONTEXT: META_CONTEXT 1 {m.BASE}",
            "SET_META_CONTEXT: ACK",
            *GONE,
            "1: chunk error EINVAL",
        ],
        before=STRUCTURED,
    ),
]
