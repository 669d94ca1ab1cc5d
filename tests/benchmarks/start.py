"""A start of a large store: seconds until it serves, and memory for its index, with an empty cache.

    scripts/bench start [--mapped GIB] [--patched PERCENT] [--delay SECONDS] [--folder FOLDER]

The store lies on MinIO and is made as `large_store` says: a base under every block, and patches of 4 KiB over some of
the blocks, in another order. What a start has to read is as large as that of incompressible data. The real program is
started on it through a proxy that delays each request: on a host that has never seen the store, after a stop, and after
kill -9, beside a start on a store with an empty device of the same size. With `--folder` the store stays there, and
is used as it is where it is found.
"""

import argparse
import asyncio
import os
import random
import shutil
import tempfile
import time
from pathlib import Path
from unittest import mock

from tests.benchmarks.bench import GIB, MIB, TIB, Bench
from tests.benchmarks.large_store import generate
from tests.benchmarks.proxy import SlowProxy
from tests.support.minio import BUCKET, RunningMinio
from tests.support.processes import resident_bytes
from tests.support.program import Host, Server
from tests.support.stores import minio_store

SCATTERED_BYTES = 32 * MIB
"""What is written before a kill."""

STARTS = ("on a host that did not write it", "after a stop", "after kill -9", "after kill -9 again")


def main() -> None:
    parser = argparse.ArgumentParser(description="measure the start of a large store")
    parser.add_argument("--mapped", type=int, default=1024, metavar="GIB")
    parser.add_argument("--patched", type=float, default=5.0, metavar="PERCENT")
    parser.add_argument("--delay", type=float, default=0.025, metavar="SECONDS")
    parser.add_argument("--folder", type=Path, help="where the store stays; used again where it is there")
    chosen = parser.parse_args()
    folder: Path = chosen.folder or Path(tempfile.mkdtemp(prefix="nbd-"))
    folder.mkdir(exist_ok=True)
    minio = RunningMinio(folder)
    minio.start()
    try:
        with Bench(folder, minio) as bench, SlowProxy(minio.port, delay_seconds=chosen.delay) as proxy:
            measure(bench, f"http://127.0.0.1:{proxy.port}", chosen.mapped * GIB, chosen.patched / 100)
    finally:
        minio.stop()
        if chosen.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def measure(bench: Bench, endpoint: str, mapped: int, share: float) -> None:
    """Generate, and start."""
    empty = bench.server("minio", TIB, endpoint=endpoint)
    empty.stop()
    beside = empty.start()
    idle, idle_most = (resident_bytes(empty.pid, field) for field in ("VmRSS", "VmHWM"))
    empty.stop()
    if not any(bench.minio.client().list_objects(BUCKET, "large/")):
        make(bench, mapped, share)
    slow = minio_store(bench.minio, "large", endpoint=endpoint)
    server = Server(Host(bench.folder, slow.environment), slow.location)
    bench.stack.callback(server.close)
    for number, what in enumerate(STARTS):
        seconds = server.start(*(["--take-over"] if not number else []))
        grown, most = resident_bytes(server.pid) - idle, resident_bytes(server.pid, "VmHWM") - idle_most
        client = bench.client(server)
        began = time.monotonic()
        client.read(random.randrange(mapped // 4096) * 4096, 4096)
        first = time.monotonic() - began
        print(
            f"start {what}: {seconds:.2f} s ({beside:.2f} s with an empty device), first read {first * 1e3:.0f} ms; "
            f"{grown / MIB:.0f} MiB more memory, {grown * TIB / mapped / 1e6:.0f} MB a mapped TiB; at the highest "
            f"{most / MIB:.0f} MiB more, {most * TIB / mapped / 1e6:.0f} MB a mapped TiB",
            flush=True,
        )
        for _ in range(SCATTERED_BYTES // 4096):
            client.write(random.randrange(mapped // 4096) * 4096, os.urandom(4096))
        client.flush()
        client.close()
        if number:
            server.kill()
        else:
            server.stop()


def make(bench: Bench, mapped: int, share: float) -> None:
    """The store, without a delay, by another host."""
    store = minio_store(bench.minio, "large")
    folder = bench.folder / "maker"
    folder.mkdir()
    host = Host(folder, store.environment)
    maker = Server(host, store.location, create={"disk": str(max(mapped, GIB))})
    maker.start()
    maker.stop()
    began = time.monotonic()
    with mock.patch.dict(os.environ, host.environment()):
        password, state = host.password.encode(), folder / "state"
        patches = asyncio.run(generate(store.location, password, mapped, share, state))
    seconds = time.monotonic() - began
    objects = sum(1 for _ in bench.minio.client().list_objects(BUCKET, "large/", recursive=True))
    print(f"generated {mapped / GIB:.0f} GiB, {patches:,} patches, {objects:,} objects in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
