"""A store that is overwritten again and again: what it stores, what it uploads, how it reads and starts afterwards.

    scripts/bench amplification [--size MIB] [--rounds N] [--store folder|minio] [--io KIB...]

Incompressible data is written at random over the whole disk, `rounds` times its size, through the real server. Stored
bytes are counted in the store itself, uploaded ones by the server's own requests. Then the server rests until it is
done, is started again with an empty cache, and reads; in turns with it the same reads of a disk that was written once.
"""

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.bench import KIB, MIB, Bench
from tests.benchmarks.figures import stream_writes
from tests.support.messages import READ, WRITE
from tests.support.minio import BUCKET, RunningMinio
from tests.support.nbd import Client
from tests.support.program import Server

DEPTH = 32
REST_SECONDS_MAX = 120.0
READS = 4000
TURNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description="measure a store that is overwritten")
    parser.add_argument("--size", type=int, default=256, metavar="MIB")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--store", choices=["folder", "minio"], default="minio")
    parser.add_argument("--io", type=int, nargs="+", default=[4, 64, 256], metavar="KIB")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    minio = RunningMinio(folder)
    minio.start()
    try:
        for size in chosen.io:
            with Bench(folder, minio) as bench:
                one(bench, chosen.store, chosen.size * MIB, size * KIB, chosen.rounds)
    finally:
        minio.stop()
        shutil.rmtree(folder, ignore_errors=True)


def one(bench: Bench, store: str, size: int, io: int, rounds: int) -> None:
    """One size of writes."""
    server = bench.server(store, size)
    client = bench.client(server)
    stream_writes(client, size)
    client.flush()
    written, before, highest = 0, bench.minio.counters(), 0.0
    began = time.monotonic()
    for number in range(rounds):
        overwrite(client, size, io)
        written += size
        share = stored(bench, server) / size
        highest = max(highest, share)
        print(f"{io // KIB:4} KiB round {number + 1}: {share:.2f} stored for each live byte", flush=True)
    seconds = time.monotonic() - began
    share = at_rest(bench, server, size)
    sent = bench.minio.counters().since(before).received_bytes / written
    print(
        f"{io // KIB:4} KiB: {written / seconds / MIB:.0f} MiB/s written; stored at most {highest:.2f}, at rest "
        f"{share:.2f} for each live byte; uploaded {sent:.2f} for each written",
        flush=True,
    )
    server.stop()
    beside(bench, store, server, size, f"{io // KIB:4} KiB")


def beside(bench: Bench, store: str, aged: Server, size: int, name: str) -> None:
    """Cold reads of the aged store and of one that was written once, in turns."""
    fresh = bench.server(store, size)
    client = bench.client(fresh)
    stream_writes(client, size)
    client.flush()
    at_rest(bench, fresh, size)
    fresh.stop()
    seen = [(cold_reads(bench, aged, size), cold_reads(bench, fresh, size)) for _ in range(TURNS)]
    for figure in range(len(seen[0][0])):
        of_aged, of_fresh = ([turn[which][figure] for turn in seen] for which in (0, 1))
        ratio = statistics.median(one.rate / other.rate for one, other in zip(of_aged, of_fresh, strict=True))
        print(
            f"{name}: {of_aged[0].name}: {ratio:.2f} of the rate of a disk that was written once "
            f"({of_aged[0].requests} and {of_fresh[0].requests} requests, "
            f"{of_aged[0].fetched // MIB} and {of_fresh[0].fetched // MIB} MiB)",
            flush=True,
        )


def overwrite(client: Client, size: int, io: int) -> None:
    """Write as much as the disk holds, at random places, `DEPTH` at a time; durable at the end."""
    waiting = 0
    for _ in range(size // io):
        client.submit(WRITE, random.randrange(size // io) * io, data=os.urandom(io))
        waiting += 1
        if waiting == DEPTH:
            replies(client, waiting)
            waiting = 0
    replies(client, waiting)
    client.flush()


def replies(client: Client, count: int) -> None:
    for _ in range(count):
        assert not client.receive().error


def at_rest(bench: Bench, server: Server, size: int) -> float:
    """Stored bytes for each live one when nothing changes any more, or after two minutes."""
    began, last, since = time.monotonic(), 0.0, time.monotonic()
    while time.monotonic() - began < REST_SECONDS_MAX:
        share = stored(bench, server) / size
        if share != last:
            last, since = share, time.monotonic()
        if time.monotonic() - since > 25:
            break
        time.sleep(1)
    print(f"at rest after {since - began:.0f} s", flush=True)
    return last


def stored(bench: Bench, server: Server) -> float:
    """Bytes of all objects of a store."""
    if server.location.startswith("s3"):
        prefix = server.location.split(BUCKET + "/", 1)[1].split("?")[0].strip("/") + "/"
        return sum(item.size or 0 for item in bench.minio.client().list_objects(BUCKET, prefix, recursive=True))
    return sum(
        path.stat().st_size for path in Path(server.location.removeprefix("file://")).rglob("*") if path.is_file()
    )


@dataclass(frozen=True)
class Cold:
    """What reads from an empty cache were seen to take."""

    name: str
    rate: float
    """In any unit."""
    requests: int = 0
    """To the store."""
    fetched: int = 0
    """Bytes."""


def cold_reads(bench: Bench, server: Server, size: int) -> list[Cold]:
    """All of the disk in order, 4 KiB reads at random places, and the start itself; the cache is empty each time."""
    in_order = cold(bench, server, "in order", range(0, size, MIB), MIB, depth=8)
    places = [random.randrange(size // 4096) * 4096 for _ in range(READS)]
    at_random = cold(bench, server, "4 KiB at random", places, 4096, depth=DEPTH)
    seconds = server.start()
    server.stop()
    return [in_order, at_random, Cold("start", 1 / seconds)]


def cold(bench: Bench, server: Server, name: str, places: Sequence[int], length: int, *, depth: int) -> Cold:
    server.start()
    before = bench.minio.counters()
    with server.connect() as client:
        began = time.monotonic()
        for start in range(0, len(places), depth):
            for offset in places[start : start + depth]:
                client.submit(READ, offset, length)
            replies(client, len(places[start : start + depth]))
        rate = len(places) / (time.monotonic() - began)
    used = bench.minio.counters().since(before)
    server.stop()
    return Cold(name, rate, used.total, used.sent_bytes)


if __name__ == "__main__":
    main()
