"""Small requests of every kind, sent by qemu-io and by libnbd, looked at again after a restart."""

from tests.support.commands import SYSTEM_PYTHON, nbdsh, run
from tests.support.program import Server
from tests.support.requirements import require

WRITES = (
    "write -f -P 0x66 64k 4k",  # -f is FUA
    "write -P 0x67 1000448 12800",  # not aligned to 4 KiB
    "write -P 0x68 252k 8k",  # over the border of two blocks
    "write -P 0x11 2M 1M",
    "write -z 2304k 64k",  # zeroes, must stay allocated
    "write -z -u 2560k 64k",  # zeroes, may unmap
    "discard 2816k 64k",
    "write -P 0x69 511 1026",  # sectors torn by design: a server with minimum block size 1
    "flush",
)
READS = (
    "read -P 0x66 64k 4k",
    "read -P 0x67 1000448 12800",
    "read -P 0 1013248 512",
    "read -P 0x68 252k 8k",
    "read -P 0x11 2M 256k",
    "read -P 0 2304k 64k",
    "read -P 0x11 2368k 192k",
    "read -P 0 2560k 64k",
    "read -P 0 2816k 64k",
    "read -P 0x11 2880k 192k",
    "read -P 0 3M 1M",
)


def qemu_io(uri: str, *steps: str) -> None:
    said = run("qemu-io", "-f", "raw", *(word for step in steps for word in ("-c", step)), uri)
    assert "failed" not in said, said


def test_qemu_io_patterns(server: Server) -> None:
    require("qemu-io")
    qemu_io(server.uri(), *WRITES)
    qemu_io(server.unix_uri(), *READS)
    server.kill()  # everything was flushed
    server.start()
    qemu_io(server.uri(), *READS)
    assert server.stop() == 0
    server.start()
    qemu_io(server.uri(), *READS)


def test_libnbd_requests(server: Server) -> None:
    require(SYSTEM_PYTHON, "/usr/lib/python3/dist-packages/nbd.py")
    nbdsh(
        server.uri(),
        """
h.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_FUA)
h.pwrite(b"odd" * 7, 777)
assert h.pread(4, 0) == b"xxxx"
assert h.pread(21, 777) == b"odd" * 7
h.zero(1 << 20, 1 << 20, nbd.CMD_FLAG_FAST_ZERO)
h.zero(1 << 20, 2 << 20, nbd.CMD_FLAG_NO_HOLE)
h.trim(1 << 20, 3 << 20)
h.cache(1 << 20, 0)
h.flush()
assert h.get_structured_replies_negotiated()

chunks = []
def note(data, offset, kind, error):
    chunks.append((offset, len(data), kind))
h.pread_structured(2 << 20, 0, note)
assert any(kind == nbd.READ_HOLE for _, _, kind in chunks), chunks
chunks.clear()
h.pread_structured(1 << 20, 0, note, nbd.CMD_FLAG_DF)
assert chunks == [(0, 1 << 20, nbd.READ_DATA)], chunks

seen = []
h.block_status(8 << 20, 0, lambda context, offset, extents, error: seen.append((context, extents)) or 0)
assert seen[0][0] == "base:allocation"
pairs = list(zip(seen[0][1][::2], seen[0][1][1::2]))
flags_at, place = {}, 0
for length, flags in pairs:
    flags_at[place] = flags
    place += length
def at(offset):
    return flags_at[max(start for start in flags_at if start <= offset)]
assert at(0) == 0 and at(1 << 20) == 3 and at(3 << 20) == 3, pairs
assert at(2 << 20) == nbd.STATE_ZERO, pairs       # NO_HOLE: zero, but allocated

for bad in (lambda: h.pread(512, 256 << 20), lambda: h.pwrite(b"x" * 512, (256 << 20) - 256)):
    h.set_strict_mode(0)
    try:
        bad()
        raise SystemExit("a request past the end was not refused")
    except nbd.Error as error:
        assert error.errno in ("EINVAL", "ENOSPC"), error.errno
""",
    )


def test_many_requests_in_flight(server: Server) -> None:
    """Four connections (libnbd's asynchronous calls) write disjoint places; one flush covers them all."""
    require(SYSTEM_PYTHON, "/usr/lib/python3/dist-packages/nbd.py")
    nbdsh(
        server.uri(),
        f"""
others = [nbd.NBD() for _ in range(3)]
for other in others:
    other.connect_uri("{server.uri()}")
handles = [h, *others]
pending = []
for number in range(400):
    handle = handles[number % 4]
    data = nbd.Buffer.from_bytearray(bytearray(number.to_bytes(4, "big") * 4096))
    pending.append((handle, handle.aio_pwrite(data, number * 65536)))
for handle, cookie in pending:
    while not handle.aio_command_completed(cookie):
        handle.poll(-1)
others[0].flush()
""",
    )
    server.kill()
    server.start()
    with server.connect() as client:
        for number in range(400):
            assert client.read(number * 65536, 16384) == number.to_bytes(4, "big") * 4096
