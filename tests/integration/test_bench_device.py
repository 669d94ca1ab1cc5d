"""`nbdserver bench device` on a real server: it measures what is there, writes to nothing but a disk of its own, and
leaves none.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority, write_folder
from tests.support.program import EXIT_CONFLICT, Host, Server
from tests.support.stores import StoreUnderTest

EXIT_USAGE, EXIT_NOT_FOUND, EXIT_DENIED = 2, 10, 13
MIB = 1 << 20
SECONDS = "0.2"


def names(server: Server) -> list[str]:
    told: Any = server.host.json("device", "list", "--store", server.location)
    return [each["name"] for each in told]


def written(server: Server, device: str) -> int:
    told: Any = server.host.json("device", "show", device, "--store", server.location)
    total: int = told["usage"]["written_bytes"]
    return total


def test_a_disk_is_only_read_and_another_one_made_to_be_written(
    local_store: StoreUnderTest, make_server: Callable[..., Server]
) -> None:
    server = make_server(local_store, create={"disk": "8MiB"})
    server.start()
    with server.connect() as client:
        client.write(0, b"d" * MIB)
        client.flush()
        before = written(server, "disk")
        bench = ("bench", "device", "--seconds", SECONDS, "--store", server.location)
        own: Any = server.host.json(*bench, "--size", "16MiB")
        named: Any = server.host.json(*bench, "disk")
        by_uri: Any = server.host.json("bench", "device", "--seconds", SECONDS, server.uri())
        rows = [row.split("\t") for row in server.host.run(*bench, "disk").stdout.splitlines()]
        assert client.read(0, MIB) == b"d" * MIB
        client.disconnect()
    assert names(server) == ["disk"]
    assert written(server, "disk") == before
    assert own["size"] == 16 * MIB
    assert sorted({each["name"].split()[-1] for each in own["loads"]}) == ["read", "write"]
    assert any("flush" in each["name"] for each in own["loads"])
    for told in (named, by_uri):
        assert [each["name"] for each in told["loads"]] == ["sequential read", *["random read"] * 3]
    for each in (*own["loads"], *named["loads"], *by_uri["loads"]):
        assert each["count"] > 0
        assert 0 < each["median"] <= each["p99"] <= each["seconds"]
    assert [(row[0], int(row[1]), int(row[2])) for row in rows] == [
        (each["name"], each["block_bytes"], each["depth"]) for each in named["loads"]
    ]


def test_over_tls(local_store: StoreUnderTest, make_server: Callable[..., Server], work: Path) -> None:
    pki, stranger = work / "pki", work / "stranger"
    write_folder(pki, Authority())
    write_folder(stranger, Authority())
    required = ("--tls", "require", "--tls-verify-peer", "--tls-certificates", str(pki))
    server = make_server(local_store, create={"disk": "8MiB"}, arguments=required)
    server.start()
    bench = ("bench", "device", "--seconds", SECONDS)
    of_store = (*bench, "--store", server.location, "--tls-certificates", str(pki))
    own: Any = server.host.json(*of_store, "--size", "16MiB")
    assert any("flush" in each["name"] for each in own["loads"])
    named: Any = server.host.json(*of_store, "disk")
    uri = f"nbds://localhost:{server.port}/disk"
    by_uri: Any = server.host.json(*bench, f"{uri}?tls-certificates={pki}")
    socket = f"nbds+unix:///disk?socket={server.socket}"
    on_socket: Any = server.host.json(*bench, socket, "--tls-certificates", str(pki))
    assert by_uri["export"] == uri
    for each in (*own["loads"], *named["loads"], *by_uri["loads"], *on_socket["loads"]):
        assert each["count"] > 0
    assert names(server) == ["disk"]

    def refused(*arguments: str) -> str:
        return str(server.host.run(*bench, *arguments, status=EXIT_DENIED).stderr)

    assert "certificate" in refused(uri, "--tls-certificates", str(stranger))
    assert "certificate" in refused(uri), "no authority of this machine has signed it"
    assert "certificate" in refused(f"{socket}&tls-hostname=other.example.com", "--tls-certificates", str(pki))
    for name in ("client-cert.pem", "client-key.pem"):
        (pki / name).unlink()
    refused(uri, "--tls-certificates", str(pki))
    missing = server.host.run(*bench, uri, "--tls-certificates", str(work / "none"), status=EXIT_USAGE)
    assert "certificates in" in missing.stderr


def test_what_cannot_be_measured(host: Host, local_store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    nowhere = host.run("bench", "device", "--store", str(host.folder / "none"), status=EXIT_NOT_FOUND)
    assert "runs on this machine" in nowhere.stderr
    assert "--store" in host.run("bench", "device", "vol1", status=EXIT_USAGE).stderr
    server = make_server(local_store, create={"disk": "1MiB"})
    server.start()
    server.host.run("bench", "device", "other", "--store", server.location, status=EXIT_NOT_FOUND)
    follower = make_server(local_store, on=server.host, arguments=("--read-only",), tcp=False)
    server.stop()
    follower.start()
    refused = server.host.run("bench", "device", "--store", server.location, status=None)
    assert refused.returncode not in (0, EXIT_CONFLICT)
    assert names(follower) == ["disk"]
