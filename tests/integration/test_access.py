"""The access list of the real program: what a client may not use it does not see, whichever way it asks."""

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority, write, write_folder, write_key
from tests.support.commands import run
from tests.support.nbd import Client, NbdError
from tests.support.processes import until
from tests.support.program import NotListening, Server
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest

MakeServer = Callable[..., Server]

DISKS = {"disk": "1M", "tenant/a": "1M", "tenant/b": "1M"}


@pytest.fixture
def rules(work: Path) -> Path:
    """For this user on the Unix socket, and two certificates."""
    path = work / "access.toml"
    path.write_text(
        f"""
[[grant]]
user = {os.geteuid()}
exports = ["tenant/*"]
mode = "read-write"

[[grant]]
certificate = "backup.example.com"
exports = ["disk", "tenant/a"]
mode = "read-only"
"""
    )
    return path


def names(uri: str) -> list[str]:
    listed: dict[str, Any] = json.loads(run("nbdinfo", "--json", "--list", uri))
    return [export["export-name"] for export in listed["exports"]]


def test_certificates_and_users(local_store: StoreUnderTest, make_server: MakeServer, work: Path, rules: Path) -> None:
    require("nbdinfo")
    authority = Authority()
    backup, stranger = work / "backup", work / "stranger"
    write_folder(backup, authority, client="backup.example.com")
    write_folder(stranger, authority)
    certificate, key = authority.issue("backup.example.com.example.org")
    write(stranger / "client-cert.pem", certificate)
    write_key(stranger / "client-key.pem", key)
    tls = ["--tls", "on", "--tls-certificates", str(backup), "--tls-verify-peer"]
    server = make_server(local_store, create=DISKS, arguments=[*tls, "--access", str(rules)])
    server.start()
    place = f"nbds://localhost:{server.port}"
    assert names(f"{place}/?tls-certificates={backup}") == ["disk", "tenant/a"]
    assert names(f"{place}/?tls-certificates={stranger}") == []
    assert names(f"nbd://localhost:{server.port}") == []
    assert names(f"nbd+unix:///?socket={server.socket}") == ["tenant/a", "tenant/b"]
    shown = json.loads(run("nbdinfo", "--json", f"{place}/tenant/a?tls-certificates={backup}"))
    assert shown["exports"][0]["is_read_only"] is True
    run("nbdinfo", f"{place}/tenant/b?tls-certificates={backup}", status=1)
    with server.connect("tenant/a") as client:
        client.write(0, b"x" * 4096)
    for hidden in ("disk", "", "tenant", "tenant/", "tenant/../disk"):
        with pytest.raises(NbdError, match="option 10 refused"):
            server.connect(hidden)
        with pytest.raises(NbdError, match="option 7 refused"):
            server.connect(hidden, structured=False)


def test_nobody_without_a_grant(local_store: StoreUnderTest, make_server: MakeServer, work: Path) -> None:
    """An empty list grants nothing, and a hangup reads it again; a bad one changes nothing."""
    path = work / "access.toml"
    path.write_text("")
    server = make_server(local_store, create=DISKS, arguments=["--access", str(path), "--default-export", "disk"])
    server.start()
    with pytest.raises(NbdError):
        server.connect("disk")
    path.write_text(f'[[grant]]\nuser = {os.geteuid()}\nexports = "*"\nmode = "read-only"\n')
    server.send(signal.SIGHUP)
    until(lambda: "access_list_reloaded" in server.said(), seconds=60, what="the new list")
    client = server.connect("")
    with pytest.raises(NbdError) as refused:
        client.write(0, b"x")
    assert refused.value.errno == errno.EPERM
    path.write_text(f'[[grant]]\nuser = {os.geteuid()}\nexports = "*"\nmode = "write"\n')
    server.send(signal.SIGHUP)
    until(lambda: "access_list_not_reloaded" in server.said(), seconds=60, what="the refusal")
    assert f"{path} is wrong: line 4: mode: must be read-only or read-write" in server.said()
    server.connect("disk").disconnect()
    assert client.read(0, 4096) == bytes(4096)
    client.disconnect()


def test_a_bad_list_at_the_start(local_store: StoreUnderTest, make_server: MakeServer, rules: Path) -> None:
    server = make_server(local_store, create=DISKS, arguments=["--access", str(rules)])
    with pytest.raises(NotListening) as refused:
        server.start()
    assert refused.value.status == 2
    assert "names certificates, which only --tls-verify-peer checks" in refused.value.output


def test_the_default_export(local_store: StoreUnderTest, make_server: MakeServer) -> None:
    server = make_server(local_store, create={"a": "1M", "b": "2M"}, arguments=["--default-export", "b"])
    server.start()
    with server.connect("") as client:
        assert client.size == 2 << 20


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--default-export", "c"], 10, "there is no device named 'c'"),
        (["--default-export", "b", "--export", "a"], 2, "'b' is not served: name it with --export too"),
    ],
)
def test_a_default_that_is_not_there(
    local_store: StoreUnderTest, make_server: MakeServer, arguments: list[str], status: int, message: str
) -> None:
    server = make_server(local_store, create={"a": "1M", "b": "2M"}, arguments=arguments)
    with pytest.raises(NotListening) as refused:
        server.start()
    assert refused.value.status == status
    assert message in refused.value.output


def test_a_client_of_another_user(local_store: StoreUnderTest, make_server: MakeServer, work: Path) -> None:
    """The kernel says who is on a Unix socket; who is not meant sees nothing."""
    require("root")
    path = work / "access.toml"
    path.write_text('[[grant]]\nuser = 65534\nexports = "disk"\nmode = "read-only"\n')
    server = make_server(local_store, create=DISKS, arguments=["--access", str(path)])
    server.start()
    with pytest.raises(NbdError):
        server.connect("disk")
    work.chmod(0o711)
    server.socket.chmod(0o666)
    os.seteuid(65534)
    try:
        client = Client(server.socket, "disk")
        assert client.read(0, 512) == bytes(512)
        client.disconnect()
    finally:
        os.seteuid(0)
