"""A load beside a server that the server has no part in: as many bytes put into the store, as much of the processors.

What probes wait for beside this is what the machine gives, and no program on it can be better. Both figures are those
that a server and its writer were seen to take a moment before.
"""

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

from tests.benchmarks.bench import MIB
from tests.support.minio import BUCKET, RunningMinio

UPLOADS = 4
NAMES = 32
"""Objects are put over each other, so that the store does not fill up."""

BURNERS = 2
BURN_SECONDS = 0.002

Put = Callable[[int, bytes], None]


@dataclass(frozen=True)
class Load:
    """What somebody took of the machine, each second."""

    uploaded: float
    """Bytes put into the store."""
    processor: float
    """Seconds of processors, of all processes together."""


def processor_seconds(pids: Sequence[int]) -> float:
    """What these processes have taken so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def foreign_load(load: Load, put: Callable[[], Put], object_bytes: int) -> Iterator[None]:
    """That load, from processes of its own. `put` makes a function that puts an object, under a number as its name."""
    context = multiprocessing.get_context("fork")
    ended = context.Event()
    spent = context.Array("d", BURNERS + 1, lock=False)
    began = time.monotonic()

    def upload() -> None:
        _upload(load.uploaded, put, object_bytes, ended, spent)

    def burn(number: int) -> None:
        # What all have taken, and not each its share: what an upload takes is not known before.
        while not ended.is_set():
            spent[number] = time.process_time()
            if sum(spent) < load.processor * (time.monotonic() - began):
                until = time.process_time() + BURN_SECONDS
                while time.process_time() < until:
                    sum(range(100))
            else:
                time.sleep(BURN_SECONDS)

    processes = [context.Process(target=upload)]
    processes += [context.Process(target=burn, args=(number,)) for number in range(1, BURNERS + 1)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        ended.set()
        for process in processes:
            process.join()


def _upload(rate: float, put: Callable[[], Put], size: int, ended: Event, spent: Sequence[float]) -> None:
    """Objects at that rate together, some at a time."""
    began, lock, sent, data = time.monotonic(), threading.Lock(), [0], os.urandom(size)

    def work() -> None:
        put_one = put()
        while not ended.is_set():
            with lock:
                number, sent[0] = sent[0], sent[0] + 1
            ended.wait(max(began + number * size / rate - time.monotonic(), 0.0))
            if not ended.is_set():
                put_one(number % NAMES, data)
            spent[0] = time.process_time()  # type: ignore[index]

    threads = [threading.Thread(target=work) for _ in range(UPLOADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def puts_of_minio(minio: RunningMinio, endpoint: str | None) -> Callable[[], Put]:
    """By the client alone."""

    def make() -> Put:
        client = minio.client(endpoint)

        def put(name: int, data: bytes) -> None:
            client._put_object(BUCKET, f"foreign/{name}", data, {})

        return put

    return make


def puts_of_folder(folder: Path) -> Callable[[], Put]:
    """Files that are there to stay, as those of a local store are."""
    folder.mkdir()

    def put(name: int, data: bytes) -> None:
        path = folder / f"{name}~"
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.rename(folder / str(name))

    return lambda: put


OBJECT_BYTES = 4 * MIB
"""Between those of the log and those of SSTs."""
