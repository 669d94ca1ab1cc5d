"""How long clients wait for replies when the link to the store is slow: a flood of writes, and a single writer beside
it, at 1, 4, 10 and 20 MB/s.

    scripts/bench store uplinks                        # the figures
    scripts/bench uplinks [--seconds S] FILE.svg       # those of writes of 1 MiB, drawn by gnuplot
"""

import argparse
import collections
import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.bench import GIB, KIB, MIB, Bench, Row
from tests.benchmarks.proxy import SlowProxy
from tests.support.messages import WRITE
from tests.support.minio import RunningMinio
from tests.support.nbd import Client
from tests.support.program import Server

RATES = (1e6, 4e6, 10e6, 20e6)
DEPTH = 128
SECONDS = 60.0
WAIT_SECONDS_MAX = 5.0
BIN_SECONDS = 0.25


class Flood:
    """Writes of `size` bytes at `depth`, as fast as they are answered. `gaps`: seconds from one reply to the next, the
    first from the first request; `waits`: from each request to its reply."""

    def __init__(self, server: Server, size: int, depth: int) -> None:
        self.gaps: list[float] = []
        self.waits: list[float] = []
        assert server.port is not None
        self._client = Client(("127.0.0.1", server.port), "disk", timeout=600)
        self._size = size
        self._blocks = [os.urandom(size) for _ in range(8)]
        self._sent: collections.deque[float] = collections.deque()
        self._number = 0
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._room = threading.Semaphore(depth)
        self._over = threading.Event()

    def run(self, seconds: float) -> None:
        """Flood for so long, then leave, with what is still under way."""
        started = last = time.monotonic()
        self._sender.start()
        while time.monotonic() < started + seconds:
            reply = self._client.receive()
            assert not reply.error, reply
            now = time.monotonic()
            self.gaps.append(now - last)
            self.waits.append(now - self._sent.popleft())
            last = now
            self._room.release()
        self._over.set()
        self._room.release()
        self._client.socket.shutdown(socket.SHUT_RDWR)
        self._sender.join()
        self._client.close()

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # that is how it ends
            while not self._over.is_set():
                self._room.acquire()
                self._number += 1
                offset = (
                    self._number * self._size % GIB if self._size >= 256 * KIB else random.randrange(GIB // 4096) * 4096
                )
                self._sent.append(time.monotonic())
                self._client.submit(WRITE, offset, data=self._blocks[self._number % 8])


@dataclass(frozen=True)
class Waits:
    """What clients saw at one rate: seconds from one reply to the next, and to each, and to each of the single one."""

    rate: float
    gaps: Sequence[float]
    flood: Sequence[float]
    single: Sequence[float]

    @property
    def longest(self) -> float:
        """Without any reply."""
        return max(*self.gaps, *self.single)


def uplinks(bench: Bench) -> Iterator[Row]:
    """At 1, 4, 10 and 20 MB/s: 128 writes of 1 MiB (then of 4 KiB) in flight, and one write at a time beside them."""
    for size, label in ((MIB, "1 MiB"), (4 * KIB, "4 KiB")):
        for rate in RATES:
            seen, name = flooded(bench, rate, size, SECONDS), f"{label} at {rate / 1e6:g} MB/s"
            said(name, seen)
            done = len(seen.flood) * size / SECONDS / 1e6
            value = f"{seen.longest:.1f} s, {done:.1f} MB/s"
            yield Row(f"longest wait, {name}", value, "under 5 s", seen.longest < WAIT_SECONDS_MAX)


def flooded(bench: Bench, rate: float, size: int, seconds: float) -> Waits:
    """128 writes of that size in flight for so long, on a new server behind a link of that rate."""
    with SlowProxy(bench.minio.port) as proxy, contextlib.ExitStack() as stack:
        server = bench.server("minio", GIB, endpoint=f"http://127.0.0.1:{proxy.port}")
        stack.callback(lambda: setattr(proxy, "rate", None))  # what is left goes up quickly
        flood, single = (Flood(server, *what) for what in ((size, DEPTH), (4 * KIB, 1)))
        proxy.rate = rate
        beside = threading.Thread(target=single.run, args=(seconds,))
        beside.start()
        flood.run(seconds)
        beside.join()
    return Waits(rate, flood.gaps, flood.waits, single.waits)


def said(name: str, seen: Waits) -> None:
    """To standard output, in words."""
    for what, figures in (("between replies", seen.gaps), ("for a reply", seen.flood), ("beside it", seen.single)):
        print(f"    {name}: seconds {what:16} {histogram(figures)}", flush=True)


def histogram(figures: Sequence[float]) -> str:
    """How many are below 0.1, 0.5, 1, 2, 5, 10, 30 s and above, and the longest."""
    bounds = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
    counts = collections.Counter(
        next((f"<{bound:g}" for bound in bounds if figure < bound), ">30") for figure in figures
    )
    shown = " ".join(f"{label}:{counts[label]}" for label in [*(f"<{b:g}" for b in bounds), ">30"] if counts[label])
    return f"{shown} max {max(figures):.2f}"


def drawn(all_seen: Sequence[Waits]) -> str:
    """The picture, by gnuplot: of each rate how many waits were how long."""
    rows, panels = [], []
    for position, seen in enumerate(all_seen):
        for kind, figures in (("gaps", seen.gaps), ("single", seen.single)):
            rows.append(f"${kind}{position} << EOD\n{table(figures)}EOD")
        key = "set key outside bottom center horizontal" if seen is all_seen[-1] else "unset key"
        title = f"{seen.rate / 1e6:g} MB/s: at most {seen.longest:.1f} s without a reply"
        panels.append(
            f'{key}\nset title "{title}"\n'
            f'plot $gaps{position} using ($1-{BIN_SECONDS / 4}):2 with boxes title "128 writes of 1 MiB in flight: '
            f'from one reply to the next", $single{position} using ($1+{BIN_SECONDS / 4}):2 with boxes '
            'title "beside them one write of 4 KiB at a time: to its reply"'
        )
    script = "\n".join(
        (
            *rows,
            'set terminal svg size 800,1200 font "sans-serif,13" background "white"',
            f"set multiplot layout {len(all_seen)},1",
            f"set boxwidth {BIN_SECONDS / 2}\nset style fill solid 0.7\nset logscale y\nset yrange [0.7:*]",
            f'set xrange [-0.1:{WAIT_SECONDS_MAX + 0.5}]\nset xtics 1\nset xlabel "seconds"\nset ylabel "replies"',
            f"set arrow from {WAIT_SECONDS_MAX}, graph 0 to {WAIT_SECONDS_MAX}, graph 1 nohead dashtype 2",
            *panels,
            "unset multiplot",
        )
    )
    return subprocess.run(["gnuplot"], input=script, text=True, capture_output=True, check=True).stdout


def table(figures: Sequence[float]) -> str:
    """The middle of each quarter of a second, and how many figures lie in it."""
    counts = collections.Counter(int(figure / BIN_SECONDS) for figure in figures)
    return "".join(f"{(at + 0.5) * BIN_SECONDS} {count}\n" for at, count in sorted(counts.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description="draw how long clients wait for replies behind slow links")
    parser.add_argument("file", type=Path, metavar="FILE.svg")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    minio = RunningMinio(folder)
    minio.start()
    all_seen = []
    try:
        for rate in RATES:
            with Bench(folder, minio) as bench:
                all_seen.append(flooded(bench, rate, MIB, chosen.seconds))
            said(f"1 MiB at {rate / 1e6:g} MB/s", all_seen[-1])
    finally:
        minio.stop()
        shutil.rmtree(folder, ignore_errors=True)
    chosen.file.write_text(drawn(all_seen))


ALL = (uplinks,)

if __name__ == "__main__":
    main()
