"""What structured replies, extended headers and TLS cost: `scripts/bench dialects` prints the table.

One connection, reads answered from memory. Of the dialects, a client that does next to nothing sends
a burst of requests that were packed beforehand, and sends it again when so many bytes of replies have come as are due.
Over TCP, TLS is measured with nbdcopy, sequentially, eight requests of 256 KiB in flight: the client has to decrypt,
too. The ways to speak are measured in turn, and ratios are taken round by round.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support import certificates
from tests.support import messages as m
from tests.support.nbd import Client
from tests.support.program import Host, Server

KIB, MIB = 1 << 10, 1 << 20
AREA = 512 * MIB


SIMPLE_BYTES, STRUCTURED_BYTES, EXTENDED_BYTES = 16, 20 + 8, 32 + 8
"""What comes with the data of one READ: a header, and the offset where replies come in chunks."""


class ExtendedClient(Client):
    """A client with extended headers."""

    def _handshake(self, export: str) -> None:
        self._option(m.EXTENDED_HEADERS, b"")
        super()._handshake(export)


@dataclass(frozen=True)
class Way:
    """One way to speak: how to connect, how a request is packed, and what comes beside its data."""

    name: str
    connect: Callable[[Path], Client]
    pack: Callable[[int, int], bytes]
    overhead: int


def compact(offset: int, length: int) -> bytes:
    return m.request(m.READ, offset, length)


def extended(offset: int, length: int) -> bytes:
    return m.extended(m.READ, offset, length)


SIMPLE = Way("simple", lambda path: Client(path, structured=False), compact, SIMPLE_BYTES)
OTHERS = (
    Way("structured", Client, compact, STRUCTURED_BYTES),
    Way("extended", lambda path: ExtendedClient(path, structured=False), extended, EXTENDED_BYTES),
)


def rate(way: Way, path: Path, seconds: float) -> float:
    """Reads of 4 KiB a second, 32 in flight."""
    length, depth = 4 * KIB, 32
    client = way.connect(path)
    burst = b"".join(way.pack(number * 7919 * length % AREA, length) for number in range(depth))
    buffer = memoryview(bytearray(MIB))
    done = 0
    started = time.monotonic()
    while time.monotonic() < started + seconds:
        client.socket.sendall(burst)
        left = depth * (way.overhead + length)
        while left:
            left -= client.socket.recv_into(buffer[:left])
        done += depth
    elapsed = time.monotonic() - started
    client.close()
    return done / elapsed


def copied(uri: str) -> float:
    """MiB a second of nbdcopy over the whole area."""
    started = time.monotonic()
    subprocess.run(["nbdcopy", "--connections=1", "--requests=8", "--request-size=262144", uri, "null:"], check=True)
    return AREA / MIB / (time.monotonic() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description="what structured replies, extended headers and TLS cost")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each cell")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    certificates.write_folder(folder / "tls", certificates.Authority())
    arguments = ["--tls", "on", "--tls-certificates", str(folder / "tls")]
    server = Server(Host(folder), str(folder / "store"), create={"disk": str(AREA)}, arguments=arguments)
    place = f"localhost:{server.port}/disk"
    measures: list[tuple[str, Callable[[], float], Callable[[], float]]] = [
        (
            f"4k read QD32, {way.name}",
            partial(rate, SIMPLE, server.socket, chosen.seconds),
            partial(rate, way, server.socket, chosen.seconds),
        )
        for way in OTHERS
    ]
    secured = partial(copied, f"nbds://{place}?tls-certificates={folder}/tls")
    measures.append(("MiB of sequential reads, TLS", partial(copied, f"nbd://{place}"), secured))
    try:
        server.start()
        with server.connect() as client:
            for offset in range(0, AREA, MIB):
                client.write(offset, os.urandom(MIB))
            client.flush()
        print("| a second | simple replies, in clear | other | ratio |")
        print("| --- | --- | --- | --- |")
        for name, usual, other in measures:
            rounds = [(usual(), other()) for _ in range(chosen.rounds)]
            base, found = (statistics.median(column) for column in zip(*rounds, strict=True))
            ratio = statistics.median(b / a for a, b in rounds)
            print(f"| {name} | {base:,.0f} | {found:,.0f} | {ratio:.2f} |", flush=True)
    finally:
        server.close()
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
