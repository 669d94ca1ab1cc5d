"""The figures that need no delays: requests, bytes, rates, discards, memory, start-up."""

import os
import random
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks.bench import GIB, KIB, MIB, TIB, Bench, Row, stopwatch
from tests.support.messages import WRITE
from tests.support.nbd import Client
from tests.support.processes import resident_bytes

DEPTH = 16


def small_writes(bench: Bench) -> Iterator[Row]:
    """Requests and bytes of a 4 KiB write with its flush, over enough of them for memtable flushes."""
    server = bench.server("minio", 4 * GIB)
    client = bench.client(server)
    count = 3000
    before = bench.minio.counters()
    for _ in range(count):
        client.write(random.randrange(GIB // 4096) * 4096, os.urandom(4096))
        client.flush()
    server.stop()
    used = bench.minio.counters().since(before)
    requests, factor = used.total / count, used.received_bytes / (count * 4096)
    yield Row("requests per 4 KiB write and flush", f"{requests:.3f} ({used.requests})", "at most 1.1", requests <= 1.1)
    yield Row("bytes uploaded per byte of them", f"{factor:.2f}", "at most 2.2", factor <= 2.2)


def idle(bench: Bench) -> Iterator[Row]:
    """Requests a minute of a server that nobody uses."""
    server = bench.server("minio", GIB)
    bench.client(server).write(0, bytes(4096))
    time.sleep(70)  # what the start and the write left to do
    before = bench.minio.counters()
    time.sleep(60)
    requests = bench.minio.counters().since(before).total
    yield Row("requests a minute when idle", str(requests), "at most 8", requests <= 8)


def sequential(bench: Bench) -> Iterator[Row]:
    """512 MiB of incompressible data: bytes and rate up, rate of a cold read, beside the minio client alone."""
    raw_puts, raw_gets = bench.raw(16 * MIB, 32, 4)
    raw_up = raw_puts * 16 * MIB
    raw_down = raw_gets(4 * MIB, 128, 8)
    server = bench.server("minio", 512 * MIB)
    image = bench.folder / "image"
    with image.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(8 * MIB))
    before = bench.minio.counters()
    up = _copy_rate(str(image), server.unix_uri(), "--flush")
    used = bench.minio.counters().since(before)
    server.stop()
    server.start()
    down = _copy_rate(server.unix_uri(), "null:")
    factor, puts = used.received_bytes / (512 * MIB), used.requests.get("putobject", 0)
    yield Row("bytes uploaded per byte, sequential", f"{factor:.3f} in {puts} PUTs", "once", factor <= 1.05)
    yield Row("512 MiB written and flushed", _beside(up, raw_up), "0.5 of parallel PUTs", up >= 0.5 * raw_up)
    yield Row("512 MiB read cold", _beside(down, raw_down), "0.5 of parallel GETs", down >= 0.5 * raw_down)


def durable_rate(bench: Bench) -> Iterator[Row]:
    """4 KiB writes with a flush each: one client beside the minio client's PUTs, and sixteen beside one."""
    server = bench.server("minio", GIB)
    clients = [bench.client(server) for _ in range(DEPTH)]
    shares, gains = [], []
    for _ in range(3):
        raw, _ = bench.raw(4400, 300, 1)
        one = _flushed_rate(clients[:1], 300)
        many = _flushed_rate(clients, 60)
        shares.append(one / raw)
        gains.append(many / one)
    share, gain = statistics.median(shares), statistics.median(gains)
    yield Row("4 KiB write and flush, one client", f"{share:.2f} of raw PUTs", "0.6", share >= 0.6)
    yield Row("sixteen clients beside one", f"{gain:.1f} times", "3 times", gain >= 3)


def random_rewrite(bench: Bench) -> Iterator[Row]:
    """64 MiB of random 4 KiB writes over a written 1 GiB device, and a flush: bytes uploaded."""
    server = bench.server("minio", GIB)
    client = bench.client(server)
    stream_writes(client, GIB)
    client.flush()
    before = bench.minio.counters()
    _scatter(client, 64 * MIB, GIB)
    client.flush()
    server.stop()
    sent = bench.minio.counters().since(before).received_bytes / MIB
    yield Row("uploaded for 64 MiB of random 4 KiB", f"{sent:.0f} MiB", "at most 140 MiB", sent <= 140)


def discards(bench: Bench) -> Iterator[Row]:
    """mkfs.ext4 with discards on 2 TiB, through nbdfuse and loop, and 8 TiB discarded."""
    server = bench.server("folder", 8 * TIB)
    client = bench.client(server)
    step = 4 * GIB - 512
    with stopwatch() as elapsed:
        for offset in range(0, 8 * TIB, step):
            client.trim(offset, min(step, 8 * TIB - offset))
        client.flush()
        seconds = elapsed()
    yield Row("8 TiB discarded", f"{seconds:.2f} s", "under 3 s", seconds < 3)
    server.close()
    bench = Bench(bench.folder, bench.minio)
    server = bench.server("folder", 2 * TIB)
    seconds = _mkfs(bench, server.uri())
    server.close()
    yield Row("mkfs.ext4 with discards on 2 TiB", f"{seconds:.2f} s", "under 5 s", seconds < 5)


def memory(bench: Bench) -> Iterator[Row]:
    """Growth of resident memory by 64 MiB of scattered 4 KiB writes."""
    server = bench.server("folder", TIB)
    client = bench.client(server)
    client.write(0, bytes(4096))
    # The peak of the process so far is that of Argon2id at its start: begin a new one.
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")
    before = resident_bytes(server.pid)
    _scatter(client, 64 * MIB, TIB)
    client.flush()
    server.host.run("flush", "--store", server.location)
    highest = resident_bytes(server.pid, "VmHWM")
    growth = (highest - before) / MIB
    yield Row("resident memory for 64 MiB of 4 KiB", f"{growth:.0f} MiB", "under 200 MiB", growth < 200)


def start(bench: Bench) -> Iterator[Row]:
    """Seconds until a 1 TiB device that holds 1 GiB is served, after a stop and after kill -9."""
    server = bench.server("folder", TIB)
    client = bench.client(server)
    stream_writes(client, GIB)
    client.flush()
    server.stop()
    clean = server.start()
    client = bench.client(server)
    _scatter(client, 32 * MIB, TIB)
    client.flush()
    server.kill()
    crashed = server.start()
    yield Row("start of 1 TiB that holds 1 GiB", f"{clean:.2f} s", "under 2 s", clean < 2)
    yield Row("the same after kill -9", f"{crashed:.2f} s", "under 2 s", crashed < 2)


ALL = (small_writes, idle, sequential, durable_rate, random_rewrite, discards, memory, start)


def stream_writes(client: Client, total: int) -> None:
    """Incompressible blocks of 256 KiB in order, 16 in flight."""
    blocks = [os.urandom(256 * KIB) for _ in range(DEPTH)]
    for number in range(total // (256 * KIB)):
        if number >= DEPTH:
            assert not client.receive().error
        client.submit(WRITE, number * 256 * KIB, data=blocks[number % DEPTH])
    for _ in range(DEPTH):
        assert not client.receive().error


def _copy_rate(source: str, target: str, *options: str) -> float:
    """Bytes a second of nbdcopy over 512 MiB, four connections."""
    with stopwatch() as elapsed:
        subprocess.run(["nbdcopy", "--connections=4", *options, source, target], check=True)
        return 512 * MIB / elapsed()


def _scatter(client: Client, total: int, area: int) -> None:
    for number in range(total // 4096):
        if number >= DEPTH:
            assert not client.receive().error
        client.submit(WRITE, random.randrange(area // 4096) * 4096, data=os.urandom(4096))
    for _ in range(DEPTH):
        assert not client.receive().error


def _flushed_rate(clients: list[Client], each: int) -> float:
    def work(client: Client) -> None:
        for _ in range(each):
            client.write(random.randrange(GIB // 4096) * 4096, os.urandom(4096))
            client.flush()

    with stopwatch() as elapsed, ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(work, clients))
        return len(clients) * each / elapsed()


def _mkfs(bench: Bench, uri: str) -> float:
    """Seconds of mkfs.ext4 on a loop device over nbdfuse."""
    mount = bench.folder / "fuse"
    mount.mkdir()
    pid = bench.folder / "fuse.pid"
    fuse = subprocess.Popen(["nbdfuse", "-P", str(pid), str(mount), uri])
    try:
        while not pid.exists():
            time.sleep(0.02)
        device = subprocess.check_output(["losetup", "--find", "--show", str(mount / "nbd")], text=True).strip()
        try:
            with stopwatch() as elapsed:
                subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
                return elapsed()
        finally:
            subprocess.run(["losetup", "-d", device], check=True)
    finally:
        subprocess.run(["fusermount3", "-u", str(mount)], check=True)
        fuse.wait()


def _beside(ours: float, raw: float) -> str:
    return f"{ours / MIB:.0f} MiB/s, {ours / raw:.2f} of {raw / MIB:.0f}"
