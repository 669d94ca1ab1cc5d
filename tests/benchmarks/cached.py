"""Cached I/O beside nbdkit's memory plugin (C, no storage): `scripts/bench` prints the table.

Both servers run at once and are measured in turn, cell by cell and round by round, over a Unix socket and one
connection of fio's nbd engine. The area is written first. Figures are medians of the rounds; ratios are taken round
by round, so what else the machine does touches both sides.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.beside import table
from tests.support.processes import listens
from tests.support.program import Host, Server

GOALS = {"4k randread QD1": 1.0, "4k randread QD32": 0.7, "4k randwrite QD32": 0.5, "256k read QD8": 0.6}


@dataclass(frozen=True)
class Cell:
    """One figure: operations a second of `pattern` with `block` bytes and `depth` requests in flight."""

    name: str
    pattern: str
    block: str
    depth: int


CELLS = (
    Cell("4k randread QD1", "randread", "4k", 1),
    Cell("4k randread QD32", "randread", "4k", 32),
    Cell("256k read QD8", "read", "256k", 8),
    Cell("4k randwrite QD32", "randwrite", "4k", 32),
)
"""Reads before writes: that is what a cache that holds the area does for them."""


def fio(uri: str, pattern: str, block: str, depth: int, size: int, folder: Path, *timing: str) -> float:
    """Operations a second that fio reached."""
    report = folder / "fio.json"
    subprocess.run(
        [
            "fio",
            "--name=cell",
            "--ioengine=nbd",
            f"--uri={uri}",
            f"--rw={pattern}",
            f"--bs={block}",
            f"--iodepth={depth}",
            f"--size={size}",
            "--buffer_compress_percentage=50",
            "--output-format=json",
            f"--output={report}",
            *timing,
        ],
        check=True,
        capture_output=True,
    )
    job = json.loads(report.read_text())["jobs"][0]
    return float(job["read"]["iops"] + job["write"]["iops"])


def main() -> int:
    parser = argparse.ArgumentParser(description="cached I/O beside nbdkit memory, in one run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each cell")
    parser.add_argument("--size", type=int, default=512, help="MiB of the area")
    chosen = parser.parse_args()
    size = chosen.size << 20
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    peer_socket = folder / "nbdkit"
    peer = subprocess.Popen(["nbdkit", "-f", "-U", str(peer_socket), "memory", str(size)])
    server = Server(Host(folder), str(folder / "store"), create={"disk": str(size)}, tcp=False)
    try:
        server.start()
        while not listens(peer_socket):
            time.sleep(0.05)
        uris = {"nbdkit": f"nbd+unix:///?socket={peer_socket}", "ours": server.unix_uri()}
        for uri in uris.values():
            fio(uri, "write", "256k", 8, size, folder)
        found: dict[str, dict[str, list[float]]] = {cell.name: {name: [] for name in uris} for cell in CELLS}
        for _ in range(chosen.rounds):
            for cell in CELLS:
                for name, uri in uris.items():
                    timing = ("--time_based", f"--runtime={chosen.seconds}")
                    rate = fio(uri, cell.pattern, cell.block, cell.depth, size, folder, *timing)
                    found[cell.name][name].append(rate)
    finally:
        server.close()
        peer.terminate()
        peer.wait()
        shutil.rmtree(folder)
    goals = {name: f"{goal:.1f}" for name, goal in GOALS.items()}
    print(table(found, ("nbdkit", "nbdkit memory"), ("ours", "nbdserver"), goals))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
