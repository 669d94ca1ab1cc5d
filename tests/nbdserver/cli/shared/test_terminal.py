"""Passwords that are typed: the real program on a terminal."""

import os
import pty
import sys
from pathlib import Path

import pytest

from tests.support.program import COMMAND, Host
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration


def on_a_terminal(host: Host, *arguments: str, typing: list[str]) -> tuple[int, str]:
    """Run a command on a terminal of its own and type a line at each prompt; its status, and what it showed."""
    environment = host.environment()
    del environment["NBDSERVER_PASSWORD"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(host.folder)
        os.execve(sys.executable, [*COMMAND, *arguments], environment)
    shown = b""
    answers = iter(typing)
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
        shown += piece
        if piece.rstrip().endswith(b":"):
            os.write(terminal, next(answers).encode() + b"\n")
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_a_typed_password_of_a_new_store_is_asked_for_twice(host: Host, local_store: StoreUnderTest) -> None:
    status, shown = on_a_terminal(host, "init", local_store.location, typing=["one thing", "another"])
    assert status == 1
    assert "the two passwords differ" in shown
    assert "one thing" not in shown
    assert not Path(local_store.location.removeprefix("file://")).exists()
    status, _ = on_a_terminal(host, "init", local_store.location, typing=["one thing", "one thing"])
    assert status == 0
    host.run("--store", local_store.location, "device", "list", NBDSERVER_PASSWORD="one thing")


def test_a_typed_password_of_a_known_store_is_asked_for_once(host: Host, local_store: StoreUnderTest) -> None:
    host.run("init", local_store.location)
    status, _ = on_a_terminal(host, "serve", local_store.location, "--run", "true", typing=[host.password])
    assert status == 0


def test_tables_are_drawn_for_people(host: Host, local_store: StoreUnderTest) -> None:
    host.run("serve", local_store.location, "--create", "vol=10G", "--run", "true")
    status, shown = on_a_terminal(host, "device", "list", "--store", local_store.location, typing=[host.password])
    assert status == 0
    assert "NAME" in shown
    assert "10 GiB" in shown


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_the_log_has_colours_unless_they_are_not_wanted(
    host: Host, local_store: StoreUnderTest, variables: dict[str, str], coloured: bool
) -> None:
    host.store_environment = variables
    arguments = ("serve", local_store.location, "--create", "a=1M", "--run", "true", "-v")
    status, shown = on_a_terminal(host, *arguments, typing=[host.password, host.password])
    assert status == 0
    assert "object_request" in shown
    assert ("\x1b[" in shown) == coloured
