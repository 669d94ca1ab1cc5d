"""The life of the process: start, stop, what it says and with which status it ends when something is not as
it should be.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.minio import RunningMinio
from tests.support.processes import end, until, unused_port
from tests.support.program import (
    COMMAND,
    EXIT_CONFLICT,
    EXIT_FENCED,
    EXIT_UNAVAILABLE,
    EXIT_WRONG_PASSWORD,
    Host,
    NotListening,
    Server,
)
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest, minio_store

EXIT_USAGE = 2
EXIT_NOT_FOUND = 10


def one_sentence(output: str) -> str:
    """The only line on standard error, which names no internals."""
    lines = [line for line in output.splitlines() if line.strip()]
    assert len(lines) == 1, output
    assert "Traceback" not in output
    return lines[0]


def refused(server: Server, *extra: str) -> tuple[int, str]:
    """Start a server that must not start; its status and the one sentence it ended with."""
    with pytest.raises(NotListening) as refusal:
        server.start(*extra)
    return refusal.value.status, one_sentence(refusal.value.output)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_drains_and_flushes(server: Server, sign: signal.Signals) -> None:
    client = server.connect()
    client.write(4096, b"not flushed by the client" + bytes(7))
    server.send(sign)
    assert server.wait() == 0
    client.close()
    server.start()
    with server.connect() as again:
        assert again.read(4096, 25) == b"not flushed by the client"


def test_a_server_whose_runtime_folder_was_removed_is_found_again(server: Server) -> None:
    host = server.host
    shutil.rmtree(host.runtime)
    until(lambda: any(host.runtime.glob("*.sock")), seconds=60, what="a socket for commands")
    status = host.json("status", server.location)
    assert isinstance(status, dict)
    assert status["pid"] == server.pid


def test_what_was_written_is_there_after_every_start(server: Server) -> None:
    expected = bytearray(1 << 20)
    for turn in range(3):
        with server.connect() as client:
            assert client.read(0, 1 << 20) == expected
            piece = bytes([turn + 1]) * 50_000
            client.write(turn * 70_000, piece)
            expected[turn * 70_000 : turn * 70_000 + 50_000] = piece
        assert server.stop() == 0
        server.start()
    with server.connect() as client:
        assert client.read(0, 1 << 20) == expected


def test_a_wrong_password_is_told_as_such(server: Server) -> None:
    assert server.stop() == 0
    server.host.password = "something else"
    status, said = refused(server)
    assert status == EXIT_WRONG_PASSWORD
    assert "password" in said.lower()
    assert "something else" not in said
    server.host.password = Host.password
    server.start()


@pytest.mark.parametrize("store", ["minio"], indirect=True)
def test_a_changed_password(server: Server) -> None:
    with server.connect() as client:
        client.write(0, b"kept")
    assert server.stop() == 0
    server.host.run("password", "change", NBDSERVER_STORE=server.location, NBDSERVER_NEW_PASSWORD="another one")
    assert refused(server)[0] == EXIT_WRONG_PASSWORD
    server.host.password = "another one"
    server.start()
    with server.connect() as client:
        assert client.read(0, 4) == b"kept"


def test_a_port_in_use(local_store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    server = make_server(local_store, create={"disk": "64MiB"})
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        status, said = refused(server)
    assert status == EXIT_CONFLICT
    assert str(server.port) in said
    server.start()


def test_a_socket_left_behind_is_no_obstacle_but_a_living_one_is(
    local_store: StoreUnderTest, make_server: Callable[..., Server]
) -> None:
    server = make_server(local_store, create={"disk": "64MiB"}, tcp=False)
    server.start()
    server.kill()
    assert server.socket.exists()
    server.start()
    assert server.stop() == 0
    assert not server.socket.exists()


def test_another_size_is_an_error(server: Server) -> None:
    assert server.stop() == 0
    server.create = {"disk": "512MiB"}
    status, said = refused(server)
    assert status == EXIT_CONFLICT
    assert "disk" in said


def test_a_store_that_is_not_there(local_store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    status, said = refused(make_server(local_store), "--no-create")
    assert status == EXIT_NOT_FOUND
    assert "store" in said
    assert not Path(local_store.location.removeprefix("file://")).exists(), "something was created"


@pytest.mark.slow
def test_a_store_that_cannot_be_reached(host: Host, minio: RunningMinio, work: Path) -> None:
    nowhere = minio_store(minio, "unreachable", endpoint=f"http://127.0.0.1:{unused_port()}")
    host.store_environment = nowhere.environment
    server = Server(host, nowhere.location, create={"disk": "64MiB"})
    try:
        assert refused(server)[0] == EXIT_UNAVAILABLE
    finally:
        server.close()


def test_no_such_bucket_and_wrong_credentials(host: Host, minio: RunningMinio) -> None:
    host.store_environment = minio.environment()
    server = Server(host, "s3://no-such-bucket/prefix", create={"disk": "64MiB"})
    try:
        assert refused(server)[0] == EXIT_NOT_FOUND
        host.store_environment = {**minio.environment(), "AWS_SECRET_ACCESS_KEY": "wrong"}
        server.location = minio_store(minio, "denied").location
        status, said = refused(server)
        assert status == 13
        assert "wrong" not in said.split()
    finally:
        server.close()


def test_two_passwords_at_once_are_an_error(host: Host, local_store: StoreUnderTest, work: Path) -> None:
    (work / "password").write_text("a password")
    done = host.run("serve", local_store.location, status=None, NBDSERVER_PASSWORD_FILE=str(work / "password"))
    assert done.returncode in (1, EXIT_USAGE)
    assert "password" in one_sentence(done.stderr).lower()


def test_a_store_from_elsewhere_is_refused_until_it_is_accepted(
    local_store: StoreUnderTest, make_server: Callable[..., Server], work: Path
) -> None:
    """The whole folder rolled back to an older copy: the host has seen more."""
    server = make_server(local_store, create={"disk": "64MiB"})
    server.start()
    with server.connect() as client:
        client.write(0, b"old")
    assert server.stop() == 0
    folder = Path(local_store.location.removeprefix("file://"))
    shutil.copytree(folder, work / "backup")
    server.start()
    with server.connect() as client:
        client.write(0, b"new")
        client.flush()
    assert server.stop() == 0
    shutil.rmtree(folder)
    shutil.copytree(work / "backup", folder)
    status, _ = refused(server)
    assert status != 0
    shutil.rmtree(folder)
    folder.mkdir()
    status, _ = refused(server)  # emptied: nothing may be created in its place
    assert status != 0
    assert not list(folder.rglob("*.keys"))


def test_fork_and_pid_file(host: Host, local_store: StoreUnderTest, work: Path) -> None:
    pid_file, path = work / "pid", work / "socket"
    host.run(
        "serve", local_store.location, "--create", "disk=64MiB", "--unix", str(path), "--fork",
        "--log-file", "log", "--pid-file",
        str(pid_file),
    )  # fmt: skip
    pid = int(pid_file.read_text())
    server = Server(host, local_store.location, tcp=False)
    server.socket = path
    try:
        with server.connect() as client:
            client.write(0, b"forked")
            client.flush()
        assert refused(Server(host, local_store.location, tcp=False))[0] == EXIT_FENCED
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists(), seconds=60, what="the end of the server")
    assert not pid_file.exists()
    server.start()
    try:
        with server.connect() as client:
            assert client.read(0, 6) == b"forked"
    finally:
        server.close()


def test_run_serves_for_one_command(host: Host, local_store: StoreUnderTest) -> None:
    require("nbdinfo")
    done = host.run("serve", local_store.location, "--create", "disk=64MiB", "--run", 'nbdinfo --size "$uri"')
    assert str(64 << 20) in done.stdout.split()
    host.run("serve", local_store.location, "--run", "exit 7", status=7)


def test_one_client_does_not_end_with_another(server: Server) -> None:
    with server.connect() as good:
        for junk in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(1000)):
            assert server.port is not None
            with socket.create_connection(("127.0.0.1", server.port)) as bad:
                bad.sendall(junk)
        half = server.connect()
        half.socket.sendall(b"\x25\x60\x95\x13\0\0\0\1")  # a WRITE cut off in its header
        half.close()
        good.write(0, b"still here")
        assert good.read(0, 10) == b"still here"
    assert server.stop() == 0
    assert "Traceback" not in server.said()


def test_devices_of_a_running_server_and_at_rest(
    local_store: StoreUnderTest, make_server: Callable[..., Server], work: Path
) -> None:
    server = make_server(local_store, create={"disk": "64MiB"})
    host = server.host
    host.store_environment = {"NBDSERVER_STORE": local_store.location}
    for running in (True, False):
        if running:
            server.start()
        else:
            assert server.stop() == 0
        host.run("device", "create", "team/other", "10GiB")
        assert {device["name"] for device in listed(host.json("device", "list"))} == {"disk", "team/other"}
        host.run("device", "resize", "team/other", "20GiB")
        host.run("device", "rename", "team/other", "another")
        shown = host.json("device", "show", "another")
        assert isinstance(shown, dict)
        assert shown["size"] == 20 << 30
        if running:
            with server.connect("another") as client:
                assert client.size == 20 << 30
                client.write(0, b"attached")
                assert host.run("device", "delete", "another", status=None).returncode != 0
        image = work / "image"
        image.write_bytes(os.urandom(3 << 20) + bytes(5 << 20))
        host.run("device", "import", "copy", str(image))
        host.run("device", "export", "copy", str(work / "back"))
        assert (work / "back").read_bytes() == image.read_bytes()
        assert (work / "back").stat().st_blocks * 512 < 6 << 20, "holes were not kept"
        (work / "back").unlink()
        host.run("device", "delete", "copy")
        host.run("device", "delete", "another")
        assert [device["name"] for device in listed(host.json("device", "list"))] == ["disk"]
        host.run("device", "show", "another", status=EXIT_NOT_FOUND)


def listed(document: object) -> list[dict[str, object]]:
    assert isinstance(document, list)
    return document


def test_status_of_a_running_server(server: Server) -> None:
    host = server.host
    host.store_environment = {**host.store_environment, "NBDSERVER_STORE": server.location}
    status = host.json("status")
    assert isinstance(status, dict)
    assert "epoch" in json.dumps(status)


def test_no_secret_is_told(server: Server) -> None:
    with server.connect() as client:
        client.write(0, b"x" * 4096)
        client.flush()
    assert server.stop() == 0
    secrets = [server.host.password, server.host.store_environment.get("AWS_SECRET_ACCESS_KEY", "\0")]
    for secret in secrets:
        assert secret not in server.said() + server.announced


def test_the_store_holds_no_plain_text(local_store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    server = make_server(local_store, create={"a-telling-name": "64MiB"})
    server.start()
    with server.connect("a-telling-name") as client:
        client.write(0, b"plain text to look for" * 1000)
        client.write(1 << 20, (b"plain text to look for" * 60000)[: 1 << 20])
        client.flush()
    assert server.stop() == 0
    for path in Path(local_store.location.removeprefix("file://")).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"plain text" not in data, path.name
            assert b"a-telling-name" not in data, path.name


def test_help_is_quick_and_needs_nothing() -> None:
    process = subprocess.Popen([*COMMAND, "--help"], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert b"serve" in process.stdout.read()
    assert end(process) == 0
