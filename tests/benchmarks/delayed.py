"""The figures with 25 ms added to every request to the store, by a proxy in front of MinIO."""

import os
import random
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.benchmarks.bench import GIB, KIB, Bench, Row, stopwatch
from tests.benchmarks.proxy import SlowProxy
from tests.support.nbd import Client

DELAY_SECONDS = 0.025


def delayed(bench: Bench) -> Iterator[Row]:
    """25 ms added to every request: flush of one client, sixteen clients beside it, cached reads beside those."""
    with SlowProxy(bench.minio.port, delay_seconds=DELAY_SECONDS) as proxy:
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
