"""What snapshots and clones cost: a disk with many of them beside one that was written alike without, in one run.

    scripts/bench snapshots [--size MIB | --mapped GIB] [--snapshots N] [--rewritten PERCENT] [--clones N]
                            [--store folder|minio]

Two stores are filled with what does not compress, and blocks are rewritten at random; in one of them a snapshot is
taken before each round. With `--mapped` the disks have 1 TiB and hold so much, made by `large_store`: what is written
to these compresses to a kilobyte a block, so everything but bulk data is as large as ever. Compared are reads of whole
blocks with an empty cache, the start, and memory. Then snapshots
are taken beside a writer at full speed, of one disk and of sixteen, while flushes of another disk are timed, and with
nobody writing, to count requests. Then all snapshots are deleted in random order.
"""

import argparse
import asyncio
import os
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from nbdserver.admin.client import AdminClient, find_server
from nbdserver.admin.operations import DeleteDevice
from nbdserver.admin.snapshot_operations import (
    CloneDevice,
    CreateSnapshot,
    DeleteSnapshot,
    ListSnapshots,
    RollBackDevice,
)
from nbdserver.config import locate
from tests.benchmarks.bench import GIB, MIB, TIB, Bench
from tests.benchmarks.large_store import generate
from tests.support.minio import RunningMinio
from tests.support.processes import resident_bytes, until
from tests.support.program import Server

BLOCK = 256 * 1024
READS = 400
READ_ROUNDS = 3
GROUP = 16
TAKEN = 8
PAUSE_SECONDS = 6.0
"""Between two snapshots: sooner, the next one waits until the memtable flush of the last one has ended."""
REST_SECONDS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description="what snapshots and clones cost")
    parser.add_argument("--size", type=int, default=4096, metavar="MIB")
    parser.add_argument("--mapped", type=int, default=0, metavar="GIB", help="of a disk of 1 TiB")
    parser.add_argument("--snapshots", type=int, default=100)
    parser.add_argument("--rewritten", type=float, default=1.0, metavar="PERCENT")
    parser.add_argument("--clones", type=int, default=100)
    parser.add_argument("--store", choices=["folder", "minio"], default="minio")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    minio = RunningMinio(folder)
    minio.start()
    try:
        with Bench(folder, minio) as bench:
            measure(bench, chosen)
    finally:
        minio.stop()
        shutil.rmtree(folder, ignore_errors=True)


def measure(bench: Bench, chosen: argparse.Namespace) -> None:
    size, chance = chosen.mapped * GIB or chosen.size * MIB, random.Random(1)
    content = repeated if chosen.mapped else os.urandom
    group = {f"g{number}": MIB * 64 for number in range(GROUP)}
    plain, kept = (
        bench.server(chosen.store, TIB if chosen.mapped else size, others=others)
        for others in ({}, {"other": 64 * MIB, **group})
    )
    share = max(1, int(size // BLOCK * chosen.rewritten / 100))
    for server in (plain, kept):
        make(server, size) if chosen.mapped else fill(server, size)
    oldest = ""
    for number in range(chosen.snapshots):
        with asking(kept) as admin:
            admin.perform(CreateSnapshot(["disk"], f"s{number}", None))
        oldest = oldest or f"disk@s{number}"
        blocks = chance.sample(range(size // BLOCK), share)
        for server in (plain, kept):
            rewrite(server, blocks, content)
    for server in (plain, kept):
        until(lambda: at_rest(server), seconds=REST_SECONDS, what="the rest of maintenance")  # noqa: B023
    # In turns, so that what else the machine does comes over all three alike.
    turns = [
        tuple(read_anew(server, export, size) for server, export in ((plain, "disk"), (kept, "disk"), (kept, oldest)))
        for _ in range(READ_ROUNDS)
    ]
    without, head, old = (statistics.median(one[at].rate for one in turns) for at in range(3))
    start, start_kept = (statistics.median(one[at].start_seconds for one in turns) for at in (0, 1))
    memory, memory_kept = (statistics.median(one[at].memory for one in turns) for at in (0, 1))
    print(f"{size // MIB} MiB, {chosen.snapshots} snapshots with {share} blocks of 256 KiB rewritten behind each:")
    print(
        f"reads without {without / MIB:.0f} MiB/s, of the head {head / without:.2f}, of the oldest {old / without:.2f}"
    )
    print(f"start {start:.2f} s without, {start_kept:.2f} s; memory {(memory_kept - memory) / 1e6:+.1f} MB", flush=True)
    under_load(kept, size, content)
    clones(kept, chosen.clones)
    delete_all(kept, chance)


def repeated(size: int) -> bytes:
    """What compresses to a kilobyte for each 256 KiB, and is never the same."""
    return (os.urandom(256) * (size // 256 + 1))[:size]


def make(server: Server, mapped: int) -> None:
    """Fill the first so many bytes of the disk, past the server."""
    server.stop()
    host = server.host
    with mock.patch.dict(os.environ, host.environment()):
        asyncio.run(generate(server.location, host.password.encode(), mapped, 0.0, host.folder / "state"))
    server.start()


def fill(server: Server, size: int) -> None:
    with server.connect() as client:
        for offset in range(0, size, 4 * MIB):
            client.write(offset, os.urandom(min(4 * MIB, size - offset)))
        client.flush()


def rewrite(server: Server, blocks: list[int], content: Callable[[int], bytes]) -> None:
    with server.connect() as client:
        for block in blocks:
            client.write(block * BLOCK, content(BLOCK))
        client.flush()


@contextmanager
def asking(server: Server) -> Iterator[AdminClient]:
    """The admin API of a server."""
    with mock.patch.dict(os.environ, server.host.environment()):
        admin = find_server(locate(server.location, os.environ), os.environ)
        assert admin is not None
        yield admin


def status(server: Server) -> dict[str, Any]:
    with asking(server) as admin:
        found: dict[str, Any] = admin.status()["store"]
        return found


def at_rest(server: Server) -> bool:
    store = status(server)
    return store["maintenance"] is None and not store["unlogged_bytes"]


class Anew(NamedTuple):
    """A server that was started again: bytes a second of reads at random places with an empty cache, how long the
    start took, and bytes of memory before the first read."""

    rate: float
    start_seconds: float
    memory: int


def read_anew(server: Server, export: str, size: int) -> Anew:
    server.stop()
    seconds = server.start()
    memory = resident_bytes(server.pid)
    with server.connect(export) as client:
        places = random.Random(2).sample(range(size // BLOCK), min(READS, size // BLOCK))
        began = time.monotonic()
        for place in places:
            client.read(place * BLOCK, BLOCK)
        return Anew(len(places) * BLOCK / (time.monotonic() - began), seconds, memory)


def under_load(server: Server, size: int, content: Callable[[int], bytes]) -> None:
    """Snapshots beside a writer, and how flushes of another disk fare; then their requests, with nobody writing."""
    ended = threading.Event()

    def write() -> None:
        with server.connect() as client:
            data, places = content(1 << 16), range(size >> 16)
            while not ended.is_set():
                client.write(random.choice(places) << 16, data)

    def flushes(during: Callable[[], object]) -> list[float]:
        over, found = threading.Event(), []

        def ask() -> None:
            with server.connect("other") as client:
                while not over.is_set():
                    began = time.monotonic()
                    client.write(0, bytes(4096))
                    client.flush()
                    found.append(time.monotonic() - began)

        thread = threading.Thread(target=ask)
        thread.start()
        during()
        over.set()
        thread.join()
        return sorted(found)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        alone = flushes(lambda: time.sleep(10))
        for what, devices in (("one disk", ["disk"]), (f"{GROUP} disks", [f"g{at}" for at in range(GROUP)])):
            took: list[float] = []
            beside = flushes(lambda: took.extend(taken(server, devices, f"l{len(devices)}", TAKEN)))  # noqa: B023
            p99, p99_alone = (times[int(len(times) * 0.99)] for times in (beside, alone))
            print(
                f"snapshot of {what} beside a writer: median {statistics.median(took) * 1e3:.0f} ms, longest "
                f"{max(took) * 1e3:.0f} ms; p99 of flushes of another disk {p99 * 1e3:.0f} ms, "
                f"{p99 / p99_alone:.2f} of that without",
                flush=True,
            )
    finally:
        ended.set()
        writer.join()
    until(lambda: at_rest(server), seconds=REST_SECONDS, what="the rest of maintenance")
    for what, devices in (("one disk", ["disk"]), (f"{GROUP} disks", [f"g{at}" for at in range(GROUP)])):
        before = status(server)["requests"]["create"]
        took = taken(server, devices, f"q{len(devices)}", 5)
        count = (status(server)["requests"]["create"] - before) / 5
        print(f"snapshot of {what} with nobody writing: {statistics.median(took) * 1e3:.0f} ms, {count:.1f} PUTs")


def taken(server: Server, devices: list[str], name: str, count: int, *, pause: float = PAUSE_SECONDS) -> list[float]:
    """Seconds that each of so many snapshots took."""
    found = []
    with asking(server) as admin:
        for number in range(count):
            began = time.monotonic()
            admin.perform(CreateSnapshot(devices, f"{name}-{number}", None))
            found.append(time.monotonic() - began)
            time.sleep(pause)
    return found


def clones(server: Server, count: int) -> None:
    before, took, first = resident_bytes(server.pid), [], []
    with asking(server) as admin:
        for number in range(count):
            began = time.monotonic()
            admin.perform(CloneDevice("disk", "s0", f"clone{number}"))
            took.append(time.monotonic() - began)
            if number < TAKEN:
                first.append(first_read(server, f"clone{number}"))
    grown = resident_bytes(server.pid) - before
    print(
        f"{count} clones of the oldest: {statistics.median(took) * 1e3:.0f} ms each, {grown / 1e6:+.1f} MB of memory; "
        f"connecting and the first read {statistics.median(first) * 1e3:.0f} ms, longest {max(first) * 1e3:.0f} ms",
        flush=True,
    )
    with asking(server) as admin:
        for number in range(count):
            admin.perform(DeleteDevice(f"clone{number}"))
        began = time.monotonic()
        admin.perform(ListSnapshots(None))
        listed = time.monotonic() - began
        began = time.monotonic()
        admin.perform(RollBackDevice("disk", "s0", keep=True))
        took_back = time.monotonic() - began
    print(
        f"a list of all snapshots {listed * 1e3:.0f} ms; rolled back to the oldest in {took_back * 1e3:.0f} ms, "
        f"connecting and the first read {first_read(server, 'disk') * 1e3:.0f} ms",
        flush=True,
    )


def first_read(server: Server, export: str) -> float:
    """Seconds from nothing to the first bytes of what was never read."""
    began = time.monotonic()
    with server.connect(export) as client:
        client.read(0, 4096)
    return time.monotonic() - began


def delete_all(server: Server, chance: random.Random) -> None:
    with asking(server) as admin:
        found = admin.perform(ListSnapshots(None))["snapshots"]
        chance.shuffle(found)
        began = time.monotonic()
        for one in found:
            admin.perform(DeleteSnapshot(one["device"], one["name"]))
        seconds = time.monotonic() - began
    until(lambda: status(server)["space_amplification"] <= 1.5, seconds=REST_SECONDS, what="1.5 of live")
    store = status(server)
    print(
        f"{len(found)} snapshots deleted in random order in {seconds:.1f} s; stored is "
        f"{store['space_amplification']:.2f} of live {time.monotonic() - began - seconds:.0f} s later"
    )


if __name__ == "__main__":
    main()
