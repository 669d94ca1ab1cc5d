"""A good client that works on and on, in a thread, beside whatever others do to a server."""

import threading
from types import TracebackType
from typing import Self

from tests.support.nbd import Client
from tests.support.processes import until
from tests.support.program import Server

AREA = 1 << 20
"""Bytes at the end of the disk that are this client's own."""


def over_tcp(server: Server) -> Client:
    """A client of the disk. Where many connect to a Unix socket at once, the kernel itself turns some away."""
    assert server.port is not None
    return Client(("127.0.0.1", server.port), "disk", timeout=30)


class Beside:
    """Writes, reads back and flushes until the block ends; what went wrong is raised there.

    It also connects anew in every tenth round, as another client would.
    """

    def __init__(self, server: Server) -> None:
        self.rounds = 0
        self._server = server
        self._client = over_tcp(server)
        self._begin = self._client.size - AREA
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()
        if self._failure is not None:
            raise self._failure
        assert self.rounds > 0, "the good client got nothing done"

    def get_on(self) -> None:
        """Wait until it has done twenty rounds more."""
        rounds = self.rounds
        until(lambda: self._failure is not None or self.rounds > rounds + 20, seconds=60, what="the good client's work")

    def _work(self) -> None:
        try:
            while not self._stop.is_set() or not self.rounds:
                self._round()
                if self.rounds % 10 == 0:
                    self._client.disconnect()
                    self._client = over_tcp(self._server)
                self.rounds += 1
        except BaseException as error:
            self._failure = error

    def _round(self) -> None:
        data = self.rounds.to_bytes(8, "big") * 1024
        place = self._begin + self.rounds * len(data) % AREA
        self._client.write(place, data)
        assert self._client.read(place, len(data)) == data
        self._client.flush()
