"""A port that a test is told to use is nobody else's until that test's process ends; and when a socket may be used."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.support.processes import EPHEMERAL, listens

ROOT = Path(__file__).parents[2]
ASKS = """
from tests.support.processes import unused_port
print(*(unused_port() for _ in range(400)), flush=True)
input()
"""


def test_a_port_is_given_once() -> None:
    """Seen in a run of all tests: "port 60099 is in use" at a server's start, by a connection that went out."""
    lowest, highest = map(int, EPHEMERAL.read_text().split())
    given: list[int] = []
    with spawned() as first, spawned() as second:
        for process in (first, second):
            assert process.stdout is not None
            given += map(int, process.stdout.readline().split())
        for process in (first, second):
            process.communicate("\n", timeout=60)
    assert len(given) == len(set(given)) == 800
    assert not [port for port in given if lowest <= port <= highest]


def test_a_socket_that_is_there_does_not_listen_yet(tmp_path: Path) -> None:
    """Seen in a run of all tests: "Connection refused" by a program whose socket was there."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as made:
        assert not listens(path)
        made.bind(str(path))
        assert path.exists()
        assert not listens(path)
        made.listen()
        assert listens(path)
    assert path.exists()
    assert not listens(path)


def spawned() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", ASKS], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
