"""What observation costs: a server with metrics scraped each second and a dashboard open, and with nobody looking, in
turn, in one run. `scripts/bench observed` prints it.

One server on a store in a folder, over a Unix socket and one connection of fio's nbd engine. Who looks reads the
samples of the dashboard, asks for the map of the disk every five seconds, and for the metrics every second. Rounds are
short, so that what else the machine does falls on both alike, and each is said as soon as it is over. Each round
has both orders: who comes second pays for what the server still does behind the first. Ratios are taken round by round:
of the rate, and of the processor time that all threads of the server took for an operation.
"""

import argparse
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.benchmarks.beside import table
from tests.benchmarks.cached import Cell, fio
from tests.benchmarks.journal import processor_seconds, ratios, spread
from tests.support.processes import unused_port
from tests.support.program import Host, Server

OBSERVED_CELLS = (
    Cell("4k randread QD32", "randread", "4k", 32),
    Cell("4k randwrite QD32", "randwrite", "4k", 32),
    Cell("256k write QD8", "write", "256k", 8),
)
OBSERVED_GOAL = 0.97
KINDS = ("off", "on")
MAP_SECONDS = 5
FIRST_SAMPLE_SECONDS_MAX = 30
BESIDE_SECONDS = 1.2
"""About what goes by beside a measurement: the start of fio, a flush, the first sample."""


class Watcher:
    """Who looks: counts what came, so that a run in which nobody saw anything is no measurement."""

    def __init__(self, server: Server, metrics: str) -> None:
        told: Any = server.host.json("dashboard", "--store", server.location)
        self._url, self._token, self._metrics = told["url"], told["read_only"], metrics
        self._over = threading.Event()
        self._sees = threading.Event()
        self._until_map = float(MAP_SECONDS)
        """Seconds of looking, in however many blocks."""
        self.samples = self.scrapes = self.maps = 0

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Somebody looks, as long as the block runs; in it the page is there already, and its first samples came."""
        self._over.clear()
        self._sees.clear()
        threads = [threading.Thread(target=look) for look in (self._follow, self._scrape, self._ask_for_map)]
        for thread in threads:
            thread.start()
        try:
            if not self._sees.wait(FIRST_SAMPLE_SECONDS_MAX):
                raise RuntimeError("no sample of the dashboard came: nobody would be looking")
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _open(self, path: str) -> Any:
        return urlopen(Request(self._url + path, headers={"Authorization": f"Bearer {self._token}"}), timeout=30)

    def _follow(self) -> None:
        with self._open("v1/events") as stream:
            while not self._over.is_set():
                if stream.readline().startswith(b"data: "):
                    self.samples += 1
                    self._sees.set()

    def _scrape(self) -> None:
        while not self._over.wait(1):
            with urlopen(self._metrics, timeout=30) as answer:
                self.scrapes += bool(answer.read())

    def _ask_for_map(self) -> None:
        began = time.monotonic()
        while not self._over.wait(self._until_map - (time.monotonic() - began)):
            began, self._until_map = time.monotonic(), float(MAP_SECONDS)
            with self._open("v1/map/disk?cells=1024") as answer:
                self.maps += bool(answer.read())
        self._until_map = max(self._until_map - (time.monotonic() - began), 0.0)


class Measured:
    """Of each cell, by kind and round: operations a second, and the server's processor seconds for one of them."""

    def __init__(self) -> None:
        self.rates: dict[str, dict[str, list[float]]] = {cell.name: {"on": [], "off": []} for cell in OBSERVED_CELLS}
        self.processor: dict[str, dict[str, list[float]]] = {
            cell.name: {"on": [], "off": []} for cell in OBSERVED_CELLS
        }

    def add(self, cell: str, kind: str, rate: float, processor: float) -> None:
        self.rates[cell][kind].append(rate)
        self.processor[cell][kind].append(processor)

    def last_round(self) -> str:
        """The ratios of the last round, as a line."""
        parts = []
        for cell, rates in self.rates.items():
            rate, used = (of["on"][-1] / of["off"][-1] for of in (rates, self.processor[cell]))
            parts.append(f"{cell}: rate {rate:.3f}, processor {used:.3f}")
        return "; ".join(parts)

    def __str__(self) -> str:
        goals = dict.fromkeys(self.rates, f"{OBSERVED_GOAL}")
        lines = [table(self.rates, ("off", "nobody looks"), ("on", "dashboard and metrics"), goals)]
        for cell, rates in self.rates.items():
            used = self.processor[cell]
            medians = (f"{statistics.median(used[kind]) * 1e6:.1f} us" for kind in ("off", "on"))
            lines.append(
                f"{cell}: of the rate {spread(ratios(rates['off'], rates['on']))}; processor time of an operation "
                f"{' and '.join(medians)}, {spread(ratios(used['off'], used['on']))}"
            )
        return "\n".join(lines)


def measure(server: Server, watcher: Watcher, cell: Cell, kind: str, size: int, seconds: int) -> tuple[float, float]:
    """Operations a second, and processor seconds for each, with somebody looking or not."""
    with watcher.looking() if kind == "on" else contextlib.nullcontext():
        before = processor_seconds(server.pid)
        timing = ("--time_based", f"--runtime={seconds}")
        rate = fio(server.unix_uri(), cell.pattern, cell.block, cell.depth, size, server.host.folder, *timing)
        taken = processor_seconds(server.pid) - before
    server.host.run("flush", "--store", server.location)
    return rate, taken / (rate * seconds)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="with a dashboard open and metrics scraped, and with nobody looking; as it is by default it takes "
        "about four minutes, on a machine that does nothing else"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each cell")
    parser.add_argument("--size", type=int, default=256, help="MiB of the area")
    chosen = parser.parse_args()
    size, measured = chosen.size << 20, Measured()
    expected = chosen.rounds * len(OBSERVED_CELLS) * 4 * (chosen.seconds + BESIDE_SECONDS)
    print(f"{chosen.rounds} rounds, about {expected:.0f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        port = unused_port()
        arguments = ["--metrics", str(port), "--dashboard", str(unused_port()), "--prices", "aws-s3-standard"]
        server = Server(Host(Path(name)), str(Path(name) / "store"), create={"disk": str(size)}, arguments=arguments)
        try:
            server.start()
            watcher = Watcher(server, f"http://127.0.0.1:{port}/metrics")
            fio(server.unix_uri(), "write", "256k", 8, size, Path(name))
            for turn in range(chosen.rounds):
                found = {(cell.name, kind): list[tuple[float, float]]() for cell in OBSERVED_CELLS for kind in KINDS}
                for order in (KINDS, KINDS[::-1]):
                    for cell, kind in product(OBSERVED_CELLS, order):
                        one = measure(server, watcher, cell, kind, size, chosen.seconds)
                        found[cell.name, kind].append(one)
                for (which, kind), both in found.items():
                    measured.add(which, kind, *map(statistics.mean, zip(*both, strict=True)))
                print(f"round {turn + 1}: {measured.last_round()}", flush=True)
        finally:
            server.close()
    print(measured)
    print(f"{watcher.samples} samples, {watcher.scrapes} scrapes, {watcher.maps} maps")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
