"""One bad object does not stop a store: again and again the newest manifest or the keys are damaged or deleted in the
folder of a server that was stopped or killed, and the next start has every byte.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.program import Host, Server
from tests.support.stores import folder_store

BLOCK_BYTES = 256 * 1024
FAULTS = 3
"""The exit status of a check that found what costs no data."""


@pytest.fixture
def server(work: Path) -> Iterator[Server]:
    made = Server(Host(work), folder_store(work).location, create={"disk": "16MiB"})
    yield made
    made.close()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>" * 40)


DAMAGE: list[tuple[str, Callable[[Path], None]]] = [
    ("manifest", flip),
    ("keys", empty),
    ("manifest", Path.unlink),
    ("keys", Path.unlink),
    ("manifest", replace),
    ("keys", cut),
]


def faults(server: Server) -> set[tuple[str, str]]:
    """What a check finds: none of it costs data."""
    done = server.host.run("check", "--json", "--store", server.location, status=None)
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == (FAULTS if findings else 0), done.stdout
    assert all(finding["fault"] for finding in findings), findings
    return {(finding["kind"], finding["object"]) for finding in findings}


def test_a_store_outlives_its_newest_manifest_and_its_keys(server: Server, work: Path) -> None:
    truth = bytearray(8 * BLOCK_BYTES)
    left: set[tuple[str, str]] = set()
    """Damaged manifests that are not the newest any more: they bear nothing, and are kept for a while."""
    server.start()
    for number, (folder, damage) in enumerate(DAMAGE):
        data = os.urandom(BLOCK_BYTES)
        truth[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES] = data
        with server.connect() as client:
            client.write(number * BLOCK_BYTES, data)
            client.flush()
        if number % 2:
            server.kill()
        else:
            assert server.stop() == 0, server.said()
        assert faults(server) == left
        damaged = max((work / "store" / folder).glob("*.*"))
        damage(damaged)
        name = f"{folder}/{damaged.name}"
        assert faults(server) == left | {(folder, name)}
        if folder == "manifest" and damaged.exists():
            left.add((folder, name))
        server.start()
        assert name in server.said(), "nobody is told"
        with server.connect() as client:
            assert client.read(0, len(truth)) == truth
    assert server.stop() == 0, server.said()
    assert faults(server) == left
