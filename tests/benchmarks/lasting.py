"""A store that is written for long, while its server and MinIO are killed every minute: what it takes, drawn.

    scripts/bench lasting [--minutes N] FILE.svg

Two disks. One has a client that attaches again when its server dies, sends again what was not answered, and checks what
it reads (`tests.crash.reconnecting`). On the other fio writes at random and verifies, each minute anew; while it does,
MinIO is killed and started again, of which it must not notice anything. Then the server is killed and started, fio
verifies what it wrote before, and every fifth minute `nbdserver check` looks at the store. Anything wrong ends it.

Drawn are memory and file descriptors of the server, and objects and bytes in the bucket, every two seconds.
"""

import argparse
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from minio.error import S3Error
from urllib3.exceptions import HTTPError

from tests.benchmarks.bench import MIB, Bench
from tests.crash.reconnecting import SLOTS, SPACING, ReconnectingClient
from tests.support.commands import run
from tests.support.memory import folder_in_memory
from tests.support.minio import RunningMinio
from tests.support.processes import resident_bytes
from tests.support.program import Server

FIO_BYTES = 256 * MIB
FIO_SECONDS = 35
"""Of each minute: the rest is for kills, what fio reads again, and checks."""

MINUTE = 60.0
SAMPLE_SECONDS = 2.0
CHECK_MINUTES = 5
MINIO_AWAY_SECONDS = (1.0, 5.0)
PANELS = (
    ("memory of the server, MiB", 2),
    ("file descriptors of the server", 3),
    ("objects in the bucket", 4),
    ("bytes in the bucket for each of the disks'", 5),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was taken at one moment: seconds since the beginning, MiB, and counts."""

    seconds: float
    memory: float
    descriptors: int
    objects: int
    stored: float


def main() -> None:
    parser = argparse.ArgumentParser(description="a store that is written for long, with kills")
    parser.add_argument("file", type=Path, metavar="FILE.svg")
    parser.add_argument("--minutes", type=int, default=30, metavar="N")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    minio = RunningMinio(folder)
    minio.start()
    try:
        with Bench(folder, minio) as bench, folder_in_memory() as memory:
            samples = last(bench, memory, chosen.minutes)
    finally:
        minio.stop()
        shutil.rmtree(folder, ignore_errors=True)
    chosen.file.write_text(drawn(samples))


def last(bench: Bench, memory: Path, minutes: int) -> list[Sample]:
    """All of it; what was sampled."""
    options = ("--cache-size", "64MiB", "--journal", str(memory))
    server = bench.server("minio", FIO_BYTES, *options, others={"slots": SLOTS * SPACING})
    chance, samples = random.Random(time.time_ns()), list[Sample]()
    client = ReconnectingClient(lambda: server.connect("slots"), seed=chance.randrange(1 << 30))
    client.start()
    try:
        with sampling(bench, server, samples):
            for minute in range(1, minutes + 1):
                ends = time.monotonic() + MINUTE
                one_minute(bench, server, minute, chance)
                assert client.failure is None, client.failure
                print(
                    f"minute {minute}: {client.answered} answers; {samples[-1].memory:.0f} MiB, "
                    f"{samples[-1].descriptors} descriptors, {samples[-1].objects} objects, "
                    f"{samples[-1].stored:.2f} stored for each byte",
                    flush=True,
                )
                while time.monotonic() < ends and client.failure is None:
                    time.sleep(0.1)
    finally:
        client.stop()
    return samples


def one_minute(bench: Bench, server: Server, minute: int, chance: random.Random) -> None:
    ends = time.monotonic() + FIO_SECONDS
    killer = threading.Thread(target=away, args=(bench.minio, chance.uniform(0, FIO_SECONDS - 10), chance))
    killer.start()
    try:
        seed = 0
        while time.monotonic() < ends:
            seed = chance.randrange(1 << 30)
            fio(bench, server, seed, "--do_verify=1", "--fsync=256")
    finally:
        killer.join()
    with server.connect() as client:
        client.flush()
    server.kill()
    server.start()
    fio(bench, server, seed, "--verify_only")
    if minute % CHECK_MINUTES == 0:
        server.host.run("check", server.location, "--read-data", seconds=600)


def fio(bench: Bench, server: Server, seed: int, *how: str) -> None:
    """All of the disk once in random order, in blocks of 512 bytes to 256 KiB: the same with the same seed."""
    run(
        "fio", "--name=lasting", "--ioengine=nbd", f"--uri={server.unix_uri()}", "--rw=randwrite",
        "--bssplit=4k/60:512/10:64k/20:256k/10", "--iodepth=16", f"--size={FIO_BYTES}", "--verify=crc32c",
        "--verify_fatal=1", f"--randseed={seed}", "--serialize_overlap=1", "--thread", *how,
        cwd=bench.folder, seconds=600,
    )  # fmt: skip


def away(minio: RunningMinio, after: float, chance: random.Random) -> None:
    """MinIO dies, and comes back."""
    time.sleep(after)
    minio.stop(sign=signal.SIGKILL)
    time.sleep(chance.uniform(*MINIO_AWAY_SECONDS))
    minio.start()


@contextmanager
def sampling(bench: Bench, server: Server, samples: list[Sample]) -> Iterator[None]:
    """A sample every two seconds, but while one of the two is away."""
    ended, began = threading.Event(), time.monotonic()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            with suppress(OSError, AssertionError, ValueError, HTTPError, S3Error):
                samples.append(taken(bench, server, time.monotonic() - began))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def taken(bench: Bench, server: Server, seconds: float) -> Sample:
    pid = server.pid
    sizes = [size for _, size in bench.minio.objects(server.location.rpartition("/")[2])]
    return Sample(
        seconds,
        resident_bytes(pid) / MIB,
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        len(sizes),
        sum(sizes) / (FIO_BYTES + SLOTS * SPACING),
    )


def drawn(samples: list[Sample]) -> str:
    """The picture, by gnuplot."""
    rows = "".join(" ".join(f"{value:.3f}" for value in astuple(one)) + "\n" for one in samples)
    panels = [f'set title "{title}"\nplot $seen using ($1/60):{column} with lines' for title, column in PANELS]
    script = "\n".join(
        (
            f"$seen << EOD\n{rows}EOD",
            'set terminal svg size 800,1000 font "sans-serif,13" background "white"',
            "set multiplot layout 4,1",
            'unset key\nset yrange [0:*]\nset grid ytics\nset xlabel "minutes"',
            *panels,
            "unset multiplot",
        )
    )
    return subprocess.run(["gnuplot"], input=script, text=True, capture_output=True, check=True).stdout


if __name__ == "__main__":
    main()
