"""A restart of the server, and where its time goes: medians of one run. `scripts/bench restart` prints it.

A pause is what a client sees that attaches again: the longest time between two answers to reads of 4 KiB.

On stores in a folder and in MinIO that the program made itself, so that the password costs what it costs. The parts are
measured beside it, each in a process of its own: they overlap in a start, so they do not add up to it.
"""

import argparse
import contextlib
import os
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
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        minio = RunningMinio(folder)
        minio.start()
        try:
            for store in (folder_store(folder), minio_store(minio, "restart")):
                restarts(folder / store.kind, store, chosen.rounds)
                pauses(folder, store, chosen.rounds)
        finally:
            minio.stop()
        host = Host(folder)
        environment = host.environment()
        for part, code in PARTS.items():
            show(part, [elapsed([sys.executable, "-c", code], environment) for _ in range(chosen.rounds)])
        said = [
            subprocess.run([sys.executable, "-c", ARGON2], env=environment, check=True, capture_output=True, text=True)
            for _ in range(chosen.rounds)
        ]
        show("Argon2id alone", [float(done.stdout) for done in said])
        show("nbdserver --help", [elapsed([*COMMAND, "--help"], environment) for _ in range(chosen.rounds)])
    return 0


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


def pauses(folder: Path, store: StoreUnderTest, rounds: int) -> None:
    """What a client sees of each way to restart, after 32 MiB that were not flushed."""
    host = Host(folder / store.kind, store.environment)
    journal = Path(tempfile.mkdtemp(prefix="bench-", dir="/dev/shm"))
    server = Server(host, store.location, arguments=["--log-file", str(folder / "log"), "--journal", str(journal)])
    server.start()
    try:
        show(
            f"{store.kind}: pause, SIGTERM and start", [pause(server, server.stop, server.start) for _ in range(rounds)]
        )
        show(
            f"{store.kind}: pause, kill -9 and start", [pause(server, server.kill, server.start) for _ in range(rounds)]
        )
        again = partial(host.run, "restart", store.location)
        seen = [pause(server, again)]
        server.wait()
        seen += [pause(server, again) for _ in range(rounds - 1)]
        show(f"{store.kind}: pause, nbdserver restart", seen)
        end_of(pid_of(host, store.location) or 0)
    finally:
        server.close()
        shutil.rmtree(journal)


def pause(server: Server, *steps: Callable[[], object]) -> float:
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

    with server.connect() as client:
        for number in range(128):
            client.write(number << 18, os.urandom(1 << 18))
        client.disconnect()
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
