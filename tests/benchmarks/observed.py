"""What observation costs: a server with metrics scraped each second and a dashboard open, and with nobody looking, in
turn, in one run. `scripts/bench observed` prints it.

One server on a store in a folder, over a Unix socket and one connection of fio's nbd engine. Who looks reads the
samples of the dashboard, asks for the map of the disk every five seconds, and for the metrics every second. Ratios are
taken round by round.
"""

import argparse
import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.benchmarks.beside import table
from tests.benchmarks.cached import Cell, fio
from tests.support.processes import unused_port
from tests.support.program import Host, Server

OBSERVED_CELLS = (
    Cell("4k randread QD32", "randread", "4k", 32),
    Cell("4k randwrite QD32", "randwrite", "4k", 32),
    Cell("256k write QD8", "write", "256k", 8),
)
OBSERVED_GOAL = 0.97
MAP_SECONDS = 5


class Watcher:
    """Who looks: counts what came, so that a run in which nobody saw anything is no measurement."""

    def __init__(self, server: Server, metrics: str) -> None:
        told: Any = server.host.json("dashboard", "--store", server.location)
        self._url, self._token, self._metrics = told["url"], told["read_only"], metrics
        self._over = threading.Event()
        self.samples = self.scrapes = self.maps = 0

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Somebody looks, as long as the block runs."""
        self._over.clear()
        threads = [threading.Thread(target=look) for look in (self._follow, self._scrape, self._ask_for_map)]
        for thread in threads:
            thread.start()
        try:
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
                self.samples += stream.readline().startswith(b"data: ")

    def _scrape(self) -> None:
        while not self._over.wait(1):
            with urlopen(self._metrics, timeout=30) as answer:
                self.scrapes += bool(answer.read())

    def _ask_for_map(self) -> None:
        while not self._over.wait(MAP_SECONDS):
            with self._open("v1/map/disk?cells=1024") as answer:
                self.maps += bool(answer.read())


def main() -> int:
    parser = argparse.ArgumentParser(description="with a dashboard open and metrics scraped, and with nobody looking")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=8, help="of each cell")
    parser.add_argument("--size", type=int, default=256, help="MiB of the area")
    chosen = parser.parse_args()
    size = chosen.size << 20
    found: dict[str, dict[str, list[float]]] = {cell.name: {"on": [], "off": []} for cell in OBSERVED_CELLS}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        port = unused_port()
        arguments = ["--metrics", str(port), "--dashboard", str(unused_port()), "--prices", "aws-s3-standard"]
        server = Server(Host(Path(name)), str(Path(name) / "store"), create={"disk": str(size)}, arguments=arguments)
        try:
            server.start()
            watcher = Watcher(server, f"http://127.0.0.1:{port}/metrics")
            fio(server.unix_uri(), "write", "256k", 8, size, Path(name))
            for turn in range(chosen.rounds):
                for cell in OBSERVED_CELLS:
                    for kind in ("on", "off") if turn % 2 else ("off", "on"):
                        timing = ("--time_based", f"--runtime={chosen.seconds}")
                        with watcher.looking() if kind == "on" else contextlib.nullcontext():
                            rate = fio(
                                server.unix_uri(), cell.pattern, cell.block, cell.depth, size, Path(name), *timing
                            )
                        found[cell.name][kind].append(rate)
                        server.host.run("flush", "--store", server.location)
        finally:
            server.close()
    goals = dict.fromkeys(found, f"{OBSERVED_GOAL}")
    print(table(found, ("off", "nobody looks"), ("on", "dashboard and metrics"), goals))
    print(f"{watcher.samples} samples, {watcher.scrapes} scrapes, {watcher.maps} maps")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
