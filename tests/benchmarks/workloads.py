"""What is written to a disk, round by round: in order, at random, by Zipf's law, and as ext4 was seen to do it.

    python -m tests.benchmarks.workloads LOG TRACE     a trace from the log of `tests/lab/record-trace.sh`

A trace holds the requests in the columns kind (0 flush, 1 write, 2 trim, 3 zeroes), sector and sectors (of 512 bytes);
`traces/` has two of a disk of 512 MiB.
"""

import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.benchmarks.cache import by_zipf
from tests.support.messages import FLUSH, TRIM, WRITE, WRITE_ZEROES

KIB, MIB = 1 << 10, 1 << 20
SECTOR = 512
TRACES = Path(__file__).parent / "traces"
COMMANDS = (FLUSH, WRITE, TRIM, WRITE_ZEROES)

Request = tuple[int, int, int]
"""Command, offset and length."""

Workload = Callable[[random.Random, int], Iterator[Request]]
"""One round over a disk of some bytes."""


def uniform(io: int) -> Workload:
    """As many bytes as the disk has, at random places, in requests of `io` bytes."""

    def requests(chance: random.Random, size: int) -> Iterator[Request]:
        for _ in range(size // io):
            yield WRITE, chance.randrange(size // io) * io, io

    return requests


def sequential(chance: random.Random, size: int) -> Iterator[Request]:
    """The disk from its beginning to its end, in requests of a MiB."""
    for offset in range(0, size, MIB):
        yield WRITE, offset, MIB


def zipf(chance: random.Random, size: int) -> Iterator[Request]:
    """4 KiB each, half as many bytes as the disk has, most of them at few places, which are the same in each round."""
    count = size // (4 * KIB)
    places = list(range(count))
    random.Random(1).shuffle(places)
    numbers = by_zipf(chance, count, 0.99)
    for _ in range(count // 2):
        yield WRITE, places[next(numbers)] * 4 * KIB, 4 * KIB


def trace(name: str) -> Workload:
    """What was recorded, again."""

    def requests(chance: random.Random, size: int) -> Iterator[Request]:
        columns = np.load(TRACES / f"{name}.npz")
        rows = zip(*(columns[key].tolist() for key in ("kind", "sector", "sectors")), strict=True)
        for kind, sector, sectors in rows:
            yield COMMANDS[kind], sector * SECTOR, sectors * SECTOR

    return requests


TRACED_BYTES = 512 * MIB
"""Of the disk on which traces were recorded."""

TRACED: dict[str, Workload] = {
    "ext4: trees unpacked and deleted": trace("ext4-untar"),
    "ext4: SQLite": trace("sqlite"),
}

WORKLOADS: dict[str, Workload] = {
    "in order": sequential,
    "4 KiB at random": uniform(4 * KIB),
    "16 KiB at random": uniform(16 * KIB),
    "64 KiB at random": uniform(64 * KIB),
    "4 KiB by Zipf's law": zipf,
    **TRACED,
}


def recorded(log: str) -> dict[str, np.ndarray]:
    """The columns of a trace, from a log of nbdkit's filter."""
    kinds = {"Flush": 0, "Write": 1, "Trim": 2, "Zero": 3}
    rows = []
    for line in log.splitlines():
        if found := re.search(r" (Write|Trim|Zero) id=\d+ offset=0x([0-9a-f]+) count=0x([0-9a-f]+)", line):
            rows.append((kinds[found[1]], int(found[2], 16) // SECTOR, int(found[3], 16) // SECTOR))
        elif " Flush id=" in line:
            rows.append((0, 0, 0))
    kind, sector, sectors = np.array(rows).T
    return {"kind": kind.astype(np.uint8), "sector": sector.astype(np.uint32), "sectors": sectors.astype(np.uint32)}


if __name__ == "__main__":
    columns = recorded(Path(sys.argv[1]).read_text())
    np.savez_compressed(sys.argv[2], kind=columns["kind"], sector=columns["sector"], sectors=columns["sectors"])
