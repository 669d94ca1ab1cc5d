"""A start of a large store: seconds until it serves, and memory for its index, with an empty cache.

    scripts/bench start [--mapped GIB] [--patched PERCENT] [--delay SECONDS]

The store is written by the engine itself, in this process, on MinIO: every block of the device in order, with data that
compresses to a kilobyte, so that a terabyte fits; then patches of 4 KiB in some of the blocks, in another
order; then checkpoints, until nothing is worth doing. What a start has to read is as large as that of incompressible
data. The real program is started on it through a proxy that delays each request, after a stop and after kill -9, beside
a start on a store with an empty device of the same size.
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

from storage.env import RealEnv
from storage.format.frame import BLOCK_BYTES
from storage.fs.devices.device import Device
from storage.fs.opening import open_store
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.lsm.memtable.gate import RateLimiter
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.benchmarks.bench import GIB, MIB, TIB, Bench
from tests.benchmarks.proxy import SlowProxy
from tests.support.inside import engine_of, is_at_rest
from tests.support.minio import BUCKET, RunningMinio
from tests.support.processes import resident_bytes
from tests.support.program import Host, Server
from tests.support.stores import minio_store
from tests.support.waiting import until

ROUND = 4096
"""Writes between two looks at the gate."""

SCATTERED_BYTES = 32 * MIB
"""What is written before a kill."""


def main() -> None:
    parser = argparse.ArgumentParser(description="measure the start of a large store")
    parser.add_argument("--mapped", type=int, default=1024, metavar="GIB")
    parser.add_argument("--patched", type=float, default=5.0, metavar="PERCENT")
    parser.add_argument("--delay", type=float, default=0.025, metavar="SECONDS")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    minio = RunningMinio(folder)
    minio.start()
    try:
        with Bench(folder, minio) as bench, SlowProxy(minio.port, delay_seconds=chosen.delay) as proxy:
            measure(bench, f"http://127.0.0.1:{proxy.port}", chosen.mapped * GIB, chosen.patched / 100)
    finally:
        minio.stop()
        shutil.rmtree(folder, ignore_errors=True)


def measure(bench: Bench, endpoint: str, mapped: int, share: float) -> None:
    """Generate, and start."""
    empty = bench.server("minio", TIB, endpoint=endpoint)
    empty.stop()
    beside = empty.start()
    idle, idle_most = (resident_bytes(empty.pid, field) for field in ("VmRSS", "VmHWM"))
    empty.stop()
    store = minio_store(bench.minio, "large")
    host = Host(bench.folder, store.environment)
    maker = Server(host, store.location, create={"disk": str(max(mapped, GIB))})
    maker.start()
    maker.stop()
    began = time.monotonic()
    with mock.patch.dict(os.environ, host.environment()):
        patches = asyncio.run(generate(store.location, host.password.encode(), mapped, share))
    objects = sum(1 for _ in bench.minio.client().list_objects(BUCKET, "large/", recursive=True))
    seconds = time.monotonic() - began
    print(f"generated {mapped / GIB:.0f} GiB, {patches:,} patches, {objects:,} objects in {seconds:.0f} s", flush=True)
    slow = minio_store(bench.minio, "large", endpoint=endpoint)
    server = Server(Host(bench.folder, slow.environment), slow.location)
    bench.stack.callback(server.close)
    for what in ("after a stop", "again", "after kill -9"):
        seconds = server.start()
        grown, most = resident_bytes(server.pid) - idle, resident_bytes(server.pid, "VmHWM") - idle_most
        print(
            f"start {what}: {seconds:.2f} s ({beside:.2f} s with an empty device); {grown / MIB:.0f} MiB more memory, "
            f"{grown * TIB / mapped / 1e6:.0f} MB a mapped TiB; at the highest {most / MIB:.0f} MiB more, "
            f"{most * TIB / mapped / 1e6:.0f} MB a mapped TiB",
            flush=True,
        )
        client = bench.client(server)
        for _ in range(SCATTERED_BYTES // 4096):
            client.write(random.randrange(mapped // 4096) * 4096, os.urandom(4096))
        client.flush()
        client.close()
        if what == "again":
            server.kill()
        else:
            server.stop()


async def generate(location: str, password: bytes, mapped: int, share: float) -> int:
    """Write the store; gives the number of its patches."""
    # As many SSTs as incompressible data needs: small ones are not packed.
    engine = EngineOptions(
        cache_bytes=64 * MIB,
        flush_bytes=GIB,
        memtable_bytes_max=4 * GIB,
        maintenance=MaintenanceOptions(pack_count=1 << 30, rest_seconds=1.0),
    )
    store = await open_store(location, password, env=RealEnv(), options=StoreOptions(engine=engine))
    device = store.device("disk")
    limiter = device.gate.rate_limiter(time.monotonic)
    whole = bytes(range(1, 256)) * 1029
    data, patch = whole[:BLOCK_BYTES], whole[:4096]
    blocks = mapped // BLOCK_BYTES
    for first in range(0, blocks, 64):
        await room(device, limiter)
        for block in range(first, min(first + 64, blocks)):
            device.write(block * BLOCK_BYTES, data)
        if first % (1 << 16) == 0:
            print(f"{first * BLOCK_BYTES / GIB:.0f} GiB {time.monotonic():.0f}", flush=True)
    await store.flush()
    patched = random.sample(range(blocks), int(blocks * share))
    for first in range(0, len(patched), ROUND):
        await room(device, limiter)
        for block in patched[first : first + ROUND]:
            device.write(block * BLOCK_BYTES + random.randrange(64) * 4096, patch)
        await asyncio.sleep(0)
    await store.flush()
    await rest(store)
    await store.close()
    return len(patched)


async def room(device: Device, limiter: RateLimiter) -> None:
    """Wait until the gate is open, and for as long as it asks."""
    await asyncio.sleep(limiter.delay(BLOCK_BYTES))
    while device.gate.closed:
        opened = asyncio.Event()
        device.gate.when_open(opened.set, BLOCK_BYTES)
        await opened.wait()


async def rest(store: Store) -> None:
    """Until maintenance has nothing to do."""
    await until(lambda: is_at_rest(engine_of(store)), seconds=3600)


if __name__ == "__main__":
    main()
