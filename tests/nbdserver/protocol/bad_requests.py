"""Rows of the table of bad inputs that are about requests with compact headers."""

from tests.nbdserver.protocol.bad_input import (
    BIT15,
    MIB,
    PAYLOAD,
    READ,
    READ_BACK,
    SIZE,
    Case,
    closed,
    request,
)
from tests.nbdserver.protocol.bad_options import STATUS
from tests.support import messages as m

COMMANDS = [
    ("READ", m.READ),
    ("WRITE", m.WRITE),
    ("FLUSH", m.FLUSH),
    ("TRIM", m.TRIM),
    ("CACHE", m.CACHE),
    ("WRITE_ZEROES", m.WRITE_ZEROES),
    ("BLOCK_STATUS", m.BLOCK_STATUS),
]
EINVAL, ENOSPC, EPERM = "1: chunk error EINVAL", "1: chunk error ENOSPC", "1: chunk error EPERM"
SECTOR = b"s" * 4096


def command(number: int, *, flags: int = 0) -> bytes:
    """A request that is fine but for its flags."""
    if number == m.WRITE:
        return m.request(number, 0, data=SECTOR, flags=flags)
    return m.request(number, 0, 0 if number == m.FLUSH else 4096, flags=flags)


REQUESTS = [
    *(
        closed(f"41 magic {magic}", bytes.fromhex(magic) + bytes(24), before=m.structured())
        for magic in ("25609514", "12560953", "67446698", "00000000")
    ),
    closed("41 behind a good request", READ + bytes(28), *READ_BACK, before=m.structured()),
    request("42 type 99", m.request(99), EINVAL),
    request("42 type 99 has no payload", m.request(99, 0, 4096), EINVAL),
    *(request(f"43 {name} with bit 15", command(number, flags=BIT15), EINVAL) for name, number in COMMANDS),
    *(request(f"43 {name} with PAYLOAD_LEN", command(number, flags=1 << 5), EINVAL) for name, number in COMMANDS),
    request("43 DF on WRITE", command(m.WRITE, flags=m.DF), EINVAL),
    request("43 NO_HOLE on READ", command(m.READ, flags=m.NO_HOLE), EINVAL),
    request("43 REQ_ONE on TRIM", command(m.TRIM, flags=m.REQ_ONE), EINVAL),
    request("43 FAST_ZERO on TRIM", command(m.TRIM, flags=m.FAST_ZERO), EINVAL),
    request("44 FUA on READ", command(m.READ, flags=1), "1: data 4096@0"),
    request("44 FUA on FLUSH", command(m.FLUSH, flags=1), "1: ok"),
    request("44 FUA on CACHE", command(m.CACHE, flags=1), "1: ok"),
    request("44 FUA on BLOCK_STATUS", command(m.BLOCK_STATUS, flags=1), "1: status 1 4096/0"),
    Case(
        "45 DF without structured replies",
        command(m.READ, flags=m.DF),
        ["1: error EINVAL"],
        before=m.simple(),
    ),
    request("45 data and hole", m.request(m.READ, 0, 131072), "1: data 65536@0 more", "1: hole 65536@65536"),
    request(
        "45 DF over data and hole",
        m.request(m.READ, 0, 131072, flags=m.DF),
        "1: data 131072@0",
    ),
    request("45 DF over a hole", m.request(m.READ, MIB // 2, 65536, flags=m.DF), "1: hole 65536@524288"),
    request("46 READ of nothing", m.request(m.READ), "1: none"),
    request("46 WRITE of nothing", m.request(m.WRITE), "1: ok"),
    request("46 TRIM of nothing", m.request(m.TRIM), "1: ok"),
    request("46 WRITE_ZEROES of nothing", m.request(m.WRITE_ZEROES), "1: ok"),
    request("46 CACHE of nothing", m.request(m.CACHE), "1: ok"),
    request("46 BLOCK_STATUS of nothing", m.request(m.BLOCK_STATUS), EINVAL),
    Case("46 READ of nothing, simple", m.request(m.READ), ["1: ok"], before=m.simple()),
    request("46 nothing beyond the end", m.request(m.WRITE, SIZE + 1), ENOSPC),
    request("47 READ at the end", m.request(m.READ, SIZE, 1), EINVAL),
    request("47 READ across 2^64", m.request(m.READ, 2**64 - 1, 2), EINVAL),
    request("47 READ at 2^63", m.request(m.READ, 2**63, 0xFFFFFFFF), EINVAL),
    request("48 READ of 32 MiB + 1", m.request(m.READ, 0, PAYLOAD + 1), "1: chunk error EOVERFLOW", export="huge"),
    request("48 READ of 4 GiB - 1", m.request(m.READ, 0, 2**32 - 1), "1: chunk error EOVERFLOW", export="huge"),
    request("48 READ of 32 MiB", m.request(m.READ, 0, PAYLOAD), "1: hole 33554432@0", export="huge"),
    Case(
        "48 READ of 32 MiB + 1, simple",
        m.request(m.READ, 0, PAYLOAD + 1),
        ["1: error EINVAL"],
        before=m.simple("huge"),
    ),
    Case(
        "48 a long READ, simple",
        m.request(m.READ, 0, 3 * MIB),
        ["1: ok 3145728 bytes"],
        before=m.simple("huge"),
        reads=((1, 3 * MIB),),
    ),
    request("51 WRITE across the end", m.request(m.WRITE, SIZE - 1, data=b"xx"), ENOSPC),
    request("51 a long WRITE across the end", m.request(m.WRITE, SIZE - 1, data=bytes(100_000)), ENOSPC, large=True),
    request("52 WRITE of 32 MiB", m.request(m.WRITE, MIB, data=bytes(PAYLOAD)), "1: ok", export="huge", large=True),
    request(
        "52 WRITE of 32 MiB + 1",
        m.request(m.WRITE, MIB, data=bytes(PAYLOAD + 1)),
        EINVAL,
        export="huge",
        large=True,
    ),
    closed("52 WRITE of 64 MiB + 1", m.request(m.WRITE, 0, 64 * MIB + 1), before=m.structured("huge")),
    closed("52 WRITE of 4 GiB - 1", m.request(m.WRITE, 0, 2**32 - 1), before=m.structured("huge")),
    *(
        request(f"53 {name} on a read-only export", command(number), EPERM, export="locked")
        for name, number in COMMANDS
        if "WRITE" in name or name == "TRIM"
    ),
    request("55 a payload of requests", m.request(m.WRITE, 8192, data=READ * 100 + m.option(3) * 10), "1: ok"),
    request("56 FLUSH with an offset", m.request(m.FLUSH, 1, 0), EINVAL),
    request("56 FLUSH with a length", m.request(m.FLUSH, 0, 1), EINVAL),
    request("57 TRIM past the end", m.request(m.TRIM, SIZE - 1, 2), EINVAL),
    request("57 TRIM of 4 GiB - 512", m.request(m.TRIM, 512, 2**32 - 512), "1: ok", export="huge"),
    request("58 WRITE_ZEROES past the end", m.request(m.WRITE_ZEROES, SIZE - 1, 2), ENOSPC),
    request("58 WRITE_ZEROES fast", m.request(m.WRITE_ZEROES, 8192, 4096, flags=m.FAST_ZERO), "1: ok"),
    request(
        "58 WRITE_ZEROES NO_HOLE",
        m.request(m.WRITE_ZEROES, MIB // 2, 8192, flags=m.NO_HOLE)
        + m.request(m.BLOCK_STATUS, MIB // 2, 16384, cookie=2),
        "1: ok",
        "2: status 1 8192/2 8192/3",
    ),
    request("58 WRITE_ZEROES of 4 GiB - 1", m.request(m.WRITE_ZEROES, 1, 2**32 - 1), "1: ok", export="huge"),
    request("59 CACHE with NO_HOLE", command(m.CACHE, flags=m.NO_HOLE), EINVAL),
    request("59 CACHE past the end", m.request(m.CACHE, SIZE - 1, 2), EINVAL),
    request("59 CACHE of 4 GiB - 1", m.request(m.CACHE, 0, 2**32 - 1), "1: ok", export="huge"),
    Case("60 BLOCK_STATUS without a context", STATUS, ["1: error EINVAL"], before=m.simple()),
    request("60 BLOCK_STATUS past the end", m.request(m.BLOCK_STATUS, SIZE - 1, 2), EINVAL),
    request(
        "60 BLOCK_STATUS of one",
        m.request(m.BLOCK_STATUS, 0, SIZE, flags=m.REQ_ONE),
        "1: status 1 65536/0",
    ),
    request("60 BLOCK_STATUS of all", m.request(m.BLOCK_STATUS, 0, SIZE), "1: status 1 65536/0 983040/3"),
    request(
        "61 BLOCK_STATUS of 4 GiB - 1",
        m.request(m.BLOCK_STATUS, 0, 2**32 - 1),
        "1: status 1 4294967295/3",
        export="huge",
    ),
    request("62 one cookie twice", command(m.READ) + command(m.READ), "1: data 4096@0", "1: data 4096@0"),
    request("62 cookie 0", m.request(m.FLUSH, cookie=0), "0: ok"),
    request("62 cookie ff", m.request(m.FLUSH, cookie=2**64 - 1), f"{2**64 - 1}: ok"),
    closed("63 DISC with its fields set", m.request(m.DISC, 5, 5, flags=3) + READ, before=m.structured()),
    closed(
        "63 DISC behind requests",
        (READ + m.request(m.WRITE, 8192, data=SECTOR)) * 50 + m.request(m.DISC) + b"rubbish" * 9,
        *["7: data 4096@0", "1: ok"] * 50,
        before=m.structured(),
    ),
]
