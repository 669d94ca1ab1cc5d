"""The figures with 25 ms added to every request to the store, by a proxy in front of MinIO."""

import asyncio
import os
import random
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.benchmarks.bench import GIB, KIB, Bench, Row, stopwatch
from tests.support.nbd import Client
from tests.support.processes import unused_port

DELAY_SECONDS = 0.025


class DelayingProxy:
    """Passes TCP on to a port; the first bytes of each request wait 25 ms. A request begins when the answer before it
    has begun, which holds for HTTP without pipelining."""

    def __init__(self, target: int) -> None:
        self.port = unused_port()
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._over = asyncio.Event()

    def __enter__(self) -> "DelayingProxy":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # ends what still runs when it is left
            runner.run(self._listen())

    async def _listen(self) -> None:
        async with await asyncio.start_server(self._serve, "127.0.0.1", self.port):
            self._ready.set()
            await self._over.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target)
        fresh = True

        async def requests() -> None:
            nonlocal fresh
            while data := await reader.read(1 << 20):
                if fresh:
                    await asyncio.sleep(DELAY_SECONDS)
                    fresh = False
                to_writer.write(data)
                await to_writer.drain()
            to_writer.close()

        async def answers() -> None:
            nonlocal fresh
            while data := await to_reader.read(1 << 20):
                fresh = True
                writer.write(data)
                await writer.drain()
            writer.close()

        await asyncio.gather(requests(), answers(), return_exceptions=True)


def delayed(bench: Bench) -> Iterator[Row]:
    """25 ms added to every request: flush of one client, sixteen clients beside it, cached reads beside those."""
    with DelayingProxy(bench.minio.port) as proxy:
        server = bench.server("minio", GIB, endpoint=f"http://127.0.0.1:{proxy.port}")
        clients = [bench.client(server) for _ in range(16)]
        reader = bench.client(server)
        reader.write(0, os.urandom(256 * KIB))
        reader.flush()
        alone = _latencies(clients[0], 80)
        with stopwatch() as elapsed:
            _latencies(clients[0], 80)
            one = 80 / elapsed()
        reads: list[float] = []
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                started = time.monotonic()
                reader.read(random.randrange(64) * 4096, 4096)
                reads.append(time.monotonic() - started)
                time.sleep(0.002)

        beside = threading.Thread(target=read)
        beside.start()
        with stopwatch() as elapsed, ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda client: _latencies(client, 40), clients))
            many = 640 / elapsed()
        done.set()
        beside.join()
        server.close()
    median, cached = statistics.median(alone) * 1000, statistics.median(reads) * 1000
    yield Row("flush with 25 ms added, median", f"{median:.1f} ms", "under 45 ms", median < 45)
    yield Row("sixteen clients beside one", f"{many / one:.1f} times", "8 times", many >= 8 * one)
    yield Row("cached read beside them, median", f"{cached:.2f} ms", "under 1 ms", cached < 1)


def _latencies(client: Client, count: int) -> list[float]:
    found = []
    for _ in range(count):
        client.write(random.randrange(GIB // 4096) * 4096, os.urandom(4096))
        started = time.monotonic()
        client.flush()
        found.append(time.monotonic() - started)
    return found


ALL = (delayed,)
