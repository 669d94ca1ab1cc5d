"""No secret is in what the real program says, nor in the environment of it and of its children; no core dumps."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.nbd import Client
from tests.support.planted import found_in
from tests.support.program import COMMAND, Host, Server
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest

OLD, NEW = "an-old-one-4f1c9e", "a-new-one-77b02d"
S3_KEY, TOKEN = "s3cr3t-key-0d9f31", "t0k3n-of-a-session-5ab1"
CONTENT = b"content of a disk 91c3ef"
SECRETS = {
    "old": OLD.encode(),
    "new": NEW.encode(),
    "S3": S3_KEY.encode(),
    "token": TOKEN.encode(),
    "content": CONTENT,
}
OF_AWS = {"AWS_ACCESS_KEY_ID": "known", "AWS_SECRET_ACCESS_KEY": S3_KEY, "AWS_SESSION_TOKEN": TOKEN}


@pytest.fixture
def host(work: Path) -> Host:
    return Host(work, {**OF_AWS, "NBDSERVER_DEBUG": "1"}, password=OLD)


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_server_whose_store_breaks(
    host: Host, local_store: StoreUnderTest, make_server: Callable[..., Server], work: Path, form: str
) -> None:
    require("root")  # nobody else sees the environment of a process that may not be traced
    log = work / "log"
    server = make_server(
        local_store, on=host, create={"disk": "1M"}, arguments=["-v", "--log-format", form, "--log-file", str(log)]
    )
    server.start()
    environ = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"NBDSERVER_PASSWORD=" in environ
    assert OLD.encode() not in environ
    said = [server.announced]

    def change(password: str) -> None:
        done = host.run(
            "password",
            "change",
            "--store",
            local_store.location,
            "--json",
            status=None,
            NBDSERVER_PASSWORD=password,
            NBDSERVER_NEW_PASSWORD=NEW,
        )
        said.extend((done.stdout, done.stderr))
        assert done.returncode != 0

    change(NEW)
    with Client(server.socket, "disk", timeout=60) as disk:
        disk.write(0, CONTENT * 1000 + bytes(-len(CONTENT) * 1000 % 512))
        disk.flush()
    for keys in Path(local_store.location.removeprefix("file://")).rglob("*.keys"):
        keys.write_bytes(b"damaged")
    change(OLD)
    server.kill()
    output = "".join([*said, server.said()]).encode() + log.read_bytes()
    assert b"operation" in output or b"password" in output
    assert found_in(output, SECRETS) == []


@pytest.mark.parametrize(
    "command", [["init"], ["serve", "--run", "true"], ["status"], ["password", "change"]], ids=lambda words: words[0]
)
def test_an_s3_store_that_is_not_there(host: Host, command: list[str]) -> None:
    done = host.run(
        *command,
        status=None,
        NBDSERVER_STORE="s3://bucket/prefix",
        NBDSERVER_NEW_PASSWORD=NEW,
        AWS_ENDPOINT_URL_S3="http://127.0.0.1:1/with a path",
    )
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert found_in((done.stdout + done.stderr).encode(), SECRETS) == []


def test_the_environment_of_the_command_of_run(host: Host, local_store: StoreUnderTest) -> None:
    host.prepare(local_store.location)
    done = host.run("serve", local_store.location, "--create", "a=1M", "--run", "env; ulimit -c")
    assert "uri=nbd" in done.stdout
    assert not re.search("NBDSERVER_(NEW_)?PASSWORD", done.stdout)
    assert found_in(done.stdout.encode(), SECRETS) == []
    assert done.stdout.endswith("0\n")


def commands() -> Iterator[list[str]]:
    yield ["init"]
    yield ["status"]
    yield ["flush"]
    yield ["device", "list"]
    yield ["password", "change"]
    yield ["serve", "--run", "true"]


def test_every_command_forbids_core_dumps_before_it_has_a_password(host: Host, local_store: StoreUnderTest) -> None:
    """As the command that prints the password sees its parent."""
    place = local_store.location
    host.prepare(place)
    host.run("serve", place, "--run", "true")
    shown = host.folder / "shown"
    spy = f"sh -c 'cat /proc/$PPID/limits > {shown}; env >> {shown}; echo {OLD}'"
    for command in commands():
        shown.unlink(missing_ok=True)
        environ = {key: value for key, value in host.environment().items() if key != "NBDSERVER_PASSWORD"}
        store = f"{place}-2" if command == ["init"] else place
        done = run_with(host, command, {**environ, "NBDSERVER_PASSWORD_COMMAND": spy}, store)
        assert done == 0, command
        text = shown.read_text()
        assert re.search(r"^Max core file size +0 +0 ", text, re.MULTILINE), command
        assert NEW not in text
        if command == ["password", "change"]:
            back = Host(host.folder, password=NEW)
            back.run("password", "change", "--store", place, NBDSERVER_NEW_PASSWORD=OLD)


def run_with(host: Host, command: list[str], environ: dict[str, str], store: str) -> int:
    environ = {**environ, "NBDSERVER_STORE": store, "NBDSERVER_NEW_PASSWORD": NEW}
    return subprocess.run(
        [*COMMAND, *command], env=environ, cwd=host.folder, stdin=subprocess.DEVNULL, timeout=120, check=False
    ).returncode
