"""What the journal in memory costs: writes with it and without, in turn, in one run. `scripts/bench journal` prints it.

Two servers on stores of their own in a folder, over a Unix socket and one connection of fio's nbd engine. After each
measurement the server flushes, and the other one is measured before its next. Ratios are taken round by round;
processor time of a write is all that the server took while fio wrote, in all its threads.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.beside import table
from tests.benchmarks.cached import Cell, fio
from tests.support.memory import folder_in_memory
from tests.support.program import Host, Server

CELLS = (Cell("4k randwrite QD32", "randwrite", "4k", 32), Cell("256k write QD8", "write", "256k", 8))
GOALS = {"4k randwrite QD32": 0.93, "256k write QD8": 0.9}
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description="writes with a journal in memory and without, in one run")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=5, help="of each cell")
    parser.add_argument("--size", type=int, default=256, help="MiB of the area")
    chosen = parser.parse_args()
    size = chosen.size << 20
    found: dict[str, dict[str, list[float]]] = {cell.name: {"on": [], "off": []} for cell in CELLS}
    processor: dict[str, dict[str, list[float]]] = {cell.name: {"on": [], "off": []} for cell in CELLS}
    with tempfile.TemporaryDirectory(prefix="bench-") as name, folder_in_memory() as memory:
        servers = {}
        for kind, journal in (("on", str(memory)), ("off", "off")):
            folder = Path(name) / kind
            folder.mkdir()
            arguments = ["--journal", journal]
            server = Server(Host(folder), str(folder / "store"), create={"disk": str(size)}, arguments=arguments)
            servers[kind] = server
        try:
            for server in servers.values():
                server.start()
            for _ in range(chosen.rounds):
                for cell in CELLS:
                    # Always in this order: what a server has to do behind its writes is then paid beside the other's.
                    for kind, server in servers.items():
                        timing = ("--time_based", f"--runtime={chosen.seconds}")
                        before = processor_seconds(server.pid)
                        rate = fio(server.unix_uri(), cell.pattern, cell.block, cell.depth, size, Path(name), *timing)
                        taken = processor_seconds(server.pid) - before
                        found[cell.name][kind].append(rate)
                        processor[cell.name][kind].append(taken / (rate * chosen.seconds))
                        server.host.run("flush", "--store", server.location)
        finally:
            for server in servers.values():
                server.close()
    goals = {name: f"{goal:.2f}" for name, goal in GOALS.items()}
    print(table(found, ("off", "without"), ("on", "with a journal"), goals))
    for cell in CELLS:
        rates, seconds = found[cell.name], processor[cell.name]
        print(f"{cell.name}: of the rate {spread(ratios(rates['off'], rates['on']))};", end=" ")
        used = (f"{statistics.median(seconds[kind]) * 1e6:.1f} us" for kind in ("off", "on"))
        print(f"processor time of a write {' and '.join(used)}, {spread(ratios(seconds['on'], seconds['off']))}")
    return 0


def processor_seconds(pid: int) -> float:
    """What all threads of a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def ratios(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [b / a for a, b in zip(one, other, strict=True)]


def spread(found: Sequence[float]) -> str:
    """The median, and the middle half."""
    low, middle, high = statistics.quantiles(found, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    raise SystemExit(main())
