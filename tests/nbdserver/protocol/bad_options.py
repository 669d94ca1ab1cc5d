"""Rows of the table of bad inputs that are about the handshake."""

import struct

from nbdserver.protocol import wire
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
from tests.support.speech import BASE, FIXED, FIXED_NO_ZEROES, PLAIN, contexts, go, info, opt, req

HANDSHAKE = [
    closed("1 client flag 4", bytes.fromhex("00000004"), before=b""),
    closed("1 all client flags", bytes.fromhex("ffffffff"), before=b""),
    closed("2 an HTTP client", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", before=b""),
    closed("2 a TLS client", bytes.fromhex("16030100c8010000c40303") + bytes(200), before=b""),
    closed("2 an SSH client", b"SSH-2.0-OpenSSH_9.2\r\n", before=b""),
    Case("4 no flags", opt(wire.OPT_EXPORT_NAME, b"disk"), [f"export {SIZE} padded"], before=PLAIN),
    Case(
        "4 only NO_ZEROES",
        opt(wire.OPT_EXPORT_NAME, b"disk"),
        [f"export {SIZE}"],
        before=struct.pack(">I", 2),
    ),
    Case("4 fixed", opt(wire.OPT_EXPORT_NAME, b"disk"), [f"export {SIZE} padded"]),
    Case("4 fixed, NO_ZEROES", opt(wire.OPT_EXPORT_NAME, b"disk"), [f"export {SIZE}"], before=FIXED_NO_ZEROES),
    closed("5 LIST without the fix", LIST, before=PLAIN),
    closed("5 GO without the fix", go(), before=PLAIN),
    closed("5 an unknown option without the fix", opt(99), before=PLAIN),
    closed("6 option magic off by one bit", b"IHAVEOPU" + LIST[8:]),
    goes_on("7 unknown option", opt(0xDEADBEEF), "3735928559: ERR_UNSUP"),
    goes_on("7 option 0", opt(0), "0: ERR_UNSUP"),
    goes_on("7 option 4 (withdrawn)", opt(4), "4: ERR_UNSUP"),
    goes_on("8 unknown option with data", opt(0xDEADBEEF, b"hello"), "3735928559: ERR_UNSUP"),
    closed("9 LIST of 4 GiB", opt(wire.OPT_LIST, length=0xFFFFFFFF)),
    closed("9 unknown option of 4 GiB", opt(99, length=0xFFFFFFFF)),
    closed("9 one byte over what is discarded", opt(wire.OPT_GO, length=MIB + 1)),
    goes_on("10 GO of 64 KiB + 1", opt(wire.OPT_GO, bytes(65537)), "GO: ERR_TOO_BIG"),
    goes_on("10 unknown option of 100,000 bytes", opt(99, bytes(100_000)), "99: ERR_UNSUP"),
    goes_on("11 LIST with a byte", opt(wire.OPT_LIST, b"x"), "LIST: ERR_INVALID"),
    goes_on(
        "12 STRUCTURED_REPLY with data",
        opt(wire.OPT_STRUCTURED_REPLY, b"data"),
        "STRUCTURED_REPLY: ERR_INVALID",
    ),
    goes_on(
        "12 STRUCTURED_REPLY twice",
        opt(wire.OPT_STRUCTURED_REPLY) * 2,
        "STRUCTURED_REPLY: ACK",
        "STRUCTURED_REPLY: ACK",
    ),
    closed("13 ABORT", opt(wire.OPT_ABORT), "ABORT: ACK"),
    closed("13 ABORT with data", opt(wire.OPT_ABORT, b"bye") + LIST, "ABORT: ACK"),
    closed("14 EXPORT_NAME unknown", opt(wire.OPT_EXPORT_NAME, b"nothing")),
    closed("14 EXPORT_NAME of 4097 bytes", opt(wire.OPT_EXPORT_NAME, b"x" * 4097)),
    closed("14 EXPORT_NAME without a default", opt(wire.OPT_EXPORT_NAME)),
    closed("14 EXPORT_NAME not UTF-8", opt(wire.OPT_EXPORT_NAME, b"\xff\xfe")),
    *(goes_on(f"15 GO of {count} bytes", opt(wire.OPT_GO, bytes(count)), "GO: ERR_INVALID") for count in range(6)),
    goes_on(
        "16 name length ffffffff",
        opt(wire.OPT_GO, struct.pack(">I4sH", 0xFFFFFFFF, b"disk", 0)),
        "GO: ERR_INVALID",
    ),
    goes_on("16 name reaches into the count", opt(wire.OPT_GO, struct.pack(">I4sH", 5, b"disk", 0)), "GO: ERR_INVALID"),
    goes_on("17 unknown name of 1025 bytes", go("n" * 1025), "GO: ERR_UNKNOWN"),
    goes_on("17 unknown name of 4096 bytes", go("n" * 4096), "GO: ERR_UNKNOWN"),
    goes_on("18 name of 4097 bytes", go("n" * 4097), "GO: ERR_INVALID"),
    goes_on(
        "18 65,535 requests, none there", opt(wire.OPT_GO, struct.pack(">I4sH", 4, b"disk", 0xFFFF)), "GO: ERR_INVALID"
    ),
    goes_on("18 one request in 3 bytes", opt(wire.OPT_GO, go()[16:-2] + b"\0\1\0\0\0"), "GO: ERR_INVALID"),
    goes_on("18 bytes left over", opt(wire.OPT_GO, go()[16:] + b"x"), "GO: ERR_INVALID"),
    Case("19 unknown information", go("disk", 1234), GONE),
    Case("20 information asked twice", go("disk", 3, 3), ["GO: INFO_EXPORT", "GO: INFO_BLOCK_SIZE", "GO: ACK"]),
    Case(
        "20 all information",
        go("disk", 0, 1, 2, 3),
        [
            "GO: INFO_EXPORT",
            "GO: INFO_NAME",
            "GO: INFO_DESCRIPTION",
            "GO: INFO_BLOCK_SIZE",
            "GO: ACK",
        ],
    ),
    goes_on("21 name with NUL", go("di\0sk"), "GO: ERR_INVALID"),
    goes_on("21 name not UTF-8", go(b"\xff\xfe"), "GO: ERR_INVALID"),
    *(
        goes_on(f"21 name {name[:8]!r}", go(name), "GO: ERR_UNKNOWN")
        for name in ("..", "a/../b", "/etc", "a//b", "/" * 65, "")
    ),
    Case("23 INFO then GO", info(wire.OPT_INFO, "disk") + go(), ["INFO: INFO_EXPORT", "INFO: ACK", *GONE]),
    Case("24 GO that fails, LIST, GO", go("no") + LIST + go(), ["GO: ERR_UNKNOWN", *LISTED, *GONE]),
    closed("25 the 65th option", opt(99) * 65, *["99: ERR_UNSUP"] * 64),
    goes_on("27 STARTTLS with data", opt(wire.OPT_STARTTLS, b"x"), "STARTTLS: ERR_INVALID"),
    goes_on("27 STARTTLS", opt(wire.OPT_STARTTLS), "STARTTLS: ERR_UNSUP"),
    goes_on(
        "34 SET_META_CONTEXT too early",
        contexts(wire.OPT_SET_META_CONTEXT, "disk", BASE),
        "SET_META_CONTEXT: ERR_INVALID",
    ),
    goes_on(
        "34 LIST_META_CONTEXT too early",
        contexts(wire.OPT_LIST_META_CONTEXT, "disk"),
        "LIST_META_CONTEXT: ERR_INVALID",
    ),
    goes_on("40 EXTENDED_HEADERS with data", opt(11, b"x"), "EXTENDED_HEADERS: ERR_INVALID"),
    goes_on("40 EXTENDED_HEADERS", opt(11), "EXTENDED_HEADERS: ACK"),
    goes_on("40 EXTENDED_HEADERS twice", opt(11) * 2, "EXTENDED_HEADERS: ACK", "EXTENDED_HEADERS: ACK"),
    goes_on(
        "40 STRUCTURED_REPLY, then EXTENDED_HEADERS",
        opt(8) + opt(11),
        "STRUCTURED_REPLY: ACK",
        "EXTENDED_HEADERS: ACK",
    ),
    goes_on(
        "40 EXTENDED_HEADERS, then STRUCTURED_REPLY",
        opt(11) + opt(8),
        "EXTENDED_HEADERS: ACK",
        "STRUCTURED_REPLY: ERR_EXT_HEADER_REQD",
    ),
    closed("40 EXTENDED_HEADERS, then EXPORT_NAME", opt(11) + opt(1, b"disk"), "EXTENDED_HEADERS: ACK"),
    closed("74 a request before GO", req(wire.CMD_READ, 0, 4096)),
    goes_on("74 INFO after a failed GO", go("no") + info(wire.OPT_INFO, "no"), "GO: ERR_UNKNOWN", "INFO: ERR_UNKNOWN"),
]

STRUCTURED = FIXED + opt(wire.OPT_STRUCTURED_REPLY)
SET, LIST_CONTEXTS = wire.OPT_SET_META_CONTEXT, wire.OPT_LIST_META_CONTEXT
STATUS = req(wire.CMD_BLOCK_STATUS, 0, 4096)


def context_case(name: str, say: bytes, *expect: str) -> Case:
    return Case(name, say + LIST, ["STRUCTURED_REPLY: ACK", *expect, *LISTED], before=STRUCTURED)


CONTEXTS = [
    context_case(
        "35 queries ffffffff",
        opt(SET, struct.pack(">I4sI", 4, b"disk", 0xFFFFFFFF)),
        "SET_META_CONTEXT: ERR_INVALID",
    ),
    context_case(
        "35 query past the end",
        opt(SET, struct.pack(">I4sII4s", 4, b"disk", 1, 5, b"base")),
        "SET_META_CONTEXT: ERR_INVALID",
    ),
    context_case("35 name past the end", opt(SET, struct.pack(">I4s", 99, b"disk")), "SET_META_CONTEXT: ERR_INVALID"),
    context_case("35 unknown export", contexts(SET, "nothing", BASE), "SET_META_CONTEXT: ERR_UNKNOWN"),
    context_case("36 no namespace", contexts(SET, "disk", "foo"), "SET_META_CONTEXT: ERR_INVALID"),
    context_case("36 unknown namespace", contexts(SET, "disk", "x-no:y"), "SET_META_CONTEXT: ACK"),
    context_case("36 SET base:", contexts(SET, "disk", "base:"), "SET_META_CONTEXT: ACK"),
    context_case("36 SET nothing", contexts(SET, "disk"), "SET_META_CONTEXT: ACK"),
    context_case("36 SET base:none", contexts(SET, "disk", "base:none"), "SET_META_CONTEXT: ACK"),
    *(
        context_case(
            f"36 LIST {queries}",
            contexts(LIST_CONTEXTS, "disk", *queries),
            f"LIST_META_CONTEXT: META_CONTEXT 0 {BASE}",
            "LIST_META_CONTEXT: ACK",
        )
        for queries in ((), ("base:",), (BASE,), ("x-no:y", "base:"))
    ),
    context_case("36 LIST x-no:", contexts(LIST_CONTEXTS, "disk", "x-no:"), "LIST_META_CONTEXT: ACK"),
    context_case(
        "37 one query 1,000 times",
        contexts(SET, "disk", *[BASE] * 1000),
        f"SET_META_CONTEXT: META_CONTEXT 1 {BASE}",
        "SET_META_CONTEXT: ACK",
    ),
    Case(
        "38 a failed SET clears",
        contexts(SET, "disk", BASE) + contexts(SET, "disk", "foo") + go() + STATUS,
        [
            "STRUCTURED_REPLY: ACK",
            f"SET_META_CONTEXT: META_CONTEXT 1 {BASE}",
            "SET_META_CONTEXT: ACK",
            "SET_META_CONTEXT: ERR_INVALID",
            *GONE,
            "1: chunk error EINVAL",
        ],
        before=STRUCTURED,
    ),
    Case(
        "39 SET for another export",
        contexts(SET, "locked", BASE) + go() + STATUS,
        [
            "STRUCTURED_REPLY: ACK",
            f"SET_META_CONTEXT: META_CONTEXT 1 {BASE}",
            "SET_META_CONTEXT: ACK",
            *GONE,
            "1: chunk error EINVAL",
        ],
        before=STRUCTURED,
    ),
]
