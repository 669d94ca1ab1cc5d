"""Rows of extended headers (branch extension-ext-header of the specification)."""

from tests.nbdserver.cases.case import (
    DATA,
    EXTENDED,
    FIXED,
    HUGE,
    MIB,
    NAMES,
    PAYLOAD_MAX,
    SIZE,
    STRUCTURED,
    Case,
    Start,
    Then,
    in_extended,
)
from tests.support import messages as m

OPTION, REQUEST, REPLY = "NBD_OPT_EXTENDED_HEADERS", "Request message", "Extended reply chunk message"
PAYLOAD, STATUS, FLAGS = "NBD_CMD_FLAG_PAYLOAD_LEN", "NBD_CMD_BLOCK_STATUS", "Command flags"

SECTOR = b"s" * 4096
ACK = "EXTENDED_HEADERS ACK"
OK, EINVAL, ENOSPC, EPERM = "1@0: ok", "1@0: EINVAL", "1@0: ENOSPC", "1@0: EPERM"
READ_OK = r"1@0: read 0\+4096 d\*4096 \(data\)"


def haggles(name: str, row: int, say: bytes, *expect: str, start: Start = FIXED) -> Case:
    return Case(name, row, OPTION, start, say, expect, Then.HANDSHAKE)


def answered(
    name: str,
    row: int,
    section: str,
    say: bytes,
    *expect: str,
    export: str = "disk",
    after: tuple[tuple[int, bytes], ...] | None = None,
) -> Case:
    return Case(
        name, row, section, in_extended(export), say, expect, Then.TRANSMISSION,
        export=export, extended=True, after=after,
    )  # fmt: skip


def closes(name: str, row: int, section: str, say: bytes, *expect: str, start: Start | None = None) -> Case:
    return Case(name, row, section, start or in_extended(), say, expect, Then.CLOSED)


NEGOTIATION = (
    haggles("EXTENDED_HEADERS", 40, m.option(m.EXTENDED_HEADERS), ACK),
    haggles(
        "EXTENDED_HEADERS with data", 40, m.option(m.EXTENDED_HEADERS, b"x"), "EXTENDED_HEADERS ERR_INVALID"
    ),
    haggles("EXTENDED_HEADERS twice", 40, m.option(m.EXTENDED_HEADERS) * 2, ACK, ACK),
    haggles("EXTENDED_HEADERS behind STRUCTURED_REPLY", 40, m.option(m.EXTENDED_HEADERS), ACK, start=STRUCTURED),
    haggles(
        "STRUCTURED_REPLY behind EXTENDED_HEADERS", 40, m.option(m.STRUCTURED_REPLY),
        "STRUCTURED_REPLY ERR_EXT_HEADER_REQD", start=EXTENDED,
    ),
    closes("EXPORT_NAME behind EXTENDED_HEADERS", 40, OPTION, m.export_name(), start=EXTENDED),
    haggles("LIST behind EXTENDED_HEADERS", 40, m.option(m.LIST), f"LIST ACK {NAMES}", start=EXTENDED),
    haggles(
        "contexts need no structured replies then", 40, m.set_contexts("disk", m.BASE),
        "SET_META_CONTEXT ACK base:allocation", start=EXTENDED,
    ),
    haggles(
        "failed EXTENDED_HEADERS leaves nothing behind", 40,
        m.option(m.EXTENDED_HEADERS, b"x") + m.option(m.STRUCTURED_REPLY),
        "EXTENDED_HEADERS ERR_INVALID", "STRUCTURED_REPLY ACK",
    ),
)  # fmt: skip

MAGICS = (
    closes("compact magic", 66, REQUEST, m.extended(m.READ, 0, 4096, magic=m.REQUEST_MAGIC)),
    closes("compact request", 66, REQUEST, m.request(m.READ, 0, 4096) + bytes(8)),
    closes("extended reply's magic", 66, REQUEST, m.extended(m.READ, 0, 4096, magic=0x6E8A278C)),
    # The flag MUST be set, so what a server makes of its lack is its own choice. QEMU 10 leaves it out and
    # sends the payload, and its server takes it.
    answered(
        "WRITE without PAYLOAD_LEN", 66, PAYLOAD, m.extended(m.WRITE, DATA, 4096) + SECTOR, f"1@{DATA}: ok",
        after=((DATA, SECTOR),),
    ),
    closes("WRITE of 2^40 without PAYLOAD_LEN", 66, PAYLOAD, m.extended(m.WRITE, 0, 2**40)),
    answered(
        "READ with a payload of 8", 66, PAYLOAD,
        m.extended(m.READ, 0, data=bytes(8)) + m.extended(m.READ, 0, 4096, cookie=2),
        EINVAL, r"2@0: read 0\+4096 d\*4096 \(data\)",
    ),
    *(
        answered(f"{name} with a payload", 66, PAYLOAD, m.extended(command, 0, data=b"p" * 100), EINVAL)
        for name, command in (
            ("FLUSH", m.FLUSH), ("TRIM", m.TRIM), ("CACHE", m.CACHE), ("WRITE_ZEROES", m.WRITE_ZEROES), ("99", 99),
        )
    ),
    answered("type 99", 66, REQUEST, m.extended(99, 0, 4096), EINVAL),
    closes("DISC", 66, REQUEST, m.extended(m.DISC)),
)  # fmt: skip

LENGTHS = (
    *(
        closes(f"WRITE announces {length:#x}", 67, PAYLOAD, m.extended(m.WRITE, 0, length, flags=m.PAYLOAD_LEN))
        for length in (2**40, 2**63, 2**64 - 1)
    ),
    closes("BLOCK_STATUS announces 2^40", 67, PAYLOAD, m.extended(m.BLOCK_STATUS, 0, 2**40, flags=m.PAYLOAD_LEN)),
    answered("TRIM of 2^63", 67, FLAGS, m.extended(m.TRIM, 0, 2**63), EINVAL),
    answered("TRIM of 2^64 - 1", 67, FLAGS, m.extended(m.TRIM, 0, 2**64 - 1), EINVAL),
    answered("TRIM that wraps", 67, FLAGS, m.extended(m.TRIM, 4096, 2**64 - 4096), "1@4096: EINVAL"),
    answered("READ that wraps", 67, FLAGS, m.extended(m.READ, 4096, 2**64 - 4096), "1@4096: EINVAL"),
    answered("WRITE_ZEROES that wraps", 67, FLAGS, m.extended(m.WRITE_ZEROES, 4096, 2**64 - 4095), "1@4096: ENOSPC"),
    answered("CACHE that wraps", 67, FLAGS, m.extended(m.CACHE, 4096, 2**64 - 4096), "1@4096: EINVAL"),
    answered("WRITE_ZEROES of 2^40", 67, FLAGS, m.extended(m.WRITE_ZEROES, 0, 2**40), OK, export="huge"),
    answered(
        "WRITE_ZEROES of all of 1 PiB, FAST_ZERO", 67, FLAGS,
        m.extended(m.WRITE_ZEROES, 0, HUGE, flags=m.FAST_ZERO), OK, export="huge",
    ),
    answered("TRIM of all of 1 PiB", 67, FLAGS, m.extended(m.TRIM, 0, HUGE), OK, export="huge"),
    answered("CACHE of all of 1 PiB", 67, FLAGS, m.extended(m.CACHE, 0, HUGE), OK, export="huge"),
    answered("READ of 2^40", 67, "Size constraints", m.extended(m.READ, 0, 2**40), "1@0: EOVERFLOW",
        export="huge"),
    answered("READ of 32 MiB + 1", 67, "Size constraints", m.extended(m.READ, 0, PAYLOAD_MAX + 1),
        "1@0: EOVERFLOW", export="huge"),
)  # fmt: skip

REPLIES = (
    answered("READ", 68, REPLY, m.extended(m.READ, 0, 4096), READ_OK),
    answered(
        "READ of data and hole", 68, REPLY, m.extended(m.READ, DATA - 4096, 8192),
        rf"1@{DATA - 4096}: read {DATA - 4096}\+8192 d\*4096 0\*4096 \(data hole\)",
    ),
    answered(
        "READ of data and hole with DF", 68, REPLY, m.extended(m.READ, DATA - 4096, 8192, flags=m.DF),
        rf"1@{DATA - 4096}: read {DATA - 4096}\+8192 d\*4096 0\*4096 \(data\)",
    ),
    answered("READ past the end", 68, REPLY, m.extended(m.READ, SIZE, 1), f"1@{SIZE}: EINVAL"),
    answered("READ of nothing", 68, REPLY, m.extended(m.READ, 512, 0), "1@512: ok"),
    answered("READ of nothing at 2^64 - 1", 68, REPLY, m.extended(m.READ, 2**64 - 1, 0), f"1@{2**64 - 1}: EINVAL"),
    answered(
        "WRITE", 68, REPLY, m.extended(m.WRITE, DATA, data=SECTOR), f"1@{DATA}: ok", after=((DATA, SECTOR),)
    ),
    answered(
        "long WRITE", 68, REPLY, m.extended(m.WRITE, DATA, data=SECTOR * 64), f"1@{DATA}: ok",
        after=((DATA, SECTOR * 64),),
    ),
    answered(
        "WRITE with FUA", 68, REPLY, m.extended(m.WRITE, DATA, data=SECTOR, flags=m.FUA), f"1@{DATA}: ok",
        after=((DATA, SECTOR),),
    ),
    answered("WRITE of 32 MiB", 68, REPLY, m.extended(m.WRITE, MIB, data=b"w" * PAYLOAD_MAX), f"1@{MIB}: ok",
        export="huge"),
    Case(
        "WRITE of 32 MiB + 1", 67, PAYLOAD, in_extended("huge"),
        m.extended(m.WRITE, 0, PAYLOAD_MAX + 1, flags=m.PAYLOAD_LEN), (), Then.CLOSED,
    ),
    answered("WRITE across the end", 68, REPLY, m.extended(m.WRITE, SIZE - 1, data=b"xx"), f"1@{SIZE - 1}: ENOSPC"),
    answered(
        "WRITE on a read-only export", 68, REPLY, m.extended(m.WRITE, 0, data=SECTOR), EPERM, export="locked"
    ),
    answered("FLUSH", 68, REPLY, m.extended(m.FLUSH), OK),
    answered("TRIM", 68, REPLY, m.extended(m.TRIM, DATA, 4096), f"1@{DATA}: ok", after=((DATA, bytes(4096)),)),
    answered(
        "WRITE_ZEROES", 68, REPLY, m.extended(m.WRITE_ZEROES, 0, 4096), OK, after=((0, bytes(4096) + b"d" * 512),)
    ),
    answered("CACHE", 68, REPLY, m.extended(m.CACHE, 0, 4096), OK),
    answered(
        "three at once, each with its offset", 68, REPLY,
        m.extended(m.READ, 4096, 512) + m.extended(m.FLUSH, cookie=2) + m.extended(m.CACHE, 8192, 512, cookie=3),
        r"1@4096: read 4096\+512 d\*512 \(data\)", "2@0: ok", "3@8192: ok",
    ),
    answered("DF on FLUSH", 68, FLAGS, m.extended(m.FLUSH, flags=m.DF), EINVAL),
    answered("cookie ff", 68, REPLY, m.extended(m.FLUSH, cookie=2**64 - 1), f"{2**64 - 1}@0: ok"),
    answered(
        "BLOCK_STATUS", 68, STATUS, m.extended(m.BLOCK_STATUS, 0, SIZE), rf"1@0: status 1 {DATA}/0 {SIZE - DATA}/3"
    ),
    answered(
        "BLOCK_STATUS of one", 68, STATUS, m.extended(m.BLOCK_STATUS, 0, SIZE, flags=m.REQ_ONE),
        rf"1@0: status 1 {DATA}/0",
    ),
    answered(
        "BLOCK_STATUS of 1 PiB", 68, STATUS, m.extended(m.BLOCK_STATUS, 0, HUGE), rf"1@0: status 1 {HUGE}/3",
        export="huge",
    ),
    answered("BLOCK_STATUS of 2^64 - 1", 68, STATUS, m.extended(m.BLOCK_STATUS, 1, 2**64 - 1), "1@1: EINVAL"),
    Case(
        "BLOCK_STATUS without a context", 68, STATUS,
        Start(EXTENDED.say + m.go(), (ACK, "GO ACK EXPORT")), m.extended(m.BLOCK_STATUS, 0, 4096), (EINVAL,),
        Then.TRANSMISSION, extended=True,
    ),
)  # fmt: skip


def filtered(name: str, payload: bytes, expect: str) -> Case:
    """BLOCK_STATUS with a payload."""
    say = m.extended(m.BLOCK_STATUS, 0, data=payload)
    return answered(f"BLOCK_STATUS payload: {name}", 69, STATUS, say, expect)


PAYLOADS = (
    filtered("unknown id", m.status_payload(4096, 0x7FFFFFF0), EINVAL),
    filtered("duplicate id", m.status_payload(4096, 1, 1), EINVAL),
    filtered("7 bytes", bytes(7), EINVAL),
    filtered("9 bytes", bytes(9), EINVAL),
    filtered("length past the end", m.status_payload(SIZE + 1, 1), EINVAL),
    filtered("effect length of 2^64 - 1", m.status_payload(2**64 - 1, 1), EINVAL),
    filtered("10,000 ids", m.status_payload(4096, *range(10_000)), EINVAL),
)

CASES = (*NEGOTIATION, *MAGICS, *LENGTHS, *REPLIES, *PAYLOADS)
