"""Rows of the transmission phase with compact headers: flags, bounds, sizes, errors."""

import struct

from tests.nbdserver.cases.case import (
    DATA,
    HUGE,
    MIB,
    PAYLOAD_MAX,
    SIZE,
    Case,
    Then,
    in_simple,
    in_structured,
)
from tests.support import messages as m

MAGIC, COMMAND_FLAGS, ERRORS, TYPES = "Request message", "Command flags", "Error values", "Request types"
PAYLOAD, READ, FLUSH, TRIM = "Size constraints", "NBD_CMD_READ", "NBD_CMD_FLUSH", "NBD_CMD_TRIM"
ZEROES, CACHE, STATUS, DISC = "NBD_CMD_WRITE_ZEROES", "NBD_CMD_CACHE", "NBD_CMD_BLOCK_STATUS", "NBD_CMD_DISC"

SECTOR = b"s" * 4096
OK, EINVAL, ENOSPC, EPERM = "1 ok", "1: EINVAL", "1: ENOSPC", "1: EPERM"
READ_OK = r"1: read 0\+4096 d\*4096 \(data\)"
"""The first 4096 bytes of `disk`, by structured reply."""


def answered(
    name: str,
    row: int,
    section: str,
    say: bytes,
    *expect: str,
    export: str = "disk",
    after: tuple[tuple[int, bytes], ...] | None = None,
) -> Case:
    """Requests after structured replies were agreed on; the connection goes on."""
    return Case(name, row, section, in_structured(export), say, expect, Then.TRANSMISSION, export=export, after=after)


def simply(name: str, row: int, section: str, say: bytes, *expect: str, export: str = "disk", length: int = 0) -> Case:
    """The same with simple replies; the READ with cookie 1, if there is one, has that length."""
    return Case(
        name, row, section, in_simple(export), say, expect, Then.TRANSMISSION,
        export=export, lengths={1: length, 99: 4096}, simple=True,
    )  # fmt: skip


def closes(name: str, row: int, section: str, say: bytes, *expect: str, export: str = "disk") -> Case:
    """The connection is over after these answers."""
    return Case(name, row, section, in_structured(export), say, expect, Then.CLOSED)


def plain(command: int, *, flags: int = 0) -> bytes:
    """A request that is right but for its flags."""
    if command == m.WRITE:
        return m.request(command, DATA, data=SECTOR, flags=flags)
    return m.request(command, 0, 0 if command == m.FLUSH else 4096, flags=flags)


COMMANDS = (
    ("READ", m.READ),
    ("WRITE", m.WRITE),
    ("FLUSH", m.FLUSH),
    ("TRIM", m.TRIM),
    ("CACHE", m.CACHE),
    ("WRITE_ZEROES", m.WRITE_ZEROES),
    ("BLOCK_STATUS", m.BLOCK_STATUS),
)

MAGICS = (
    *(
        closes(f"request magic {magic:08x}", 41, MAGIC, m.request(m.READ, 0, 4096, magic=magic))
        for magic in (0x25609514, 0x12560953, 0x67446698, 0, 0x668E33EF, 0x13956025)
    ),
    *(
        closes(
            f"request magic {magic:08x}, type {command}, payload, on a read-only export",
            41,
            MAGIC,
            m.request(command, 0, data=SECTOR, magic=magic),
            export="locked",
        )
        for magic, command in ((0, m.READ), (0, m.WRITE), (0xFFFFFFFF, 0xFFFF))
    ),
    closes("extended magic that was not agreed on", 41, MAGIC, m.extended(m.READ, 0, 4096)),
    closes("good request, then none", 41, MAGIC, m.request(m.READ, 0, 4096) + bytes(28), READ_OK),
    closes("an option in transmission", 41, MAGIC, m.option(m.LIST) + bytes(12)),
    answered("type 99", 42, ERRORS, m.request(99), EINVAL),
    answered("type 8, RESIZE", 42, ERRORS, m.request(m.RESIZE, 4096), EINVAL),
    answered("type ffff", 42, ERRORS, m.request(0xFFFF), EINVAL),
    answered(
        "type 99 has no payload",
        42,
        ERRORS,
        m.request(99, 0, 4096) + m.request(m.READ, 0, 4096, cookie=2),
        EINVAL,
        r"2: read 0\+4096 d\*4096 \(data\)",
    ),
    simply("type 99, simple", 42, ERRORS, m.request(99), "1 EINVAL"),
)

FLAGS = (
    *(answered(f"{name} with bit 15", 43, ERRORS, plain(number, flags=1 << 15), EINVAL) for name, number in COMMANDS),
    *(
        answered(f"{name} with PAYLOAD_LEN", 43, ERRORS, plain(number, flags=m.PAYLOAD_LEN), EINVAL)
        for name, number in COMMANDS
    ),
    *(
        answered(f"{name} with {said}", 43, ERRORS, plain(number, flags=flag), EINVAL)
        for name, number, said, flag in (
            ("WRITE", m.WRITE, "DF", m.DF),
            ("WRITE", m.WRITE, "NO_HOLE", m.NO_HOLE),
            ("READ", m.READ, "NO_HOLE", m.NO_HOLE),
            ("READ", m.READ, "FAST_ZERO", m.FAST_ZERO),
            ("TRIM", m.TRIM, "REQ_ONE", m.REQ_ONE),
            ("TRIM", m.TRIM, "FAST_ZERO", m.FAST_ZERO),
            ("FLUSH", m.FLUSH, "NO_HOLE", m.NO_HOLE),
            ("WRITE_ZEROES", m.WRITE_ZEROES, "DF", m.DF),
            ("BLOCK_STATUS", m.BLOCK_STATUS, "NO_HOLE", m.NO_HOLE),
        )
    ),
    answered("FUA on READ", 44, COMMAND_FLAGS, plain(m.READ, flags=m.FUA), READ_OK),
    answered("FUA on FLUSH", 44, COMMAND_FLAGS, plain(m.FLUSH, flags=m.FUA), OK),
    answered("FUA on CACHE", 44, COMMAND_FLAGS, plain(m.CACHE, flags=m.FUA), OK),
    answered("FUA on BLOCK_STATUS", 44, COMMAND_FLAGS, plain(m.BLOCK_STATUS, flags=m.FUA), "1: status 1 4096/0"),
    answered(
        "FUA on TRIM", 44, COMMAND_FLAGS, m.request(m.TRIM, DATA, 4096, flags=m.FUA), OK, after=((DATA, bytes(4096)),)
    ),
    answered(
        "FUA on WRITE", 44, COMMAND_FLAGS, plain(m.WRITE, flags=m.FUA), OK, after=((DATA, SECTOR),)
    ),
    answered(
        "FUA on WRITE_ZEROES", 44, COMMAND_FLAGS, plain(m.WRITE_ZEROES, flags=m.FUA), OK, after=((0, bytes(4096)),)
    ),
    simply("DF without structured replies", 45, COMMAND_FLAGS, plain(m.READ, flags=m.DF), "1 EINVAL"),
    answered(
        "READ of data and hole", 45, READ, m.request(m.READ, 0, 2 * DATA),
        rf"1: read 0\+{2 * DATA} d\*{DATA} 0\*{DATA} \(data hole\)",
    ),
    answered(
        "DF over data and hole", 45, COMMAND_FLAGS, m.request(m.READ, 0, 2 * DATA, flags=m.DF),
        rf"1: read 0\+{2 * DATA} d\*{DATA} 0\*{DATA} \(data\)",
    ),
    answered(
        "DF over a hole", 45, COMMAND_FLAGS, m.request(m.READ, SIZE // 2, DATA, flags=m.DF),
        rf"1: read {SIZE // 2}\+{DATA} 0\*{DATA} \(hole\)",
    ),
    answered(
        "READ that is not aligned", 45, READ, m.request(m.READ, DATA - 3, 8),
        rf"1: read {DATA - 3}\+8 d\*3 0\*5 \(data hole\)",
    ),
)  # fmt: skip

NOTHING = (
    ("READ", m.READ, "1: ok"),
    ("WRITE", m.WRITE, OK),
    ("TRIM", m.TRIM, OK),
    ("CACHE", m.CACHE, OK),
    ("WRITE_ZEROES", m.WRITE_ZEROES, OK),
    ("BLOCK_STATUS", m.BLOCK_STATUS, EINVAL),
)
SPOKEN = m.request(m.TRIM, 0, DATA) * 3 + m.request(m.READ, 0, 4096) * 100 + m.option(m.LIST) * 10

BOUNDS = (
    *(answered(f"{name} of nothing", 46, TYPES, m.request(number, 0, 0), answer) for name, number, answer in NOTHING),
    simply("READ of nothing, simple", 46, TYPES, m.request(m.READ), "1 ok"),
    answered("WRITE of nothing at the end", 46, TYPES, m.request(m.WRITE, SIZE), OK),
    answered("WRITE of nothing beyond the end", 46, TYPES, m.request(m.WRITE, SIZE + 1), ENOSPC),
    *(
        answered(f"READ {name}", 47, ERRORS, m.request(m.READ, offset, length), "1: EINVAL")
        for name, offset, length in (
            ("at the end", SIZE, 1),
            ("across the end", SIZE - 1, 2),
            ("across 2^64", 2**64 - 1, 2),
            ("at 2^63", 2**63, 4096),
            ("at 2^32 times 2^32", 2**64 - 2**32, 4096),
        )
    ),
    simply("READ across the end, simple", 47, ERRORS, m.request(m.READ, SIZE - 1, 2), "1 EINVAL"),
    *(
        answered(
            f"READ of {length:#x}", 48, PAYLOAD, m.request(m.READ, 0, length), "1: EOVERFLOW", export="huge"
        )
        for length in (PAYLOAD_MAX + 1, 2**31, 2**32 - 1)
    ),
    simply("READ of 32 MiB + 1, simple", 48, PAYLOAD, m.request(m.READ, 0, PAYLOAD_MAX + 1), "1 EINVAL",
        export="huge"),
    answered(
        "READ of 32 MiB", 48, PAYLOAD, m.request(m.READ, 0, PAYLOAD_MAX),
        rf"1: read 0\+{PAYLOAD_MAX} 0\*{PAYLOAD_MAX} \(hole\)", export="huge",
    ),
    simply("READ of 3 MiB, simple", 48, READ, m.request(m.READ, 0, 3 * MIB), rf"1 read {3 * MIB} 0\*{3 * MIB}",
        export="huge", length=3 * MIB),
    answered("early error on READ", 49, READ, m.request(m.READ, SIZE, 4096), "1: EINVAL"),
    *(
        answered(f"WRITE {name}", 51, ERRORS, m.request(m.WRITE, offset, data=data), ENOSPC)
        for name, offset, data in (
            ("across the end", SIZE - 1, b"xx"),
            ("at the end", SIZE, b"x"),
            ("across 2^64", 2**64 - 1, b"xx"),
            ("long, across the end", SIZE - 1, bytes(100_000)),
        )
    ),
    answered(
        "WRITE of 32 MiB", 52, PAYLOAD, m.request(m.WRITE, MIB, data=b"w" * PAYLOAD_MAX), OK, export="huge",
    ),
    Case(
        "WRITE of 32 MiB + 1", 52, PAYLOAD, in_structured("huge"),
        m.request(m.WRITE, MIB, data=b"w" * (PAYLOAD_MAX + 1)), (EINVAL,), Then.TRANSMISSION, export="huge",
    ),
    closes("WRITE of 64 MiB + 1", 52, PAYLOAD, m.request(m.WRITE, 0, 64 * MIB + 1), export="huge"),
    closes("WRITE of 4 GiB - 1", 52, PAYLOAD, m.request(m.WRITE, 0, 2**32 - 1)),
    *(
        answered(f"{name} on a read-only export", 53, ERRORS, plain(number), EPERM, export="locked")
        for name, number in COMMANDS
        if number in (m.WRITE, m.TRIM, m.WRITE_ZEROES)
    ),
    simply("WRITE on a read-only export, simple", 53, ERRORS, plain(m.WRITE), "1 EPERM", export="locked"),
    answered(
        "payload that is valid requests and options", 55, "Request message", m.request(m.WRITE, DATA, data=SPOKEN), OK,
        after=((0, b"d" * DATA), (DATA, SPOKEN)),
    ),
)  # fmt: skip

OTHERS = (
    answered("FLUSH with an offset", 56, FLUSH, m.request(m.FLUSH, 4096, 0), EINVAL),
    answered("FLUSH with a length", 56, FLUSH, m.request(m.FLUSH, 0, 4096), EINVAL),
    answered("FLUSH ten times", 56, FLUSH, m.request(m.FLUSH) * 10, *[OK] * 10),
    answered("TRIM past the end", 57, ERRORS, m.request(m.TRIM, SIZE - 1, 2), EINVAL),
    answered("TRIM across 2^64", 57, ERRORS, m.request(m.TRIM, 2**64 - 1, 2), EINVAL),
    answered("TRIM of 4 GiB - 512", 57, TRIM, m.request(m.TRIM, 0, 2**32 - 512), OK, export="huge"),
    answered("WRITE_ZEROES past the end", 58, ZEROES, m.request(m.WRITE_ZEROES, SIZE - 1, 2), ENOSPC),
    answered(
        "WRITE_ZEROES FAST_ZERO", 58, ZEROES, m.request(m.WRITE_ZEROES, 0, 4096, flags=m.FAST_ZERO), OK,
        after=((0, bytes(4096) + b"d" * 4096),),
    ),
    answered(
        "WRITE_ZEROES NO_HOLE", 58, ZEROES,
        m.request(m.WRITE_ZEROES, SIZE // 2, 8192, flags=m.NO_HOLE)
        + m.request(m.BLOCK_STATUS, SIZE // 2, 16384, cookie=2),
        OK, "2: status 1 8192/2 8192/3", after=((SIZE // 2, bytes(8192)),),
    ),
    answered(
        "WRITE_ZEROES that is not aligned", 58, ZEROES, m.request(m.WRITE_ZEROES, 511, 1026), OK,
        after=((0, b"d" * 511 + bytes(1026) + b"d" * 511),),
    ),
    answered("WRITE_ZEROES of 4 GiB - 1", 58, ZEROES, m.request(m.WRITE_ZEROES, 1, 2**32 - 1), OK, export="huge"),
    answered("CACHE with NO_HOLE", 59, CACHE, plain(m.CACHE, flags=m.NO_HOLE), EINVAL),
    answered("CACHE past the end", 59, CACHE, m.request(m.CACHE, SIZE - 1, 2), EINVAL),
    answered("CACHE of 4 GiB - 1", 59, CACHE, m.request(m.CACHE, 0, 2**32 - 1), OK, export="huge"),
    simply("BLOCK_STATUS without a context", 60, STATUS, m.request(m.BLOCK_STATUS, 0, 4096), "1 EINVAL"),
    answered("BLOCK_STATUS past the end", 60, STATUS, m.request(m.BLOCK_STATUS, SIZE - 1, 2), EINVAL),
    answered("BLOCK_STATUS across 2^64", 60, STATUS, m.request(m.BLOCK_STATUS, 2**64 - 1, 2), EINVAL),
    answered(
        "BLOCK_STATUS of one", 60, STATUS, m.request(m.BLOCK_STATUS, 0, SIZE, flags=m.REQ_ONE),
        rf"1: status 1 {DATA}/0",
    ),
    answered(
        "BLOCK_STATUS of one, cut off", 60, STATUS, m.request(m.BLOCK_STATUS, 0, 4096, flags=m.REQ_ONE),
        r"1: status 1 4096/0",
    ),
    answered(
        "BLOCK_STATUS of all", 60, STATUS, m.request(m.BLOCK_STATUS, 0, SIZE),
        rf"1: status 1 {DATA}/0 {SIZE - DATA}/3",
    ),
    answered(
        "BLOCK_STATUS of a part of a hole", 60, STATUS, m.request(m.BLOCK_STATUS, SIZE - 4096, 4096),
        r"1: status 1 4096/3",
    ),
    answered(
        "BLOCK_STATUS of 4 GiB - 1", 61, STATUS, m.request(m.BLOCK_STATUS, 0, 2**32 - 1),
        rf"1: status 1 {2**32 - 1}/3", export="huge",
    ),
    answered(
        "BLOCK_STATUS at the end of 1 PiB", 61, STATUS, m.request(m.BLOCK_STATUS, HUGE - 512, 512),
        r"1: status 1 512/3", export="huge",
    ),
    answered("one cookie twice", 62, MAGIC, plain(m.READ) * 2, READ_OK, READ_OK),
    answered("cookie 0", 62, MAGIC, m.request(m.FLUSH, cookie=0), "0 ok"),
    answered("cookie ff", 62, MAGIC, m.request(m.FLUSH, cookie=2**64 - 1), f"{2**64 - 1} ok"),
    closes("DISC", 63, DISC, m.request(m.DISC)),
    closes("DISC with its fields set", 63, DISC, m.request(m.DISC, 5, 5, flags=m.FUA) + plain(m.READ)),
    Case(
        "DISC behind requests, rubbish behind it", 63, DISC, in_structured(),
        (plain(m.READ) + m.request(m.WRITE, DATA, data=SECTOR)) * 50 + m.request(m.DISC) + b"rubbish" * 9,
        (READ_OK, OK) * 50, Then.CLOSED, after=((DATA, SECTOR),),
    ),
    answered(
        "a WRITE and a READ of it in one segment", 0, "Ordering of messages and writes",
        m.request(m.WRITE, DATA, data=SECTOR) + m.request(m.READ, DATA, 4096, cookie=2),
        OK, rf"2: read {DATA}\+4096 s\*4096 \(data\)", after=((DATA, SECTOR),),
    ),
    answered(
        "writes of one byte", 0, PAYLOAD,
        b"".join(m.request(m.WRITE, DATA + place, data=struct.pack("B", 97 + place)) for place in range(5)),
        *[OK] * 5, after=((DATA, b"abcde"),),
    ),
)  # fmt: skip

CASES = (*MAGICS, *FLAGS, *BOUNDS, *OTHERS)
