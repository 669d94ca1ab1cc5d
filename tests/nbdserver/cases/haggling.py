"""Rows of the handshake: flags, framing of options, names, information, metadata contexts."""

import struct

from tests.nbdserver.cases.case import (
    FIXED,
    FIXED_ZEROLESS,
    MIB,
    NAMES,
    NOWHERE,
    PLAIN,
    SIZE,
    STRUCTURED,
    Case,
    Start,
    Then,
)
from tests.support import messages as m

FLAGS, EXPORT_NAME, ABORT, LIST = "Client flags", "NBD_OPT_EXPORT_NAME", "NBD_OPT_ABORT", "NBD_OPT_LIST"
INFO_GO, BASELINE, STARTTLS, NOTLS = "NBD_OPT_INFO and NBD_OPT_GO", "Baseline", "NBD_OPT_STARTTLS", "NOTLS mode"
CONTEXTS, STRUCTURED_REPLY, HAGGLING = "NBD_OPT_SET_META_CONTEXT", "NBD_OPT_STRUCTURED_REPLY", "Option haggling"

LISTED = f"LIST ACK {NAMES}"
GONE = "GO ACK EXPORT"


def closes(
    name: str, row: int, section: str, say: bytes, *expect: str, start: Start = FIXED, server: str = "plain"
) -> Case:
    """The connection is over after these answers."""
    return Case(name, row, section, start, say, expect, Then.CLOSED, server)


def goes_on(name: str, row: int, section: str, say: bytes, *expect: str, start: Start = FIXED) -> Case:
    """Negotiation goes on."""
    return Case(name, row, section, start, say, expect, Then.HANDSHAKE)


def attaches(name: str, row: int, section: str, say: bytes, *expect: str, start: Start = STRUCTURED) -> Case:
    """Transmission begins, with structured replies."""
    return Case(name, row, section, start, say, expect, Then.TRANSMISSION)


def attaches_simply(
    name: str, row: int, section: str, say: bytes, *expect: str, start: Start = FIXED, padding: int = 0
) -> Case:
    """Transmission begins, with simple replies."""
    return Case(
        name, row, section, start, say, expect, Then.TRANSMISSION, lengths={99: 4096}, padding=padding, simple=True
    )


BEGINNING = (
    *(
        closes(f"client flags {flags}", 1, FLAGS, bytes.fromhex(flags), start=NOWHERE)
        for flags in ("00000004", "ffffffff", "80000001", "00010000")
    ),
    closes("an HTTP client", 2, FLAGS, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", start=NOWHERE),
    closes("a TLS client", 2, FLAGS, bytes.fromhex("16030100c8010000c40303") + bytes(193), start=NOWHERE),
    closes("an SSH client", 2, FLAGS, b"SSH-2.0-OpenSSH_9.2\r\n", start=NOWHERE),
    closes("an oldstyle request", 2, FLAGS, m.request(m.READ, 0, 4096), start=NOWHERE),
    closes("silence", 3, HAGGLING, b"", start=NOWHERE, server="hasty"),
    closes("3 of 4 bytes of flags", 3, HAGGLING, m.FIXED_FLAGS[:3], start=NOWHERE, server="hasty"),
    closes("silence between options", 3, HAGGLING, m.option(m.LIST), LISTED, server="hasty"),
    closes("silence in an option", 3, HAGGLING, m.option(m.GO, b"x", length=9), server="hasty"),
    attaches_simply(
        "EXPORT_NAME with no flags", 4, EXPORT_NAME, m.export_name(), f"export {SIZE}", start=PLAIN, padding=124
    ),
    attaches_simply("EXPORT_NAME fixed", 4, EXPORT_NAME, m.export_name(), f"export {SIZE}", padding=124),
    attaches_simply(
        "EXPORT_NAME without zeroes, not fixed",
        4,
        FLAGS,
        m.export_name(),
        f"export {SIZE}",
        start=Start(m.ZEROLESS_PLAIN_FLAGS),
    ),
    attaches_simply("EXPORT_NAME without zeroes", 4, FLAGS, m.export_name(), f"export {SIZE}", start=FIXED_ZEROLESS),
    attaches(
        "EXPORT_NAME with structured replies",
        4,
        EXPORT_NAME,
        m.export_name(),
        f"export {SIZE}",
    ),
    *(
        closes(f"option {number} without the fix", 5, "Newstyle negotiation", m.option(number, data), start=PLAIN)
        for number, data in (
            (m.LIST, b""),
            (m.GO, m.info_data("disk")),
            (m.STARTTLS, b""),
            (m.STRUCTURED_REPLY, b""),
            (m.EXTENDED_HEADERS, b""),
            (99, b""),
        )
    ),
)

FRAMING = (
    closes("option magic off by one bit", 6, HAGGLING, b"IHAVEOPU" + m.option(m.LIST)[8:]),
    closes("a reply's magic for an option's", 6, HAGGLING, struct.pack(">QII", 0x3E889045565A9, m.LIST, 0)),
    goes_on("unknown option", 7, BASELINE, m.option(0xDEADBEEF), "3735928559 ERR_UNSUP"),
    goes_on("option 0", 7, BASELINE, m.option(0), "0 ERR_UNSUP"),
    goes_on("option 4, withdrawn", 7, BASELINE, m.option(m.PEEK_EXPORT), "PEEK_EXPORT ERR_UNSUP"),
    goes_on("option ffffffff", 7, BASELINE, m.option(0xFFFFFFFF), "4294967295 ERR_UNSUP"),
    goes_on("unknown option with data", 8, BASELINE, m.option(0xDEADBEEF, b"hello"), "3735928559 ERR_UNSUP"),
    goes_on("an option as data of an unknown one", 8, BASELINE, m.option(99, m.option(m.ABORT)), "99 ERR_UNSUP"),
    *(
        closes(f"option {number} of 4 GiB", 9, HAGGLING, m.option(number, length=0xFFFFFFFF))
        for number in (m.EXPORT_NAME, m.ABORT, m.LIST, m.INFO, m.GO, m.STRUCTURED_REPLY, m.SET_META_CONTEXT, 99)
    ),
    closes("GO of a byte more than is discarded", 9, HAGGLING, m.option(m.GO, length=MIB + 1)),
    goes_on("GO of 64 KiB and a byte", 10, "NBD_REP_ERR_TOO_BIG", m.option(m.GO, bytes(65537)), "GO ERR_TOO_BIG"),
    goes_on("GO of 1 MiB", 10, "NBD_REP_ERR_TOO_BIG", m.option(m.GO, bytes(MIB)), "GO ERR_TOO_BIG"),
    goes_on("unknown option of 100,000 bytes", 10, BASELINE, m.option(99, bytes(100_000)), "99 ERR_UNSUP"),
    goes_on("LIST with a byte", 11, LIST, m.option(m.LIST, b"x"), "LIST ERR_INVALID"),
    goes_on(
        "STRUCTURED_REPLY with data",
        12,
        STRUCTURED_REPLY,
        m.option(m.STRUCTURED_REPLY, b"data"),
        "STRUCTURED_REPLY ERR_INVALID",
    ),
    goes_on(
        "STRUCTURED_REPLY twice",
        12,
        STRUCTURED_REPLY,
        m.option(m.STRUCTURED_REPLY) * 2,
        "STRUCTURED_REPLY ACK",
        "STRUCTURED_REPLY ACK",
    ),
    closes("ABORT", 13, ABORT, m.option(m.ABORT), "ABORT ACK"),
    closes("ABORT with data", 13, ABORT, m.option(m.ABORT, b"bye"), "ABORT ACK"),
    closes("an option behind ABORT", 13, ABORT, m.option(m.ABORT) + m.option(m.LIST), "ABORT ACK"),
    # Inside TLS one of them was STARTTLS.
    closes("the 65th option without GO", 25, HAGGLING, m.option(99) * 65, *["99 ERR_UNSUP"] * 63, "?99 ERR_UNSUP"),
    closes("a request before GO", 74, HAGGLING, m.request(m.READ, 0, 4096)),
    closes("a WRITE before GO", 74, HAGGLING, m.request(m.WRITE, 0, data=bytes(64))),
    goes_on("STARTTLS with data", 27, STARTTLS, m.option(m.STARTTLS, b"x"), "STARTTLS ERR_INVALID"),
    goes_on("STARTTLS where there is no TLS", 27, NOTLS, m.option(m.STARTTLS), "STARTTLS ERR_UNSUP"),
)


def unknown(name: str, row: int, export: str | bytes, error: str = "UNKNOWN") -> Case:
    """GO for an export that there is not."""
    return goes_on(name, row, INFO_GO, m.go(export), f"GO ERR_{error}")


EXPORTS = (
    closes("EXPORT_NAME unknown", 14, EXPORT_NAME, m.export_name(b"nothing")),
    closes("EXPORT_NAME of 4097 bytes", 14, EXPORT_NAME, m.export_name(b"x" * 4097)),
    closes("EXPORT_NAME without a default", 14, EXPORT_NAME, m.export_name(b"")),
    closes("EXPORT_NAME not UTF-8", 14, EXPORT_NAME, m.export_name(b"\xff\xfe")),
    closes("EXPORT_NAME with NUL", 14, EXPORT_NAME, m.export_name(b"disk\0")),
    *(
        goes_on(f"GO of {count} bytes", 15, INFO_GO, m.option(m.GO, bytes(count)), "GO ERR_INVALID")
        for count in range(6)
    ),
    *(
        goes_on(name, 16, INFO_GO, m.option(number, data), f"{say} ERR_INVALID")
        for number, say in ((m.INFO, "INFO"), (m.GO, "GO"))
        for name, data in (
            (f"{say} name length ffffffff", struct.pack(">I4sH", 0xFFFFFFFF, b"disk", 0)),
            (f"{say} name length of all but 5", struct.pack(">I4sH", 5, b"disk", 0)),
            (f"{say} name length of all", struct.pack(">I4sH", 10, b"disk", 0)),
        )
    ),
    unknown("name of 1025 bytes", 17, "n" * 1025),
    unknown("name of 4096 bytes", 17, "n" * 4096),
    unknown("name of 4096 bytes that are no letters", 17, "\x1b[2J" * 1024),
    unknown("name of 4097 bytes", 18, "n" * 4097, "INVALID"),
    goes_on(
        "65,535 requests announced, none there",
        18,
        INFO_GO,
        m.option(m.GO, struct.pack(">I4sH", 4, b"disk", 0xFFFF)),
        "GO ERR_INVALID",
    ),
    goes_on("one request in 3 bytes", 18, INFO_GO, m.option(m.GO, m.info_data("disk", 3) + b"x"), "GO ERR_INVALID"),
    goes_on("bytes left over", 18, INFO_GO, m.option(m.GO, m.info_data("disk") + b"xx"), "GO ERR_INVALID"),
    attaches("unknown information", 19, INFO_GO, m.go("disk", 1234, 0xFFFF), GONE),
    attaches("information asked twice", 20, INFO_GO, m.go("disk", 3, 3), "GO ACK EXPORT BLOCK_SIZE"),
    attaches(
        "all information", 20, INFO_GO, m.go("disk", 0, 1, 2, 3), "GO ACK EXPORT NAME DESCRIPTION BLOCK_SIZE"
    ),
    unknown("name with NUL", 21, b"di\0sk", "INVALID"),
    unknown("name not UTF-8", 21, b"\xff\xfe", "INVALID"),
    *(
        unknown(f"name {name[:8]!r}", 21, name)
        for name in ("..", "a/../b", "/etc", "a//b", "/" * 65, "disk/", "./disk", "DISK", "disk ")
    ),
    unknown("the default of four", 21, ""),
    attaches(
        "INFO then GO", 23, INFO_GO, m.info("disk", 3) + m.go("disk", 3), *(f"{o} ACK EXPORT BLOCK_SIZE" for o in
        ("INFO", "GO")),
    ),
    attaches(
        "GO that fails, LIST, GO", 24, INFO_GO, m.go("no") + m.option(m.LIST) + m.go(), "GO ERR_UNKNOWN", LISTED, GONE
    ),
    goes_on(
        "INFO behind GO that fails", 74, INFO_GO, m.go("no") + m.info(), "GO ERR_UNKNOWN", "INFO ACK EXPORT"
    ),
    goes_on(
        "INFO behind GO that fails, of the same", 74, INFO_GO, m.go("no") + m.info("no"), "GO ERR_UNKNOWN",
        "INFO ERR_UNKNOWN",
    ),
    goes_on("a hundred options in one segment", 74, HAGGLING, m.info() * 60, *["INFO ACK EXPORT"] * 60),
)  # fmt: skip

STATUS = m.request(m.BLOCK_STATUS, 0, 4096)
SET_BASE = "SET_META_CONTEXT ACK base:allocation"


def context(name: str, row: int, say: bytes, *expect: str) -> Case:
    """An option about contexts, with structured replies, in a negotiation that goes on."""
    return goes_on(name, row, CONTEXTS, say, *expect, start=STRUCTURED)


CONTEXT = (
    goes_on(
        "SET_META_CONTEXT before STRUCTURED_REPLY",
        34,
        CONTEXTS,
        m.set_contexts("disk", m.BASE),
        "SET_META_CONTEXT ERR_INVALID",
    ),
    goes_on(
        "LIST_META_CONTEXT before STRUCTURED_REPLY",
        34,
        CONTEXTS,
        m.list_contexts("disk"),
        "LIST_META_CONTEXT ERR_INVALID",
    ),
    *(
        context(f"{name} in {said[0]}", 35, m.option(number, data), f"{said} ERR_INVALID")
        for number, said in ((m.SET_META_CONTEXT, "SET_META_CONTEXT"), (m.LIST_META_CONTEXT, "LIST_META_CONTEXT"))
        for name, data in (
            ("no data", b""),
            ("queries ffffffff", struct.pack(">I4sI", 4, b"disk", 0xFFFFFFFF)),
            ("one query too many", m.context_data("disk", m.BASE)[:8] + struct.pack(">I", 2) + m.text(m.BASE)),
            ("query length past the end", struct.pack(">I4sII4s", 4, b"disk", 1, 5, b"base")),
            ("name length past the end", struct.pack(">I4s", 99, b"disk")),
            ("bytes left over", m.context_data("disk", m.BASE) + b"x"),
        )
    ),
    context("SET for an unknown export", 35, m.set_contexts("nothing", m.BASE), "SET_META_CONTEXT ERR_UNKNOWN"),
    context("query without a namespace", 36, m.set_contexts("disk", "foo"), "SET_META_CONTEXT ERR_INVALID"),
    context("unknown namespace", 36, m.set_contexts("disk", "x-no:y"), "SET_META_CONTEXT ACK"),
    context("SET base:", 36, m.set_contexts("disk", "base:"), "SET_META_CONTEXT ACK"),
    context("SET base:none", 36, m.set_contexts("disk", "base:none"), "SET_META_CONTEXT ACK"),
    context("SET nothing", 36, m.set_contexts("disk"), "SET_META_CONTEXT ACK"),
    context("SET known and unknown", 36, m.set_contexts("disk", "x-no:y", m.BASE, "qemu:dirty-bitmap:a"), SET_BASE),
    *(
        context(f"LIST {queries}", 36, m.list_contexts("disk", *queries), "LIST_META_CONTEXT ACK base:allocation")
        for queries in ((), ("base:",), (m.BASE,), ("x-no:y", "base:"))
    ),
    context("LIST x-no:", 36, m.list_contexts("disk", "x-no:"), "LIST_META_CONTEXT ACK"),
    context("one query 64 times", 37, m.set_contexts("disk", *[m.BASE] * 64), SET_BASE),
    context("SET of 65 queries", 37, m.set_contexts("disk", *[m.BASE] * 65), "SET_META_CONTEXT ERR_TOO_BIG"),
    context("LIST of 65 queries", 37, m.list_contexts("disk", *[m.BASE] * 65), "LIST_META_CONTEXT ERR_TOO_BIG"),
    attaches(
        "a failed SET clears",
        38,
        CONTEXTS,
        m.set_contexts("disk", m.BASE) + m.set_contexts("nothing", m.BASE) + m.go() + STATUS,
        SET_BASE,
        "SET_META_CONTEXT ERR_UNKNOWN",
        GONE,
        "1: EINVAL",
    ),
    attaches(
        "a SET that is refused clears",
        38,
        CONTEXTS,
        m.set_contexts("disk", m.BASE) + m.set_contexts("disk", "foo") + m.go() + STATUS,
        SET_BASE,
        "SET_META_CONTEXT ERR_INVALID",
        GONE,
        "1: EINVAL",
    ),
    attaches(
        "a malformed SET clears",
        38,
        CONTEXTS,
        m.set_contexts("disk", m.BASE) + m.option(m.SET_META_CONTEXT, b"\0") + m.go() + STATUS,
        SET_BASE,
        "SET_META_CONTEXT ERR_INVALID",
        GONE,
        "1: EINVAL",
    ),
    attaches(
        "an empty SET clears",
        38,
        CONTEXTS,
        m.set_contexts("disk", m.BASE) + m.set_contexts("disk") + m.go() + STATUS,
        SET_BASE,
        "SET_META_CONTEXT ACK",
        GONE,
        "1: EINVAL",
    ),
    attaches(
        "SET for another export",
        39,
        CONTEXTS,
        m.set_contexts("locked", m.BASE) + m.go() + STATUS,
        SET_BASE,
        GONE,
        "1: EINVAL",
    ),
    attaches(
        "LIST does not clear what SET chose",
        39,
        CONTEXTS,
        m.set_contexts("disk", m.BASE) + m.list_contexts("locked") + m.go() + STATUS,
        SET_BASE,
        "LIST_META_CONTEXT ACK base:allocation",
        GONE,
        r"1: status 1 4096/0",
    ),
    attaches(
        "contexts serve after EXPORT_NAME too",
        39,
        CONTEXTS,
        m.set_contexts("disk", m.BASE) + m.export_name() + STATUS,
        SET_BASE,
        f"export {SIZE}",
        r"1: status 1 4096/0",
    ),
)

CASES = (*BEGINNING, *FRAMING, *EXPORTS, *CONTEXT)
