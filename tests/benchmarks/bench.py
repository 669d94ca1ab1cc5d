"""What a measurement needs: a store of its own, servers on it, clients, rows for the table."""

import concurrent.futures
import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.minio import BUCKET, RunningMinio
from tests.support.nbd import Client
from tests.support.program import Host, Server
from tests.support.stores import folder_store, minio_store

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


@dataclass(frozen=True)
class Row:
    """One figure of the table."""

    name: str
    value: str
    goal: str
    met: bool

    @property
    def verdict(self) -> str:
        return "met" if self.met else "MISSED"


class Bench:
    """One measurement's surroundings; everything it started ends with it."""

    def __init__(self, folder: Path, minio: RunningMinio) -> None:
        self.folder = folder / uuid.uuid4().hex[:6]
        self.folder.mkdir()
        self.minio = minio
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def server(
        self,
        kind: str,
        size: int,
        *arguments: str,
        endpoint: str | None = None,
        others: Mapping[str, int] | None = None,
    ) -> Server:
        """A server on a new store of that kind ("folder" or "minio") with a device called `disk`, and `others`."""
        if kind == "folder":
            store = folder_store(self.folder)
        else:
            store = minio_store(self.minio, f"bench-{uuid.uuid4().hex[:8]}", endpoint=endpoint)
        host = Host(self.folder, store.environment)
        sizes = {"disk": size, **(others or {})}
        create = {name: str(each) for name, each in sizes.items()}
        server = Server(host, store.location, create=create, arguments=arguments)
        self.stack.callback(server.close)
        server.start()
        return server

    def client(self, server: Server) -> Client:
        """One more connection to a server's disk."""
        return self.stack.enter_context(server.connect())

    def raw(self, size: int, count: int, parallel: int) -> tuple[float, Callable[[int, int, int], float]]:
        """PUTs a second of `count` objects of `size` bytes by the minio client alone, and a function that measures
        its parallel ranged GETs of (bytes, count, parallel) from them, in bytes a second."""
        client = self.minio.client()
        prefix = f"raw-{uuid.uuid4().hex[:8]}/"
        data = os.urandom(size)

        def put(number: int) -> None:
            client._put_object(BUCKET, f"{prefix}{number}", data, {})

        def fetch(length: int, total: int, width: int) -> float:
            def get(number: int) -> None:
                place = number * length
                response = client.get_object(BUCKET, f"{prefix}{place // size}", place % size, length)
                response.read()
                response.release_conn()

            return total * length / spread(get, total, width)

        return count / spread(put, count, parallel), fetch


def spread(work: Callable[[int], object], count: int, width: int) -> float:
    """Seconds that `work` of 0 to `count` takes in `width` threads."""
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(width) as pool:
        for _ in pool.map(work, range(count)):
            pass
    return time.monotonic() - started


@contextlib.contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Seconds since it was started."""
    started = time.monotonic()
    yield lambda: time.monotonic() - started
