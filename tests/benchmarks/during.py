"""What clients wait for while a disk is overwritten, beside what they wait for when nothing else happens, and beside
a load of the same size that is not the server's.

    scripts/bench during [--size MIB] [--seconds S] [--rounds N] [--io KIB...] [--rate MIB] [--delay MS] [--snapshots N]
                         [--store folder|minio]

Two clients probe a small disk all the time, in processes of their own: one writes 4 KiB and flushes, 20 times a
second, the other reads 4 KiB that are in the cache, 200 times a second. Meanwhile a third one does nothing, or
overwrites a large disk of the same store at random, as fast as it can or `--rate` MiB a second; or processes that have
nothing to do with the server put as many bytes into the store, and take as much of the processors (`foreign_load`):
what the probes wait for beside those, the machine is to blame for. Then snapshots of the large disk are taken while it
is overwritten. Each round has all of these; the 99th percentiles over all rounds, and their ratios, are what counts.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path

from tests.benchmarks.amplification import replies
from tests.benchmarks.bench import KIB, MIB, Bench
from tests.benchmarks.figures import stream_writes
from tests.benchmarks.foreign_load import (
    OBJECT_BYTES,
    Load,
    Put,
    foreign_load,
    processor_seconds,
    puts_of_folder,
    puts_of_minio,
)
from tests.benchmarks.proxy import SlowProxy
from tests.benchmarks.snapshots import status, taken
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
SETTLE_SECONDS = 8.0
"""Before a quiet phase: what was written before is flushed, and maintenance has begun to rest."""

STEADY_SECONDS = 4.0
"""A writer writes so long before others are measured beside it: what stands between it and the store is there by then.
"""

SNAPSHOT_PAUSE = 6.0
"""Between two: the memtable flush that the last one began has ended, or the next one would wait for it."""

QUIET, FOREIGN, BESIDE, SNAPSHOTS = "quiet", "beside a load of others", "beside the writer", "with snapshots too"


@dataclass
class Seen:
    """What was measured over all rounds, by phase: seconds that probes took, by kind, and bytes a second written."""

    probes: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    rates: list[float] = field(default_factory=list)
    snapshots: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description="measure what clients wait for beside one that overwrites")
    parser.add_argument("--size", type=int, default=512, metavar="MIB")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each phase")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--io", type=int, nargs="+", default=[4, 64, 256], metavar="KIB")
    parser.add_argument("--rate", type=float, default=0.0, metavar="MIB", help="a second; 0: as fast as it can")
    parser.add_argument("--delay", type=float, default=0.0, metavar="MS", help="added to each request to MinIO")
    parser.add_argument("--snapshots", type=int, default=4, help="of each round")
    parser.add_argument("--store", choices=["folder", "minio"], default="minio")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    minio = RunningMinio(folder)
    minio.start()
    try:
        with Bench(folder, minio) as bench, ExitStack() as stack:
            endpoint = None
            if chosen.delay:
                proxy = stack.enter_context(SlowProxy(minio.port, delay_seconds=chosen.delay / 1000))
                endpoint = f"http://127.0.0.1:{proxy.port}"
            size = chosen.size * MIB
            server = bench.server(chosen.store, size, endpoint=endpoint, others={PROBED: PROBED_BYTES})
            for name, length in (("disk", size), (PROBED, PROBED_BYTES)):
                with server.connect(name) as client:
                    stream_writes(client, length)
                    client.flush()
            put = (
                puts_of_minio(minio, endpoint) if chosen.store == "minio" else puts_of_folder(bench.folder / "foreign")
            )
            for io in chosen.io:
                seen = Seen()
                for number in range(chosen.rounds):
                    one(server, size, io * KIB, chosen, put, seen, f"{io}-{number}")
                tell(seen, io)
    finally:
        minio.stop()
        shutil.rmtree(folder, ignore_errors=True)


def one(
    server: Server,
    size: int,
    io: int,
    chosen: argparse.Namespace,
    put: Callable[[], Put],
    seen: Seen,
    name: str,
) -> None:
    """A round: quiet, with a writer of this size beside the probes, with a load of others, and with snapshots."""
    seconds, rate = chosen.seconds, chosen.rate * MIB
    time.sleep(SETTLE_SECONDS)
    collect(seen, QUIET, probed(server, seconds))
    with writing(server, size, io, rate) as writer:
        pids = [server.pid, writer.pid]
        before, spent, wrote, began = uploaded(server), processor_seconds(pids), writer.written(), time.monotonic()
        collect(seen, BESIDE, probed(server, seconds))
        took = time.monotonic() - began
        load = Load((uploaded(server) - before) / took, (processor_seconds(pids) - spent) / took)
        seen.rates.append((writer.written() - wrote) / took)
        if chosen.snapshots:
            thread = threading.Thread(
                target=lambda: seen.snapshots.extend(
                    taken(server, ["disk"], f"s{name}", chosen.snapshots, pause=SNAPSHOT_PAUSE)
                )
            )
            thread.start()
            collect(seen, SNAPSHOTS, probed(server, seconds))
            thread.join()
    time.sleep(SETTLE_SECONDS)
    with foreign_load(load, put, OBJECT_BYTES):
        time.sleep(1.0)
        collect(seen, FOREIGN, probed(server, seconds))
    print(
        f"  {name}: {seen.rates[-1] / MIB:.0f} MiB/s written, {load.uploaded / MIB:.0f} MiB/s uploaded, "
        f"{load.processor:.2f} processors of server and writer",
        flush=True,
    )


def tell(seen: Seen, io: int) -> None:
    """All figures of one size of writes."""
    print(f"{io:4} KiB, {sum(seen.rates) / len(seen.rates) / MIB:.0f} MiB/s written beside the probes")
    for kind in seen.probes[QUIET]:
        quiet = percentiles(seen.probes[QUIET][kind])
        for phase, found in seen.probes.items():
            median, high = percentiles(found[kind])
            print(
                f"     {kind}, {phase}: median {median * 1e3:.2f} ms, p99 {high * 1e3:.2f} ms, {high / quiet[1]:.2f} "
                "times that of quiet",
                flush=True,
            )
    if seen.snapshots:
        median, _ = percentiles(seen.snapshots)
        print(
            f"     {len(seen.snapshots)} snapshots beside the writer: median {median * 1e3:.0f} ms, longest "
            f"{max(seen.snapshots) * 1e3:.0f} ms",
            flush=True,
        )


def collect(seen: Seen, phase: str, found: dict[str, list[float]]) -> None:
    for kind, took in found.items():
        seen.probes[phase][kind] += took


def uploaded(server: Server) -> int:
    """Bytes that the server has put into the store so far."""
    count: int = status(server)["bytes_up"]
    return count


class Writer:
    """A process that overwrites."""

    def __init__(self, server: Server, size: int, io: int, rate: float) -> None:
        context = multiprocessing.get_context("fork")
        self._ended, self._written = context.Event(), context.Value("q", 0)

        def write() -> None:
            for count in overwrite(server, size, io, rate, self._ended):
                self._written.value = count

        self._process = context.Process(target=write)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def written(self) -> int:
        """Bytes so far."""
        return int(self._written.value)

    def end(self) -> None:
        self._ended.set()
        self._process.join()


@contextmanager
def writing(server: Server, size: int, io: int, rate: float) -> Iterator[Writer]:
    """One that has written for a while."""
    writer = Writer(server, size, io, rate)
    time.sleep(STEADY_SECONDS)
    try:
        yield writer
    finally:
        writer.end()


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


def overwrite(server: Server, size: int, io: int, rate: float, ended: Event) -> Iterator[int]:
    """Until it is to end; gives the bytes written so far, again and again."""
    written = 0
    depth = min(DEPTH, IN_FLIGHT_BYTES // io)
    blocks = [os.urandom(io) for _ in range(64)]
    began = time.monotonic()
    with server.connect() as client:
        while not ended.is_set():
            for _ in range(depth):
                client.submit(WRITE, random.randrange(size // io) * io, data=random.choice(blocks))
            replies(client, depth)
            written += depth * io
            yield written
            if rate:
                time.sleep(max(began + written / rate - time.monotonic(), 0.0))


def percentiles(took: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    ordered = sorted(took)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)]


if __name__ == "__main__":
    main()
