"""The real program on a MinIO that withholds one object, or deletes nothing: other disks go on, and the end comes."""

import contextlib
import json
import os
import uuid
from collections.abc import Callable

import pytest

from tests.storage.objects.stubs import refusal
from tests.support.messages import READ
from tests.support.minio import RunningMinio
from tests.support.nbd import Client
from tests.support.program import Server
from tests.support.stores import minio_store
from tests.support.wayward import WaywardProxy

MIB = 1 << 20
STOP_SECONDS = 60
GATE_MIB = 320
"""More than writers may have waiting, in memory or in the log, while flushes do not go on."""

EIO = 5

REFUSED = {403: refusal(403, "AccessDenied"), 500: refusal(500, "InternalError")}
"""What a store answers that withholds an object, by status."""


def is_deletion(method: str, path: str) -> bool:
    """Of one object, or of many (DeleteObjects)."""
    return method == "DELETE" or (method == "POST" and "delete" in path)


def status(server: Server) -> dict[str, object]:
    found = server.host.run("status", "--json", "--store", server.location, status=None)
    document = json.loads(found.stdout)
    store = document["store"]
    assert isinstance(store, dict)
    return store


def write_much(client: Client) -> None:
    """More than the gate lets in while no flush goes on; in pieces that go into the log and the memtable."""
    piece = os.urandom(MIB)
    for number in range(GATE_MIB):
        client.write((number % 60) * MIB, piece)
        if number % 2:  # so little at once is no bulk
            client.flush()


@pytest.mark.slow
def test_an_object_that_is_withheld_stops_its_range_alone(
    minio: RunningMinio, make_server: Callable[..., Server]
) -> None:
    """Those of one disk are refused in one way, those of another in another way, at one time: who reads them waits for
    a minute.
    """
    prefix = f"bad-{uuid.uuid4().hex[:8]}"
    disks = {status: f"bad-{status}" for status in REFUSED}
    with WaywardProxy(minio.endpoint) as proxy:
        server = make_server(
            minio_store(minio, prefix, endpoint=proxy.endpoint),
            create=dict.fromkeys([*disks.values(), "good"], "64MiB"),
        )
        server.start()
        data = os.urandom(8 * MIB)
        withheld: dict[str, int] = {}
        for refused, disk in disks.items():
            with server.connect(disk) as client:
                client.write(0, data)
                client.flush()
            there = [name for name, _ in minio.objects(prefix) if name.startswith("compacted/")]
            withheld = dict.fromkeys(there, refused) | withheld
        with server.connect("good") as client:
            client.write(0, data)
            client.flush()
        assert server.stop() == 0
        server.start()

        def decide(method: str, path: str) -> bytes | None:
            refused = [status for name, status in withheld.items() if name in path]
            return REFUSED[refused[0]] if method == "GET" and refused else None

        proxy.decide = decide
        with contextlib.ExitStack() as stack:
            bad = {disk: stack.enter_context(server.connect(disk, timeout=200)) for disk in disks.values()}
            good = stack.enter_context(server.connect("good", timeout=30))
            for client in bad.values():
                client.write(5 * 4096 + 100, b"p" * 512)
                for number in range(24):
                    client.submit(READ, number * 65536, 4096)
            assert good.read(MIB, MIB) == data[MIB : 2 * MIB], "an uncached read of another disk"
            write_much(good)
            for client in bad.values():
                assert [client.receive().error for _ in range(24)] == [EIO] * 24
            found = status(server)["unreadable"]
            assert isinstance(found, list)
            assert {item["name"] for item in found} <= withheld.keys()
            assert {place["device"] for item in found for place in item["ranges"]} == set(disks.values())
        assert server.stop(seconds=STOP_SECONDS) == 0
        proxy.decide = lambda method, path: None
        server.start()
        expected = bytearray(data[5 * 4096 : 6 * 4096])
        expected[100:612] = b"p" * 512
        for disk in disks.values():
            with server.connect(disk) as client:
                assert client.read(5 * 4096, 4096) == expected
        assert server.stop() == 0


def test_a_store_that_deletes_nothing_is_usable(minio: RunningMinio, make_server: Callable[..., Server]) -> None:
    prefix = f"kept-{uuid.uuid4().hex[:8]}"
    with WaywardProxy(minio.endpoint) as proxy:
        proxy.decide = lambda method, path: REFUSED[403] if is_deletion(method, path) else None
        server = make_server(minio_store(minio, prefix, endpoint=proxy.endpoint), create={"disk": "64MiB"})
        server.start()
        with server.connect(timeout=60) as client:
            write_much(client)
            client.write(0, b"the last of it" * 100)
            garbage = status(server)["garbage"]
            assert isinstance(garbage, dict)
            assert garbage["objects"] > 0
            assert "403" in garbage["reason"]
        assert any(is_deletion(*request) for request in proxy.seen), "nothing was to be deleted"
        assert server.stop(seconds=STOP_SECONDS) == 0
        server.start()
        with server.connect() as client:
            assert client.read(0, 1400) == b"the last of it" * 100
        assert server.stop(seconds=STOP_SECONDS) == 0


def test_an_index_that_is_withheld_when_a_store_is_opened_is_named(
    minio: RunningMinio, make_server: Callable[..., Server]
) -> None:
    prefix = f"index-{uuid.uuid4().hex[:8]}"
    with WaywardProxy(minio.endpoint) as proxy:
        server = make_server(minio_store(minio, prefix, endpoint=proxy.endpoint), create={"disk": "64MiB"})
        server.start()
        with server.connect() as client:
            client.write(0, os.urandom(8 * MIB))
        assert server.stop() == 0
        withheld = next(name for name, _ in minio.objects(prefix) if name.startswith("compacted/"))
        proxy.decide = lambda method, path: REFUSED[403] if method == "GET" and withheld in path else None
        ended = server.host.run("device", "list", "--store", server.location, status=13)
        assert withheld in ended.stderr
