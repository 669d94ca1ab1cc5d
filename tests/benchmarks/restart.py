"""A restart of the server, and where its time goes: medians of one run. `scripts/bench restart` prints it.

A pause is what a client sees that attaches again: the longest time between two answers to reads of 4 KiB.

On stores in a folder and in MinIO that the program made itself, so that the password costs what it costs. The parts are
measured beside it, each in a process of its own: they overlap in a start, so they do not add up to it. With `--mapped`
it is a disk of 1 TiB that holds so many GiB (see `large_store`), in a folder, beside an empty one, with 512 MiB written
over it at random and not flushed before each restart.
"""

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from unittest import mock

from tests.benchmarks.bench import GIB, MIB, TIB
from tests.benchmarks.large_store import generate
from tests.support.messages import WRITE
from tests.support.minio import RunningMinio
from tests.support.program import COMMAND, Host, Server
from tests.support.stores import StoreUnderTest, folder_store, minio_store
from tests.support.successors import end_of, pid_of

PARTS = {
    "the interpreter": "pass",
    "with what opens the keys": "import nbdserver.cli.serving.cmd_serve, storage.fs.early_unlock",
    "with all that a server loads": (
        "import nbdserver.cli.serving.cmd_serve, storage.fs.early_unlock, uvloop, nbdserver.service.life\n"
        "import storage.fs.opening"
    ),
}
ARGON2 = """
import os, time
from argon2.low_level import Type, hash_secret_raw
from storage.crypto.keyslots import DEFAULT_COST as cost
began = time.monotonic()
hash_secret_raw(b"a password", os.urandom(16), cost.passes, cost.memory_kib, cost.lanes, 32, Type.ID)
print(time.monotonic() - began)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="a restart of the server, and where its time goes, in one run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mapped", type=int, metavar="GIB", help="a disk of 1 TiB that holds so much")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        if chosen.mapped:
            large(folder, chosen.mapped * GIB, chosen.rounds)
        else:
            usual(folder, chosen.rounds)
        parts(Host(folder), chosen.rounds)
    return 0


def usual(folder: Path, rounds: int) -> None:
    minio = RunningMinio(folder)
    minio.start()
    try:
        for store in (folder_store(folder), minio_store(minio, "restart")):
            restarts(folder / store.kind, store, rounds)
            pauses(store.kind, Host(folder / store.kind, store.environment), store.location, rounds, write_32_mib)
    finally:
        minio.stop()


def large(folder: Path, mapped: int, rounds: int) -> None:
    for kind, holds in (("empty", 0), ("large", mapped)):
        there = folder / kind
        there.mkdir()
        host, location = Host(there), str(there / "store")
        host.run("init", location)
        host.run("device", "create", "disk", str(TIB), "--store", location)
        if holds:
            with mock.patch.dict(os.environ, host.environment()):
                asyncio.run(generate(f"file://{location}", host.password.encode(), holds, 0.05, there / "state"))
        write = partial(write_at_random, size=512 * MIB, area=holds) if holds else write_nothing
        pauses(kind, host, location, rounds, write)


def write_nothing(server: Server) -> None:
    """The start of a store without anything in it."""


def write_32_mib(server: Server) -> None:
    with server.connect() as client:
        for number in range(128):
            client.write(number << 18, os.urandom(1 << 18))
        client.disconnect()


def write_at_random(server: Server, *, size: int, area: int) -> None:
    """In pieces of 4 KiB, 32 of them under way."""
    with server.connect() as client:
        for number in range(size // 4096):
            client.submit(WRITE, random.randrange(area // 4096) * 4096, data=os.urandom(4096))
            if number >= 32:
                client.receive()
        for _ in range(32):
            client.receive()
        client.disconnect()


def parts(host: Host, rounds: int) -> None:
    """What a start is made of, alone."""
    environment = host.environment()
    for part, code in PARTS.items():
        show(part, [elapsed([sys.executable, "-c", code], environment) for _ in range(rounds)])
    said = [
        subprocess.run([sys.executable, "-c", ARGON2], env=environment, check=True, capture_output=True, text=True)
        for _ in range(rounds)
    ]
    show("Argon2id alone", [float(done.stdout) for done in said])
    show("nbdserver --help", [elapsed([*COMMAND, "--help"], environment) for _ in range(rounds)])


def restarts(folder: Path, store: StoreUnderTest, rounds: int) -> None:
    """SIGTERM and a start, again and again, with writes in between; then commands on the store."""
    folder.mkdir()
    host = Host(folder, store.environment)
    host.run("init", store.location)
    host.run("device", "create", "disk", "1GiB", "--store", store.location)
    server = Server(host, store.location)
    stops, starts = [], []
    server.start()
    try:
        for number in range(rounds):
            with server.connect() as client:
                client.write(0, number.to_bytes(4, "big") * 65536)
                client.disconnect()
            stops.append(timed(server.stop))
            starts.append(timed(server.start))
        ask = [*COMMAND, "status", "--store", store.location]
        show(f"{store.kind}: status of a server", [elapsed(ask, host.environment()) for _ in range(rounds)])
    finally:
        server.stop()
    show(f"{store.kind}: stop", stops)
    show(f"{store.kind}: start", starts)
    show(f"{store.kind}: both", [stop + start for stop, start in zip(stops, starts, strict=True)])
    ask = [*COMMAND, "device", "list", "--store", store.location]
    show(f"{store.kind}: device list at rest", [elapsed(ask, host.environment()) for _ in range(rounds)])


def pauses(kind: str, host: Host, location: str, rounds: int, write: Callable[[Server], None]) -> None:
    """What a client sees of each way to restart, after something was written and not flushed."""
    journal = Path(tempfile.mkdtemp(prefix="bench-", dir="/dev/shm"))
    server = Server(host, location, arguments=["--log-file", str(host.folder / "log"), "--journal", str(journal)])
    server.start()
    steps: dict[str, list[float]] = {}

    def step(what: str, work: Callable[[], object]) -> Callable[[], None]:
        return lambda: steps.setdefault(what, []).append(timed(work))

    stop, start = step("stop", server.stop), step("start after a stop", server.start)
    start_again = step("start after kill -9", server.start)
    try:
        seen = [pause(server, write, stop, start) for _ in range(rounds)]
        show(f"{kind}: pause, SIGTERM and start", seen)
        seen = [pause(server, write, server.kill, start_again) for _ in range(rounds)]
        show(f"{kind}: pause, kill -9 and start", seen)
        again = step("nbdserver restart, all of it", partial(host.run, "restart", location))
        seen = [pause(server, write, again)]
        server.wait()
        seen += [pause(server, write, again) for _ in range(rounds - 1)]
        show(f"{kind}: pause, nbdserver restart", seen)
        for what, seconds in steps.items():
            show(f"{kind}: {what}", seconds)
        end_of(pid_of(host, location) or 0)
    finally:
        server.close()
        shutil.rmtree(journal)


def pause(server: Server, write: Callable[[Server], None], *steps: Callable[[], object]) -> float:
    """The longest time between two answers while something is done to the server, and for a second behind it."""
    longest, stopping = 0.0, threading.Event()

    def read() -> None:
        nonlocal longest
        last = time.monotonic()
        while not stopping.is_set():
            with contextlib.suppress(OSError, EOFError), server.connect() as client:
                while not stopping.is_set():
                    client.read(0, 4096)
                    now = time.monotonic()
                    longest, last = max(longest, now - last), now
            time.sleep(0.005)

    write(server)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for step in steps:
            step()
        time.sleep(1)
    finally:
        stopping.set()
        reader.join()
    return longest


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def elapsed(command: list[str], environment: Mapping[str, str]) -> float:
    """Seconds that a program takes, from its beginning to its end."""
    return timed(lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL))


def show(what: str, seconds: list[float]) -> None:
    middle, least, most = (1000 * find(seconds) for find in (statistics.median, min, max))
    print(f"{what:40} {middle:6.0f} ms  ({least:.0f} to {most:.0f})")


if __name__ == "__main__":
    sys.exit(main())
