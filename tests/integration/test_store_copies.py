"""A store that is copied as docs/durability.md says, while a client writes and flushes: the copy opens as a state that
the disk had, or is refused.
"""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.program import EXIT_CORRUPT, Host, Server
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

ORDER = ("keys", "spare", "manifest", "wal", "compacted")
SECTOR = 4096
SECTORS = 512
FILLER = 1 << 20
"""Bytes that do not compress, in each round: so memtables are flushed, and the log deleted, while the copy is made."""

TRIES = 20


class Writer(threading.Thread):
    """Writes sector after sector, each stamped with the round, and flushes after each round of all of them."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._client = server.connect()
        self._ended = threading.Event()
        self.flushed = 0
        """The newest round whose flush was answered."""

    def run(self) -> None:
        while not self._ended.is_set():
            round_ = self.flushed + 1
            for sector in range(SECTORS):
                self._client.write(sector * SECTOR, round_.to_bytes(8, "big") * (SECTOR // 8))
            self._client.write(SECTORS * SECTOR, os.urandom(FILLER))
            self._client.flush()
            self.flushed = round_

    def end(self) -> None:
        self._ended.set()
        self.join()
        self._client.close()


def copy(source: Path, target: Path, parts: tuple[str, ...]) -> None:
    """What a tool for copying does: list a folder, copy what is new in it, pass over what is gone."""
    for part in parts:
        (target / part).mkdir(parents=True, exist_ok=True)
        for name in sorted(os.listdir(source / part)):
            if not (target / part / name).exists():
                try:
                    shutil.copy2(source / part / name, target / part / name)
                except FileNotFoundError:
                    continue


def is_whole(host: Host, target: Path) -> bool:
    """Whether it opens; it must not be refused for another reason than damage."""
    done = host.run("device", "list", "--store", str(target), status=None)
    assert done.returncode in (0, EXIT_CORRUPT), done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode == 0


def test_a_copy_of_a_running_store_is_a_state_it_had(
    local_store: StoreUnderTest, work: Path, make_server: Callable[..., Server]
) -> None:
    server = make_server(local_store, create={"disk": "128MiB"})
    server.start()
    with server.connect() as client:
        for place in range(80):
            client.write((16 << 20) + place * FILLER, os.urandom(FILLER))
    server.host.run("flush", "--store", local_store.location)
    writer = Writer(server)
    writer.start()
    source, target = Path(local_store.location.removeprefix("file://")), work / "copy"
    (work / "elsewhere").mkdir()
    other = Host(work / "elsewhere")
    try:
        for attempt in range(TRIES):
            before = writer.flushed
            copy(source, target, ORDER[1:] if attempt else ORDER)
            if is_whole(other, target):
                break
        else:
            raise AssertionError(f"no whole copy in {TRIES} tries")
        after = writer.flushed + 1
    finally:
        writer.end()
        server.stop()
    second = make_server(StoreUnderTest("file", str(target)), on=other, arguments=["--take-over"])
    second.start()
    client = second.connect()
    rounds = [int.from_bytes(client.read(sector * SECTOR, 8), "big") for sector in range(SECTORS)]
    client.close()
    second.stop()
    assert before <= min(rounds) <= max(rounds) <= after
    assert rounds == sorted(rounds, reverse=True), "not a prefix of the writes"
    assert max(rounds) - min(rounds) <= 1, "not a prefix of the writes"
