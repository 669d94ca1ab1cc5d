"""`nbdserver serve` as a process: what it prints, when it refuses, how it ends."""

import contextlib
import errno
import json
import os
import re
import resource
import select
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.nbd import Client, NbdError
from tests.support.processes import kill_quietly, until, unused_port
from tests.support.program import (
    COMMAND,
    EXIT_CONFLICT,
    EXIT_CORRUPT,
    EXIT_EXISTS,
    EXIT_FENCED,
    EXIT_WRONG_PASSWORD,
    Host,
    NotListening,
    Server,
)  # fmt: skip
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

MakeServer = Callable[..., Server]

INTERRUPTED = 130


def test_one_line_for_every_export(local_store: StoreUnderTest, make_server: MakeServer) -> None:
    server = make_server(local_store, create={"b": "1M", "a/c": "2M"})
    server.start()
    uri = f"nbd://127.0.0.1:{server.port}"
    uris = [f"{uri}/a/c", f"{uri}/b", *(f"nbd+unix:///{name}?socket={server.socket}" for name in ("a/c", "b"))]
    lines = [line.split("\t") for line in server.announced.splitlines()]
    assert [line[0] for line in lines] == uris
    assert [shlex.split(line[1])[1:] for line in lines] == [["attach", uri] for uri in uris]


@pytest.mark.parametrize("also", ["standard output", "standard error"])
def test_who_does_not_read_what_it_prints_is_not_waited_for(host: Host, local_store: StoreUnderTest, also: str) -> None:
    """A service's log is written by a process that reads no more where its disk is full."""
    server = Server(host, local_store.location, create={"a": "1M"}, tcp=False)
    host.prepare(server.location)
    read, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(full, b"x" * select.PIPE_BUF):
            pass
    os.set_blocking(full, True)
    with server.log.open("ab") as log:
        error = full if also == "standard error" else log
        server.process = subprocess.Popen(
            server.command(), env=host.environment(), cwd=host.folder, stdout=full, stderr=error
        )
    try:
        until(server.socket.exists, seconds=60, what="listening")
        with server.connect("a", timeout=20) as client:
            client.write(0, b"kept")
        assert server.stop(seconds=30) == 0
    finally:
        server.close()
        os.close(read)
        os.close(full)


def test_a_server_takes_the_descriptors_it_may_have_and_a_command_gets_the_usual(
    host: Host, local_store: StoreUnderTest
) -> None:
    server = Server(host, local_store.location, create={"a": "1M"}, tcp=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        server.start()
        assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[0] > 256
        assert server.stop() == 0
        done = host.run("serve", server.location, "--run", "ulimit -Sn >limit")
        assert "descriptors_may_run_out" in done.stderr
        assert (host.folder / "limit").read_text() == "256\n"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        server.close()


def test_a_unix_socket_alone_opens_no_port(local_store: StoreUnderTest, make_server: MakeServer) -> None:
    server = make_server(local_store, create={"a": "1M"}, tcp=False, arguments=["--json"])
    server.start()
    announced = json.loads(server.announced)
    assert announced["message_type"] == "listening"
    assert [export["name"] for export in announced["exports"]] == ["a"]
    status = server.host.json("--store", server.location, "status")
    assert isinstance(status, dict)
    assert status["listening"] == [f"nbd+unix:///?socket={server.socket}"]


def test_only_what_was_asked_for_is_served(local_store: StoreUnderTest, make_server: MakeServer) -> None:
    make_server(local_store).host.run("serve", local_store.location, "--create=a=1M", "--create=b=1M", "--run=true")
    server = make_server(local_store, tcp=False, arguments=["--export", "b", "--read-only"])
    server.start()
    assert server.announced.startswith("nbd+unix:///b?")
    with server.connect("b") as client, pytest.raises(NbdError) as refused:
        client.write(0, b"x")
    assert refused.value.errno == errno.EPERM
    with pytest.raises(NbdError, match="refused"):
        server.connect("a")


def test_a_missing_export_is_an_error(local_store: StoreUnderTest, make_server: MakeServer) -> None:
    server = make_server(local_store, create={"a": "1M"}, tcp=False, arguments=["--export", "b"])
    with pytest.raises(NotListening) as refusal:
        server.start()
    assert refusal.value.status == 10
    assert refusal.value.output == "nbdserver: there is no device named 'b'\n"


def test_a_port_in_use_is_found_before_the_store_is_touched(host: Host, local_store: StoreUnderTest) -> None:
    """Not even with --take-over: the server that runs must not be fenced by one that cannot run."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = host.run("serve", local_store.location, "--port", port, "--take-over", status=EXIT_CONFLICT)
    assert (
        done.stderr == f"nbdserver: port {port} on 127.0.0.1 is in use: stop the other program or choose another one\n"
    )
    assert not Path(local_store.location.removeprefix("file://")).exists()


def test_a_second_server_is_refused_and_with_take_over_fences_the_first(
    local_store: StoreUnderTest, make_server: MakeServer
) -> None:
    first = make_server(local_store, create={"a": "1M"})
    second = make_server(local_store, create={"a": "1M"})
    first.start()
    with pytest.raises(NotListening) as refusal:
        second.start()
    assert refusal.value.status == EXIT_FENCED
    assert f"process {first.pid}" in refusal.value.output
    assert "--take-over" not in refusal.value.output, "not while it lives"
    with first.connect("a") as client:
        client.write(0, b"kept")
        client.flush()
    second.start("--take-over")
    assert first.wait() == EXIT_FENCED
    assert first.said().splitlines()[-1].startswith("nbdserver: another server has taken over this store")
    with second.connect("a") as client:
        assert client.read(0, 4) == b"kept"
    # Commands find the second one, also after the first has cleaned up behind itself.
    status = second.host.json("--store", second.location, "status")
    assert isinstance(status, dict)
    assert status["pid"] == second.pid


def test_after_kill_9_it_starts_again_without_a_word(local_store: StoreUnderTest, make_server: MakeServer) -> None:
    server = make_server(local_store, create={"a": "1M"}, tcp=False)
    server.start()
    server.kill()
    # A server that is gone does not answer on its admin socket: the command opens the store.
    server.host.run("--store", server.location, "device", "list")
    server.start()
    server.send(signal.SIGHUP)  # ignored
    assert server.stop() == 0


def test_a_second_signal_ends_it_at_once(host: Host, local_store: StoreUnderTest) -> None:
    """The folder of the store is made unwritable, so that the flush of an orderly stop cannot end."""
    server = Server(host, local_store.location, create={"a": "64M"}, tcp=False)
    server.start()
    folder = Path(local_store.location.removeprefix("file://"))
    try:
        with server.connect("a") as client:
            client.write(0, b"x" * 4096)
        folder.rename(folder.with_name("away"))
        server.send(signal.SIGTERM)
        until(lambda: not server.socket.exists(), seconds=30, what="the start of the stop")
        assert server.running()
        server.send(signal.SIGTERM)
        assert server.wait() == INTERRUPTED
    finally:
        server.close()


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_an_announcement_that_nobody_gets_is_no_failure(
    host: Host, local_store: StoreUnderTest, work: Path, arguments: tuple[str, ...]
) -> None:
    """Who starts it so, with an output that takes nothing, would count each of its stops as a failure."""
    host.prepare(local_store.location)
    socket_path, pid_file = work / "s", work / "pid"
    command = [*COMMAND, "serve", local_store.location, "--create", "a=1M", "--unix", "s", "--pid-file", "pid"]
    with open("/dev/full", "wb") as full, open(work / "said", "wb") as said:
        process = subprocess.Popen([*command, *arguments], env=host.environment(), cwd=work, stdout=full, stderr=said)
    try:
        until(lambda: socket_path.exists() and pid_file.exists(), seconds=60, what="the start of the server")
        with Client(socket_path, "a") as client:
            client.write(0, b"x")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        kill_quietly(process)
    assert "standard output" not in (work / "said").read_text()


def test_fork_returns_with_what_went_wrong(host: Host, local_store: StoreUnderTest, work: Path) -> None:
    host.prepare(local_store.location)
    host.run("serve", local_store.location, "--run", "true")
    arguments = ("serve", local_store.location, "--fork", "--log-file", "log", "--unix", "s", "--pid-file", "pid")
    done = host.run(*arguments, status=EXIT_WRONG_PASSWORD, NBDSERVER_PASSWORD="another")
    assert done.stderr.startswith("nbdserver: the password does not open")
    assert not (work / "pid").exists()
    host.run("serve", local_store.location, "--fork", "--run", "true", status=2)


def test_fork_lets_go_of_the_terminal(host: Host, local_store: StoreUnderTest, work: Path) -> None:
    """`host.run` reads its output to the end: it would wait for ever for a server that still held the pipes."""
    done = host.run(
        "serve", local_store.location, "--create", "a=1M", "--fork", "--unix", "s", "--pid-file", "pid",
        "--log-file", "log",
    )  # fmt: skip
    pid = int((work / "pid").read_text())
    try:
        assert done.stdout.startswith(f"nbd+unix:///a?socket={work}/s\t")
        for descriptor in (0, 1, 2):
            assert os.readlink(f"/proc/{pid}/fd/{descriptor}") == "/dev/null"
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.getsid(pid) != os.getsid(0)
        # No core dumps, which would hold the keys.
        assert re.search(r"^Max core file size +0 +0 ", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists(), seconds=60, what="the end of the server")
    assert not (work / "pid").exists()
    assert not (work / "s").exists()


def test_run_tells_its_command_where_to_find_the_disk(host: Host, local_store: StoreUnderTest) -> None:
    host.prepare(local_store.location)
    command = 'test -S "$unixsocket" && echo "$uri|$unixsocket|$nbd"; exit 3'
    done = host.run("serve", local_store.location, "--create", "a=1M", "--run", command, status=3)
    uri, path, old = done.stdout.strip().split("|")
    assert uri == f"nbd+unix:///a?socket={path}"
    assert old == f"nbd:unix:{path}:exportname=a"
    assert done.stderr == ""
    assert not Path(path).parent.exists()
    done = host.run(
        "serve", local_store.location, "--port", str(unused_port()), "--run", "echo $uri; kill -9 $$", status=137
    )
    assert done.stdout.startswith("nbd://127.0.0.1:")


def test_run_is_ended_with_its_server(host: Host, local_store: StoreUnderTest, work: Path) -> None:
    server = Server(host, local_store.location, create={"a": "1M"}, tcp=False)
    process = server.spawn("--run", "trap 'touch asked; kill $!' TERM; sleep 1000 & echo $$ > child; wait")
    try:
        until(lambda: (work / "child").exists() and (work / "child").read_text() != "", seconds=60, what="the command")
        child = int((work / "child").read_text())
        process.send_signal(signal.SIGTERM)
        assert server.wait() == INTERRUPTED
        assert not Path(f"/proc/{child}").exists()
        assert (work / "asked").exists(), "it was killed before it was asked"
    finally:
        server.close()


def test_a_folder_that_cannot_be_used_is_named(host: Host, local_store: StoreUnderTest) -> None:
    arguments = ("serve", local_store.location, "--unix", "s")
    for variable, done in (
        ("NBDSERVER_STATE_FOLDER", host.run(*arguments, status=13, NBDSERVER_STATE_FOLDER="/proc/nbdserver")),
        ("NBDSERVER_RUNTIME_FOLDER", host.run(*arguments, status=13, NBDSERVER_RUNTIME_FOLDER="/proc/nbdserver")),
    ):
        assert variable in done.stderr
        assert "/proc/nbdserver" in done.stderr


def test_a_store_that_was_emptied_is_made_anew_only_when_told(host: Host, local_store: StoreUnderTest) -> None:
    host.run("init", local_store.location)
    shutil.rmtree(local_store.location.removeprefix("file://"))
    for command in ("init", "serve"):
        done = host.run(
            command, local_store.location, *(["--unix", "s"] if command == "serve" else []), status=EXIT_CORRUPT
        )
        assert "--accept-rollback" in done.stderr
    host.run("init", local_store.location, "--accept-rollback")
    host.run("init", local_store.location, status=EXIT_EXISTS)


def test_a_damaged_memory_of_the_host_is_named_and_can_be_given_up(host: Host, local_store: StoreUnderTest) -> None:
    host.prepare(local_store.location)
    host.run("serve", local_store.location, "--run", "true")
    (anchor,) = (host.folder / "state").rglob("anchor-*.json")
    anchor.write_bytes(b"")
    done = host.run("serve", local_store.location, "--run", "true", status=EXIT_CORRUPT)
    assert str(anchor) in done.stderr
    assert "--accept-rollback" in done.stderr
    host.run("serve", local_store.location, "--run", "true", "--accept-rollback")
    host.run("serve", local_store.location, "--run", "true")
