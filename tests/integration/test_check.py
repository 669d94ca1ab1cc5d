"""`nbdserver check` on a folder and on MinIO: beside clients that write, at rest, and on stores that are damaged."""

import io
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.minio import BUCKET, RunningMinio
from tests.support.nbd import NbdError
from tests.support.program import COMMAND, EXIT_CORRUPT, Server
from tests.support.stores import StoreUnderTest

MIB = 1 << 20
BLOCK = 256 << 10
PROBLEMS = 3


class Objects:
    """The objects of a store under test, to look at and to damage."""

    def __init__(self, store: StoreUnderTest, minio: Callable[[], RunningMinio]) -> None:
        self._folder = Path(store.location.removeprefix("file://"))
        self._prefix = store.location.removeprefix(f"s3://{BUCKET}/")
        self._minio = minio() if store.kind == "minio" else None

    def names(self, prefix: str) -> list[str]:
        if self._minio is not None:
            return sorted(name for name, _ in self._minio.objects(self._prefix) if name.startswith(prefix))
        return sorted(f"{prefix}{path.name}" for path in (self._folder / prefix).iterdir() if path.is_file())

    def read(self, name: str) -> bytes:
        if self._minio is not None:
            return bytes(self._minio.client().get_object(BUCKET, f"{self._prefix}/{name}").data)
        return (self._folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        if self._minio is not None:
            self._minio.client().put_object(BUCKET, f"{self._prefix}/{name}", io.BytesIO(data), len(data))
        else:
            (self._folder / name).write_bytes(data)

    def delete(self, name: str) -> None:
        if self._minio is not None:
            self._minio.client().remove_object(BUCKET, f"{self._prefix}/{name}")
        else:
            (self._folder / name).unlink()

    def flip(self, name: str, place: int) -> None:
        data = bytearray(self.read(name))
        data[place] ^= 1
        self.write(name, bytes(data))


@pytest.fixture
def objects(store: StoreUnderTest, request: pytest.FixtureRequest) -> Objects:
    return Objects(store, lambda: request.getfixturevalue("minio"))


def unused() -> RunningMinio:
    raise AssertionError("a store in a folder asks for no MinIO")


def check(server: Server, *arguments: str, status: int = 0) -> dict[str, Any]:
    found = server.host.run("check", "--json", *arguments, "--store", server.location, status=status)
    document = json.loads(found.stdout)
    assert isinstance(document, dict)
    return document


def fill(server: Server) -> None:
    """Whole blocks, patches over them, and zeros."""
    with server.connect() as client:
        for block in range(0, 32, 4):
            client.write(block * BLOCK, os.urandom(4 * BLOCK))
        client.flush()
        for block in range(8):
            client.write(block * BLOCK + 8192, os.urandom(4096))
        client.trim(20 * BLOCK, 2 * BLOCK)
        client.flush()


def test_a_store_in_use_has_no_finding(server: Server) -> None:
    fill(server)
    ended = threading.Event()

    def write() -> None:
        with server.connect() as client:
            while not ended.is_set():
                client.write(int.from_bytes(os.urandom(1), "little") * 4096, os.urandom(65536))
                client.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            assert check(server, "--read-data")["findings"] == []
    finally:
        ended.set()
        writer.join()
    assert server.stop() == 0
    found = check(server, "--read-data")
    assert found["findings"] == []
    assert found["accounts"]["SSTs"]["objects"] > 1
    server.start()
    server.kill()
    assert check(server)["findings"] == []


def test_every_byte_of_a_store_is_accounted_for(server: Server, objects: Objects) -> None:
    fill(server)
    assert server.stop() == 0
    objects.write("compacted/Thumbs.db", b"of another program")
    accounts = check(server)["accounts"]
    names = [name for kind in ("keys/", "manifest/", "spare/", "wal/", "compacted/") for name in objects.names(kind)]
    assert sum(account["objects"] for account in accounts.values()) == len(names)
    assert sum(account["bytes"] for account in accounts.values()) == sum(len(objects.read(name)) for name in names)
    assert accounts["of other programs"] == {"objects": 1, "bytes": 18}


def test_a_frame_that_was_changed_is_found_by_reading_data(server: Server, objects: Objects) -> None:
    fill(server)
    assert server.stop() == 0
    name = max(objects.names("compacted/"), key=lambda name: len(objects.read(name)))
    objects.flip(name, 96 + 5 * 1024)
    assert check(server)["findings"] == []
    (finding,) = check(server, "--read-data", status=EXIT_CORRUPT)["findings"]
    assert (finding["kind"], finding["object"], finding["fault"]) == ("frame", name, False)
    assert {span["device"] for span in finding["ranges"]} == {"disk"}
    said = server.host.run("check", "--read-data", "--store", server.location, status=EXIT_CORRUPT).stdout
    assert f"damage: {name}" in said
    server.start()
    (served,) = check(server, "--read-data", status=EXIT_CORRUPT)["findings"]
    assert served == finding
    span = finding["ranges"][0]
    with server.connect() as client, pytest.raises(NbdError):
        client.read(span["offset"], span["length"])
    (problem,) = json.loads(server.host.run("status", "--json", "--store", server.location, status=PROBLEMS).stdout)[
        "problems"
    ]
    assert problem.startswith(name)
    shown = server.host.run("scrub", "--store", server.location, status=EXIT_CORRUPT).stdout
    assert f"damaged: {name}" in shown
    objects.flip(name, 96 + 5 * 1024)
    check(server, "--read-data")
    shown = server.host.run("scrub", "--store", server.location).stdout
    assert "last read within a day: " in shown
    assert "last read never: 0 SSTs" in shown
    assert server.stop() == 0
    assert server.host.run("scrub", "--store", server.location).stdout == shown


@pytest.mark.slow
@pytest.mark.parametrize("store", ["minio"], indirect=True)
def test_what_keeps_a_store_from_opening_is_a_finding(server: Server, objects: Objects) -> None:
    fill(server)
    assert server.stop() == 0
    for name in (objects.names("compacted/")[0], objects.names("manifest/")[-1]):
        kept = objects.read(name)
        copy = name.replace("manifest/", "spare/")
        objects.delete(name)
        objects.delete(copy)
        found = check(server, status=EXIT_CORRUPT)["findings"]
        assert name in {finding["object"] for finding in found} or name.startswith("manifest/")
        objects.write(name, kept[:-7])
        found = check(server, status=EXIT_CORRUPT)["findings"]
        assert name in {finding["object"] for finding in found}
        objects.write(name, kept)
        objects.write(copy, kept)
    assert check(server)["findings"] == []


def test_a_first_header_that_was_changed_costs_no_data(server: Server, objects: Objects) -> None:
    fill(server)
    assert server.stop() == 0
    name = max(objects.names("compacted/"), key=lambda name: len(objects.read(name)))
    objects.flip(name, 75)
    (finding,) = check(server, status=PROBLEMS)["findings"]
    assert (finding["kind"], finding["object"], finding["fault"]) == ("header", name, True)


def test_a_run_that_was_killed_goes_on_where_it_was(
    local_store: StoreUnderTest, make_server: Callable[..., Server]
) -> None:
    server = make_server(local_store, create={"disk": "256MiB"})
    for _ in range(3):  # an SST or two each
        server.start()
        fill(server)
        assert server.stop() == 0
    arguments = ["check", "--read-data", "--json", "--store", server.location]
    slow = subprocess.Popen(
        [*COMMAND, *arguments, "--rate", "2MiB"], env=server.host.environment(), stderr=subprocess.PIPE, text=True
    )
    assert slow.stderr is not None
    reached = total = 0
    for line in slow.stderr:
        said = json.loads(line)
        total = said["total_bytes"]
        state = [*(server.host.folder / "state").rglob("reads.msgpack")]
        if said["bytes_done"] > reached and state:
            reached = said["bytes_done"]
            break
    slow.send_signal(signal.SIGKILL)
    slow.wait()
    slow.stderr.close()
    again = server.host.run(*arguments, "--resume")
    lines = [json.loads(line) for line in again.stderr.splitlines()]
    assert 0 < reached < total
    assert json.loads(again.stdout)["findings"] == []
    assert lines[-1]["bytes_done"] == lines[-1]["total_bytes"]


def test_a_damaged_disk_is_salvaged_with_a_map(local_store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    server = make_server(local_store, create={"disk": "16MiB"})
    server.start()
    fill(server)
    with server.connect() as client:
        whole = client.read(0, 16 * MIB)
    assert server.stop() == 0
    objects = Objects(local_store, unused)
    name = max(objects.names("compacted/"), key=lambda name: len(objects.read(name)))
    objects.flip(name, 96 + 5 * 1024)
    image = server.host.folder / "image"
    arguments = ["device", "salvage", "disk", str(image), "--fill", "BAD!", "--store", server.location]
    server.host.run(*arguments, status=PROBLEMS)
    # A patch that lies over the damaged block is sound, and may part the range in two.
    bad = [line.split() for line in Path(f"{image}.map").read_text().splitlines() if line.endswith("  -")]
    expected = bytearray(whole)
    for offset, length, _ in bad:
        start, end = int(offset, 16), int(offset, 16) + int(length, 16)
        expected[start:end] = b"BAD!" * ((end - start) // 4)
    assert image.read_bytes() == expected
    assert 0 < sum(int(length, 16) for _, length, _ in bad) <= BLOCK
    objects.delete(name)  # too new for a checkpoint: nobody knows what lay in it
    (server.host.folder / "image").unlink()
    refused = server.host.run(*arguments, "--overwrite", status=EXIT_CORRUPT)
    assert "old data from new" in refused.stderr
    assert not image.exists()
