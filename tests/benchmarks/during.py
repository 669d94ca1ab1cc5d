"""What clients wait for while a disk is overwritten, beside what they wait for when nothing else happens.

    scripts/bench during [--size MIB] [--seconds S] [--io KIB...] [--rate MIB] [--store folder|minio]

Two clients probe a small disk all the time, in processes of their own: one writes 4 KiB and flushes, 20 times a
second, the other reads 4 KiB that are in the cache, 200 times a second. Meanwhile a third one does nothing, or
overwrites a large disk of the same store at random, as fast as it can or `--rate` MiB a second. (A flush of the large
disk itself takes as long as what was written to it a moment ago.) Each phase of overwriting has a quiet one before it,
in the same run; the ratio of their 99th percentiles is what counts.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

from tests.benchmarks.amplification import replies
from tests.benchmarks.bench import KIB, MIB, Bench
from tests.benchmarks.figures import stream_writes
from tests.support.messages import WRITE
from tests.support.minio import RunningMinio
from tests.support.program import Server

PROBED = "small"
PROBED_BYTES = 16 * MIB
"""The small disk: a half is written to, the other read."""

FLUSH_PAUSE = 0.05
READ_PAUSE = 0.005
DEPTH = 32
IN_FLIGHT_BYTES = 8 * MIB
SETTLE_SECONDS = 15.0
"""Before a quiet phase: what was written before is flushed, and maintenance has begun to rest."""


def main() -> None:
    parser = argparse.ArgumentParser(description="measure what clients wait for beside one that overwrites")
    parser.add_argument("--size", type=int, default=512, metavar="MIB")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--io", type=int, nargs="+", default=[4, 64, 256], metavar="KIB")
    parser.add_argument("--rate", type=float, default=0.0, metavar="MIB", help="a second; 0: as fast as it can")
    parser.add_argument("--store", choices=["folder", "minio"], default="minio")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    minio = RunningMinio(folder)
    minio.start()
    try:
        with Bench(folder, minio) as bench:
            size = chosen.size * MIB
            server = bench.server(chosen.store, size, others={PROBED: PROBED_BYTES})
            for name, length in (("disk", size), (PROBED, PROBED_BYTES)):
                with server.connect(name) as client:
                    stream_writes(client, length)
                    client.flush()
            for io in chosen.io:
                one(server, size, io * KIB, chosen.seconds, chosen.rate * MIB)
    finally:
        minio.stop()
        shutil.rmtree(folder, ignore_errors=True)


def one(server: Server, size: int, io: int, seconds: float, rate: float) -> None:
    """A quiet phase, and one with writes of this size beside the probes."""
    time.sleep(SETTLE_SECONDS)
    quiet = probed(server, seconds)
    context = multiprocessing.get_context("fork")
    ended, written = context.Event(), context.Value("q", 0)

    def write() -> None:
        written.value = overwrite(server, size, io, rate, ended)

    writer = context.Process(target=write)
    writer.start()
    busy = probed(server, seconds)
    ended.set()
    writer.join()
    print(f"{io // KIB:4} KiB, {written.value / seconds / MIB:.0f} MiB/s written beside the probes", flush=True)
    for name in quiet:
        before, during = percentiles(quiet[name]), percentiles(busy[name])
        print(
            f"     {name}: median {before[0] * 1e3:.2f} ms quiet, {during[0] * 1e3:.2f} ms beside; "
            f"p99 {before[1] * 1e3:.2f} and {during[1] * 1e3:.2f} ms, {during[1] / before[1]:.2f} times",
            flush=True,
        )


def probed(server: Server, seconds: float) -> dict[str, list[float]]:
    """How long each probe of `seconds` took, by kind."""
    context = multiprocessing.get_context("fork")
    found = {"flush": context.SimpleQueue(), "cached read": context.SimpleQueue()}
    probes = {"flush": flushes, "cached read": reads}
    processes = [
        context.Process(target=lambda name=name: found[name].put(probes[name](server, seconds))) for name in found
    ]
    for process in processes:
        process.start()
    seen: dict[str, list[float]] = {name: queue.get() for name, queue in found.items()}
    for process in processes:
        process.join()
    return seen


def flushes(server: Server, seconds: float) -> list[float]:
    took = []
    with server.connect(PROBED) as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            client.write(random.randrange(PROBED_BYTES // 2 // 4096) * 4096, os.urandom(4096))
            began = time.perf_counter()
            client.flush()
            took.append(time.perf_counter() - began)
            time.sleep(FLUSH_PAUSE)
    return took


def reads(server: Server, seconds: float) -> list[float]:
    took = []
    half = PROBED_BYTES // 2
    with server.connect(PROBED) as client:
        for offset in range(half, PROBED_BYTES, MIB):
            client.read(offset, MIB)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            client.read(half + random.randrange(half // 4096) * 4096, 4096)
            took.append(time.perf_counter() - began)
            time.sleep(READ_PAUSE)
    return took


def overwrite(server: Server, size: int, io: int, rate: float, ended: Event) -> int:
    """Bytes written until it is to end."""
    written = 0
    depth = min(DEPTH, IN_FLIGHT_BYTES // io)
    began = time.monotonic()
    with server.connect() as client:
        while not ended.is_set():
            for _ in range(depth):
                client.submit(WRITE, random.randrange(size // io) * io, data=os.urandom(io))
            replies(client, depth)
            written += depth * io
            if rate:
                time.sleep(max(began + written / rate - time.monotonic(), 0.0))
    return written


def percentiles(took: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    ordered = sorted(took)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)]


if __name__ == "__main__":
    main()
