"""The log of the real program as JSON: every line is a record of its own, and every fact is a field of it."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.messages import READ
from tests.support.nbd import NbdError
from tests.support.processes import until
from tests.support.program import Host, Server
from tests.support.stores import StoreUnderTest

MIB = 1 << 20

FIELDS = {
    "client_connected": {"client", "peer"},
    "client_attached": {"client", "peer", "export", "tls"},
    "client_left": {"client", "peer", "export"},
    "client_refused": {"peer", "reason"},
    "client_dropped": {"peer", "reason"},
    "read_failed": {"offset", "length", "error"},
    "access_list_not_reloaded": {"error"},
    "log_reopened": set(),
    "serving": {"store", "epoch"},
    "stopped_serving": {"store"},
}
"""Beside those that every record has."""

EVERY = {"event", "level", "logger", "timestamp"}


@pytest.fixture
def rules(work: Path) -> Path:
    path = work / "access.toml"
    path.write_text(f'[[grant]]\nuser = {os.geteuid()}\nexports = "*"\nmode = "read-write"\n')
    return path


def lived(make_server: Callable[..., Server], store: StoreUnderTest, rules: Path, log: Path, *arguments: str) -> Server:
    """A server to which everything has happened that the table names."""
    server = make_server(
        store, create={"disk": "64M"}, arguments=["-v", "--log-file", str(log), "--access", str(rules), *arguments]
    )
    server.start()
    with server.connect("disk") as client:
        client.write(0, os.urandom(8 * MIB))
        client.flush()
    assert server.stop() == 0
    server.start()  # which reads the indexes, and no data
    for part in (Path(store.location.removeprefix("file://")) / "compacted").rglob("*"):
        if part.is_file():
            part.write_bytes(bytes(part.stat().st_size))
    with server.connect("disk") as client:
        client.submit(READ, 4096, 4096)
        assert client.receive().error
    with pytest.raises(NbdError):
        server.connect("no such disk")
    with socket.socket(socket.AF_UNIX) as wild:
        wild.connect(str(server.socket))
        wild.sendall(bytes(4096))
        with contextlib.suppress(ConnectionError):
            while wild.recv(4096):
                pass
    rules.write_text("wrong")
    server.send(signal.SIGHUP)
    until(lambda: "log_reopened" in log.read_text(), seconds=60, what="the answer to SIGHUP")
    assert server.stop() == 0
    return server


def test_every_event_is_an_object_with_its_facts_as_fields(
    make_server: Callable[..., Server], local_store: StoreUnderTest, rules: Path, work: Path
) -> None:
    lived(make_server, local_store, rules, work / "log", "--log-format", "json")
    records: list[dict[str, Any]] = [json.loads(line) for line in (work / "log").read_text().splitlines()]
    seen: dict[str, set[str]] = {}
    for record in records:
        assert record.keys() >= EVERY
        if record["logger"] == "nbdserver":
            assert record["event"].replace("_", "").isalpha(), f"no name of an event: {record}"
            seen.setdefault(record["event"], set(record)).intersection_update(record)
    assert {event: seen.get(event, set()) - EVERY for event in FIELDS} == FIELDS
    assert {record["logger"] for record in records if "client" in record["event"]} == {"nbdserver"}
    (failed,) = (record for record in records if record["event"] == "read_failed")
    assert (failed["offset"], failed["length"], failed["level"]) == (4096, 4096, "warning")
    attached = [record for record in records if record["event"] == "client_attached"]
    assert [record["export"] for record in attached] == ["disk", "disk"]


def test_the_same_is_read_by_people(
    make_server: Callable[..., Server], local_store: StoreUnderTest, rules: Path, work: Path
) -> None:
    """One line a record, key=value, and what has spaces in it in quotes."""
    lived(make_server, local_store, rules, work / "log")
    lines = (work / "log").read_text().splitlines()
    refused = next(line for line in lines if "client_refused" in line)
    assert re.search(r" peer='unix:pid=\d+,uid=\d+' reason=", refused), refused
    assert any("client_attached" in line and " export=disk " in line for line in lines)


def test_disks_do_not_wait_for_who_reads_the_log(
    make_server: Callable[..., Server], local_store: StoreUnderTest, host: Host
) -> None:
    """A pipe that is full, and that nobody empties: a pager that waits, a collector of logs that hangs."""
    server = make_server(local_store, create={"disk": "64M"}, arguments=["-v"])
    host.prepare(local_store.location)
    read, written = os.pipe()
    os.set_blocking(written, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(written, bytes(4096))
    os.set_blocking(written, True)
    process = subprocess.Popen(
        server.command(), env=host.environment(), cwd=host.folder, stdout=subprocess.PIPE, stderr=written
    )
    server.process = process
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"nbd://")
        with server.connect("disk") as client:
            for number in range(20):
                client.write(number * 4096, os.urandom(4096))
                client.flush()
        assert server.stop() == 0
    finally:
        os.close(read)
        os.close(written)
