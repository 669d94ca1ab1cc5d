"""Draws what overwriting does to a store: space, written and fetched bytes over ten rounds of several workloads.

    scripts/bench picture [--size MIB] [--rounds N] [--store folder|minio] FILE.svg

Each workload has a store of its own on the real server with a cache of 16 MiB, and a disk of the size that is said;
those that were recorded have one of 512 MiB. After each round: bytes stored for each
that the disk has (in whole sectors of 4 KiB), bytes uploaded for each that was written in it, and bytes fetched for
each of 500 reads of 4 KiB at random places that have data. The figures go to standard output as well, as JSON lines.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.amplification import replies, stored
from tests.benchmarks.bench import MIB, Bench
from tests.benchmarks.workloads import TRACED, TRACED_BYTES, WORKLOADS, Workload
from tests.support.messages import FLUSH, READ, WRITE
from tests.support.minio import RunningMinio
from tests.support.nbd import Client

SECTOR = 4096
DEPTH = 32
IN_FLIGHT_BYTES = 8 * MIB
READS = 500
PANELS = (
    ("space", "bytes stored for each that the disk has"),
    ("upload", "bytes uploaded for each that is written"),
    ("fetch", "bytes fetched for each that is read, 4 KiB at random, cold"),
)


@dataclass
class Round:
    """What one round was seen to do."""

    workload: str
    number: int
    space: float
    upload: float
    fetch: float


def main() -> None:
    parser = argparse.ArgumentParser(description="draw what overwriting does to a store")
    parser.add_argument("file", type=Path, metavar="FILE.svg")
    parser.add_argument("--size", type=int, default=512, metavar="MIB")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--store", choices=["folder", "minio"], default="minio")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    minio = RunningMinio(folder)
    minio.start()
    seen: list[Round] = []
    try:
        for name, workload in WORKLOADS.items():
            with Bench(folder, minio) as bench:
                size = TRACED_BYTES if name in TRACED else chosen.size * MIB
                seen += measure(bench, chosen.store, name, workload, size=size, rounds=chosen.rounds)
    finally:
        minio.stop()
        shutil.rmtree(folder, ignore_errors=True)
    chosen.file.write_text(drawn(seen))


def measure(bench: Bench, store: str, name: str, workload: Workload, *, size: int, rounds: int) -> list[Round]:
    """All rounds of one workload."""
    server = bench.server(store, size, "--cache-size", "16MiB")
    client = bench.client(server)
    chance, has_data, seen = random.Random(1), np.zeros(size // SECTOR, np.bool_), []
    for number in range(1, rounds + 1):
        before = bench.minio.counters()
        written = play(client, workload, chance, has_data, size)
        uploaded = bench.minio.counters().since(before).received_bytes
        space = stored(bench, server) / (int(has_data.sum()) * SECTOR)
        before = bench.minio.counters()
        read_some(client, np.flatnonzero(has_data).tolist(), chance)
        fetched = bench.minio.counters().since(before).sent_bytes
        seen.append(Round(name, number, space, uploaded / written, fetched / (READS * SECTOR)))
        print(json.dumps(asdict(seen[-1])), flush=True)
    server.stop()
    return seen


def play(client: Client, workload: Workload, chance: random.Random, has_data: np.ndarray, size: int) -> int:
    """One round; the bytes that were written. `has_data` says of each sector whether the disk has data there."""
    written = waiting = bytes_waiting = 0
    for command, offset, length in workload(chance, size):
        if waiting and (waiting == DEPTH or bytes_waiting + length > IN_FLIGHT_BYTES or command == FLUSH):
            replies(client, waiting)
            waiting = bytes_waiting = 0
        if command == FLUSH:
            client.flush()
            continue
        client.submit(command, offset, length, data=os.urandom(length) if command == WRITE else b"")
        waiting += 1
        if command == WRITE:
            bytes_waiting += length
            written += length
            has_data[offset // SECTOR : (offset + length - 1) // SECTOR + 1] = True
        else:
            has_data[-(-offset // SECTOR) : (offset + length) // SECTOR] = False
    replies(client, waiting)
    client.flush()
    return written


def read_some(client: Client, sectors: list[int], chance: random.Random) -> None:
    for _ in range(READS // DEPTH + 1):
        for _ in range(DEPTH):
            client.submit(READ, chance.choice(sectors) * SECTOR, SECTOR)
        replies(client, DEPTH)


def drawn(seen: list[Round]) -> str:
    """The picture, by gnuplot."""
    names = list(dict.fromkeys(one.workload for one in seen))
    rows = [f"$round{position} << EOD\n{table(seen, name)}EOD" for position, name in enumerate(names)]
    panels = []
    for column, (_, title) in enumerate(PANELS, start=2):
        lines = (
            f'$round{position} using 1:{column} with linespoints linewidth 2 pointtype 7 pointsize 0.4 title "{name}"'
            for position, name in enumerate(names)
        )
        key = "set key outside bottom center horizontal" if column == len(PANELS) + 1 else "unset key"
        panels.append(f'{key}\nset title "{title}"\nplot {", ".join(lines)}')
    script = "\n".join(
        (
            *rows,
            'set terminal svg size 800,1200 font "sans-serif,13" background "white"',
            "set multiplot layout 3,1",
            'set yrange [0:*]\nset xtics 1\nset grid ytics\nset xlabel "round"',
            *panels,
            "unset multiplot",
        )
    )
    return subprocess.run(["gnuplot"], input=script, text=True, capture_output=True, check=True).stdout


def table(seen: list[Round], name: str) -> str:
    rows = (one for one in seen if one.workload == name)
    return "".join(f"{one.number} {one.space:.3f} {one.upload:.3f} {one.fetch:.3f}\n" for one in rows)


if __name__ == "__main__":
    main()
