"""How long clients wait for replies when the link to the store is slow: a flood of writes, and a single writer beside
it, at 1, 4, 10 and 20 MB/s."""

import collections
import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Iterator

from tests.benchmarks.bench import GIB, KIB, MIB, Bench, Row
from tests.benchmarks.proxy import SlowProxy
from tests.support.messages import WRITE
from tests.support.nbd import Client
from tests.support.program import Server

RATES = (1e6, 4e6, 10e6, 20e6)
DEPTH = 128
SECONDS = 60.0
WAIT_SECONDS_MAX = 5.0


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


def uplinks(bench: Bench) -> Iterator[Row]:
    """At 1, 4, 10 and 20 MB/s: 128 writes of 1 MiB (then of 4 KiB) in flight, and one write at a time beside them."""
    for size, name in ((MIB, "1 MiB"), (4 * KIB, "4 KiB")):
        for rate in RATES:
            yield from _flooded(bench, rate, size, f"{name} at {rate / 1e6:g} MB/s")


def _flooded(bench: Bench, rate: float, size: int, name: str) -> Iterator[Row]:
    with SlowProxy(bench.minio.port) as proxy, contextlib.ExitStack() as stack:
        server = bench.server("minio", GIB, endpoint=f"http://127.0.0.1:{proxy.port}")
        stack.callback(lambda: setattr(proxy, "rate", None))  # what is left goes up quickly
        flood, single = (Flood(server, *what) for what in ((size, DEPTH), (4 * KIB, 1)))
        proxy.rate = rate
        beside = threading.Thread(target=single.run, args=(SECONDS,))
        beside.start()
        flood.run(SECONDS)
        beside.join()
        done = len(flood.waits) * size / SECONDS / 1e6
    for what, figures in (("between replies", flood.gaps), ("for a reply", flood.waits), ("beside it", single.waits)):
        print(f"    {name}: seconds {what:16} {histogram(figures)}", flush=True)
    worst = max(*flood.gaps, *single.waits)
    yield Row(f"longest wait, {name}", f"{worst:.1f} s, {done:.1f} MB/s", "under 5 s", worst < WAIT_SECONDS_MAX)


def histogram(figures: list[float]) -> str:
    """How many are below 0.1, 0.5, 1, 2, 5, 10, 30 s and above, and the longest."""
    bounds = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
    counts = collections.Counter(
        next((f"<{bound:g}" for bound in bounds if figure < bound), ">30") for figure in figures
    )
    shown = " ".join(f"{label}:{counts[label]}" for label in [*(f"<{b:g}" for b in bounds), ">30"] if counts[label])
    return f"{shown} max {max(figures):.2f}"


ALL = (uplinks,)
