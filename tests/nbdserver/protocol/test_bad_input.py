"""What clients may send that they should not, and what each is answered.

The table is that of the project's list of bad inputs (the rows that need no TLS and no extended headers);
numbers in the names are its rows. Every case runs whole, byte by byte and in odd pieces, with a well-behaved
client beside it that must notice nothing. Answers are those of the NBD protocol's "Option reply types",
"Request types" and "Error values".
"""

import itertools
import struct
from dataclasses import dataclass

import pytest

from nbdserver.protocol import wire
from tests.support.memory_device import MemoryDevice, memory_exports
from tests.support.speech import (
    BASE,
    FIXED,
    FIXED_NO_ZEROES,
    PLAIN,
    contexts,
    go,
    info,
    opt,
    read_answers,
    req,
    simple,
    structured,
)
from tests.support.wired import Wire

MIB = 1 << 20
SIZE = MIB
PAYLOAD = 32 * MIB

LIST = opt(wire.OPT_LIST)
LISTED = ["LIST: SERVER disk", "LIST: SERVER huge", "LIST: SERVER locked", "LIST: ACK"]
GONE = ["GO: INFO_EXPORT", "GO: ACK"]
READ = req(wire.CMD_READ, 0, 4096, cookie=7)
READ_BACK = ["7: data 4096@0"]
BIT15 = 1 << 15


@dataclass(frozen=True)
class Case:
    """`say` after `before`, and the lines answered to it; `open`: whether the connection goes on
    afterwards."""

    name: str
    say: bytes
    expect: list[str]
    open: bool = True
    before: bytes = FIXED
    reads: tuple[tuple[int, int], ...] = ()
    large: bool = False
    """Too long to be fed byte by byte."""


def closed(name: str, say: bytes, *expect: str, before: bytes = FIXED, large: bool = False) -> Case:
    return Case(name, say, list(expect), open=False, before=before, large=large)


def goes_on(name: str, say: bytes, *expect: str) -> Case:
    """An option that is answered, and LIST behind it is answered too."""
    return Case(name, say + LIST, [*expect, *LISTED])


def request(name: str, say: bytes, *expect: str, export: str = "disk", large: bool = False) -> Case:
    """Requests with structured replies, and a READ behind them is answered too."""
    behind = req(wire.CMD_READ, 0, 4096, cookie=7)
    last = ["7: hole 4096@0"] if export == "huge" else READ_BACK
    return Case(name, say + behind, [*expect, *last], before=structured(export), large=large)


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

COMMANDS = [
    ("READ", wire.CMD_READ),
    ("WRITE", wire.CMD_WRITE),
    ("FLUSH", wire.CMD_FLUSH),
    ("TRIM", wire.CMD_TRIM),
    ("CACHE", wire.CMD_CACHE),
    ("WRITE_ZEROES", wire.CMD_WRITE_ZEROES),
    ("BLOCK_STATUS", wire.CMD_BLOCK_STATUS),
]
EINVAL, ENOSPC, EPERM = "1: chunk error EINVAL", "1: chunk error ENOSPC", "1: chunk error EPERM"
SECTOR = b"s" * 4096


def command(number: int, *, flags: int = 0) -> bytes:
    """A request that is fine but for its flags."""
    if number == wire.CMD_WRITE:
        return req(number, 0, data=SECTOR, flags=flags)
    return req(number, 0, 0 if number == wire.CMD_FLUSH else 4096, flags=flags)


REQUESTS = [
    *(
        closed(f"41 magic {magic}", bytes.fromhex(magic) + bytes(24), before=structured())
        for magic in ("25609514", "12560953", "67446698", "00000000")
    ),
    closed("41 behind a good request", READ + bytes(28), *READ_BACK, before=structured()),
    request("42 type 99", req(99), EINVAL),
    request("42 type 99 has no payload", req(99, 0, 4096), EINVAL),
    *(request(f"43 {name} with bit 15", command(number, flags=BIT15), EINVAL) for name, number in COMMANDS),
    *(request(f"43 {name} with PAYLOAD_LEN", command(number, flags=1 << 5), EINVAL) for name, number in COMMANDS),
    request("43 DF on WRITE", command(wire.CMD_WRITE, flags=wire.CMD_FLAG_DF), EINVAL),
    request("43 NO_HOLE on READ", command(wire.CMD_READ, flags=wire.CMD_FLAG_NO_HOLE), EINVAL),
    request("43 REQ_ONE on TRIM", command(wire.CMD_TRIM, flags=wire.CMD_FLAG_REQ_ONE), EINVAL),
    request("43 FAST_ZERO on TRIM", command(wire.CMD_TRIM, flags=wire.CMD_FLAG_FAST_ZERO), EINVAL),
    request("44 FUA on READ", command(wire.CMD_READ, flags=1), "1: data 4096@0"),
    request("44 FUA on FLUSH", command(wire.CMD_FLUSH, flags=1), "1: ok"),
    request("44 FUA on CACHE", command(wire.CMD_CACHE, flags=1), "1: ok"),
    request("44 FUA on BLOCK_STATUS", command(wire.CMD_BLOCK_STATUS, flags=1), "1: status 1 4096/0"),
    Case(
        "45 DF without structured replies",
        command(wire.CMD_READ, flags=wire.CMD_FLAG_DF),
        ["1: error EINVAL"],
        before=simple(),
    ),
    request("45 data and hole", req(wire.CMD_READ, 0, 131072), "1: data 65536@0 more", "1: hole 65536@65536"),
    request(
        "45 DF over data and hole",
        req(wire.CMD_READ, 0, 131072, flags=wire.CMD_FLAG_DF),
        "1: data 131072@0",
    ),
    request("45 DF over a hole", req(wire.CMD_READ, MIB // 2, 65536, flags=wire.CMD_FLAG_DF), "1: hole 65536@524288"),
    request("46 READ of nothing", req(wire.CMD_READ), "1: none"),
    request("46 WRITE of nothing", req(wire.CMD_WRITE), "1: ok"),
    request("46 TRIM of nothing", req(wire.CMD_TRIM), "1: ok"),
    request("46 WRITE_ZEROES of nothing", req(wire.CMD_WRITE_ZEROES), "1: ok"),
    request("46 CACHE of nothing", req(wire.CMD_CACHE), "1: ok"),
    request("46 BLOCK_STATUS of nothing", req(wire.CMD_BLOCK_STATUS), EINVAL),
    Case("46 READ of nothing, simple", req(wire.CMD_READ), ["1: ok"], before=simple()),
    request("46 nothing beyond the end", req(wire.CMD_WRITE, SIZE + 1), ENOSPC),
    request("47 READ at the end", req(wire.CMD_READ, SIZE, 1), EINVAL),
    request("47 READ across 2^64", req(wire.CMD_READ, 2**64 - 1, 2), EINVAL),
    request("47 READ at 2^63", req(wire.CMD_READ, 2**63, 0xFFFFFFFF), EINVAL),
    request("48 READ of 32 MiB + 1", req(wire.CMD_READ, 0, PAYLOAD + 1), "1: chunk error EOVERFLOW", export="huge"),
    request("48 READ of 4 GiB - 1", req(wire.CMD_READ, 0, 2**32 - 1), "1: chunk error EOVERFLOW", export="huge"),
    request("48 READ of 32 MiB", req(wire.CMD_READ, 0, PAYLOAD), "1: hole 33554432@0", export="huge"),
    Case(
        "48 READ of 32 MiB + 1, simple",
        req(wire.CMD_READ, 0, PAYLOAD + 1),
        ["1: error EINVAL"],
        before=simple("huge"),
    ),
    Case(
        "48 a long READ, simple",
        req(wire.CMD_READ, 0, 3 * MIB),
        ["1: ok 3145728 bytes"],
        before=simple("huge"),
        reads=((1, 3 * MIB),),
    ),
    request("51 WRITE across the end", req(wire.CMD_WRITE, SIZE - 1, data=b"xx"), ENOSPC),
    request("51 a long WRITE across the end", req(wire.CMD_WRITE, SIZE - 1, data=bytes(100_000)), ENOSPC, large=True),
    request("52 WRITE of 32 MiB", req(wire.CMD_WRITE, MIB, data=bytes(PAYLOAD)), "1: ok", export="huge", large=True),
    request(
        "52 WRITE of 32 MiB + 1",
        req(wire.CMD_WRITE, MIB, data=bytes(PAYLOAD + 1)),
        EINVAL,
        export="huge",
        large=True,
    ),
    closed("52 WRITE of 64 MiB + 1", req(wire.CMD_WRITE, 0, 64 * MIB + 1), before=structured("huge")),
    closed("52 WRITE of 4 GiB - 1", req(wire.CMD_WRITE, 0, 2**32 - 1), before=structured("huge")),
    *(
        request(f"53 {name} on a read-only export", command(number), EPERM, export="locked")
        for name, number in COMMANDS
        if "WRITE" in name or name == "TRIM"
    ),
    request("55 a payload of requests", req(wire.CMD_WRITE, 8192, data=READ * 100 + opt(3) * 10), "1: ok"),
    request("56 FLUSH with an offset", req(wire.CMD_FLUSH, 1, 0), EINVAL),
    request("56 FLUSH with a length", req(wire.CMD_FLUSH, 0, 1), EINVAL),
    request("57 TRIM past the end", req(wire.CMD_TRIM, SIZE - 1, 2), EINVAL),
    request("57 TRIM of 4 GiB - 512", req(wire.CMD_TRIM, 512, 2**32 - 512), "1: ok", export="huge"),
    request("58 WRITE_ZEROES past the end", req(wire.CMD_WRITE_ZEROES, SIZE - 1, 2), ENOSPC),
    request("58 WRITE_ZEROES fast", req(wire.CMD_WRITE_ZEROES, 8192, 4096, flags=wire.CMD_FLAG_FAST_ZERO), "1: ok"),
    request(
        "58 WRITE_ZEROES NO_HOLE",
        req(wire.CMD_WRITE_ZEROES, MIB // 2, 8192, flags=wire.CMD_FLAG_NO_HOLE)
        + req(wire.CMD_BLOCK_STATUS, MIB // 2, 16384, cookie=2),
        "1: ok",
        "2: status 1 8192/2 8192/3",
    ),
    request("58 WRITE_ZEROES of 4 GiB - 1", req(wire.CMD_WRITE_ZEROES, 1, 2**32 - 1), "1: ok", export="huge"),
    request("59 CACHE with NO_HOLE", command(wire.CMD_CACHE, flags=wire.CMD_FLAG_NO_HOLE), EINVAL),
    request("59 CACHE past the end", req(wire.CMD_CACHE, SIZE - 1, 2), EINVAL),
    request("59 CACHE of 4 GiB - 1", req(wire.CMD_CACHE, 0, 2**32 - 1), "1: ok", export="huge"),
    Case("60 BLOCK_STATUS without a context", STATUS, ["1: error EINVAL"], before=simple()),
    request("60 BLOCK_STATUS past the end", req(wire.CMD_BLOCK_STATUS, SIZE - 1, 2), EINVAL),
    request(
        "60 BLOCK_STATUS of one",
        req(wire.CMD_BLOCK_STATUS, 0, SIZE, flags=wire.CMD_FLAG_REQ_ONE),
        "1: status 1 65536/0",
    ),
    request("60 BLOCK_STATUS of all", req(wire.CMD_BLOCK_STATUS, 0, SIZE), "1: status 1 65536/0 983040/3"),
    request(
        "61 BLOCK_STATUS of 4 GiB - 1",
        req(wire.CMD_BLOCK_STATUS, 0, 2**32 - 1),
        "1: status 1 4294967295/3",
        export="huge",
    ),
    request("62 one cookie twice", command(wire.CMD_READ) + command(wire.CMD_READ), "1: data 4096@0", "1: data 4096@0"),
    request("62 cookie 0", req(wire.CMD_FLUSH, cookie=0), "0: ok"),
    request("62 cookie ff", req(wire.CMD_FLUSH, cookie=2**64 - 1), f"{2**64 - 1}: ok"),
    closed("63 DISC with its fields set", req(wire.CMD_DISC, 5, 5, flags=3) + READ, before=structured()),
    closed(
        "63 DISC behind requests",
        (READ + req(wire.CMD_WRITE, 8192, data=SECTOR)) * 50 + req(wire.CMD_DISC) + b"rubbish" * 9,
        *["7: data 4096@0", "1: ok"] * 50,
        before=structured(),
    ),
]

CASES = HANDSHAKE + CONTEXTS + REQUESTS
PREFIX_LINES = {structured(name): 5 for name in ("disk", "locked", "huge")} | {
    simple(name): 2 for name in ("disk", "huge")
}


def disks() -> dict[str, MemoryDevice]:
    disk, locked = MemoryDevice(SIZE), MemoryDevice(SIZE, read_only=True)
    for device in (disk, locked):
        device.write(0, b"d" * 65536)
    return {"disk": disk, "locked": locked, "huge": MemoryDevice(1 << 50)}


@pytest.mark.parametrize("step", [None, 1, 7], ids=["whole", "bytes", "sevens"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_answer(case: Case, step: int | None) -> None:
    if step is not None and case.large:
        step = 10_007 * step
    devices = disks()
    exports = memory_exports(devices)
    with Wire(exports) as wire_, Wire(exports) as beside:
        await beside.feed(structured() + READ)
        await wire_.feed(case.before + case.say, step=step)

        answers = read_answers(bytes(wire_.output), dict(case.reads))
        assert answers[PREFIX_LINES.get(case.before, 0) :] == case.expect
        assert wire_.closed is not case.open

        assert not beside.closed
        await beside.feed(READ)
        assert read_answers(bytes(beside.output))[5:] == READ_BACK * 2


async def test_refused_writes_change_nothing() -> None:
    """Whatever is refused in the table leaves the disk as it was."""
    devices = disks()
    exports = memory_exports(devices)
    refused = [case for case in REQUESTS if case.expect[:1] in ([EINVAL], [ENOSPC], [EPERM])]
    assert len(refused) > 30
    for case in refused:
        with Wire(exports) as client:
            await client.feed(case.before + case.say)
    assert devices["disk"].contents(0, SIZE) == b"d" * 65536 + bytes(SIZE - 65536)
    assert devices["disk"].last_sequence == 1
    assert devices["locked"].last_sequence == 1


async def test_every_order_of_three_options_is_answered() -> None:
    """74: no order of options trips an assumption; after any three, GO works unless the connection was
    ended."""
    exports = memory_exports(disks())
    names = {
        "list": LIST,
        "info": info(wire.OPT_INFO, "disk", 3),
        "failing go": go("no"),
        "structured": opt(wire.OPT_STRUCTURED_REPLY),
        "set": contexts(SET, "disk", BASE),
        "list contexts": contexts(LIST_CONTEXTS, "disk"),
        "tls": opt(wire.OPT_STARTTLS),
        "extended": opt(wire.OPT_EXTENDED_HEADERS),
        "unknown": opt(77),
    }
    for order in itertools.product(names, repeat=3):
        with Wire(exports) as client:
            await client.feed(FIXED + b"".join(names[name] for name in order) + go())
            assert read_answers(bytes(client.output))[-2:] == GONE, order


async def test_info_promises_what_go_gives() -> None:
    """23: the same request is answered with the same bytes."""
    exports = memory_exports(disks())
    answers = []
    for option in (wire.OPT_INFO, wire.OPT_GO):
        with Wire(exports) as client:
            await client.feed(FIXED + opt(wire.OPT_STRUCTURED_REPLY) + info(option, "disk", 0, 1, 2, 3))
            told, general = (struct.pack(">QI", wire.OPTION_REPLY_MAGIC, n) for n in (option, 0))
            answers.append(bytes(client.output).replace(told, general))
    assert answers[0] == answers[1]
