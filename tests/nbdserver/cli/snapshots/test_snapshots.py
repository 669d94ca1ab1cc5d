"""The snapshot commands, on a store at rest and on a running server with clients, as a script sees them."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import kill_quietly, until
from tests.support.program import COMMAND, EXIT_CONFLICT, EXIT_EXISTS, Host, Server

pytestmark = pytest.mark.integration

MIB = 1 << 20
OLD, NEW = b"old" * 1000, b"new" * 1000


@pytest.fixture
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    host = Host(folder, {"NBDSERVER_STORE": f"file://{folder}/store"})
    server = Server(host, f"file://{folder}/store", create={"a": "4MiB", "b": "1MiB"})
    server.start()
    yield server
    server.close()
    shutil.rmtree(folder)


def test_the_life_of_a_snapshot(server: Server) -> None:
    run = server.host.run
    with server.connect("a") as client:
        client.write(0, OLD)
        assert run("snapshot", "create", "a@one").stdout == "a@one: taken\n"
        client.write(0, NEW)
        client.flush()
        assert client.read(0, len(NEW)) == NEW
        with server.connect("a@one") as past:
            assert past.read(0, len(OLD)) == OLD
            assert past.flags & 2, "to be read only"
            assert "attached" in run("snapshot", "delete", "a@one", status=EXIT_CONFLICT).stderr
        assert "attached" in run("snapshot", "rollback", "a@one", status=EXIT_CONFLICT).stderr
        run("snapshot", "create", "@both", "--all")
        run("device", "clone", "a@one", "c")
        with server.connect("c") as clone:
            assert clone.read(0, len(OLD)) == OLD
            clone.write(0, b"own")
            clone.flush()
        assert client.read(0, len(NEW)) == NEW
    names = [line.split("\t")[0] for line in run("snapshot", "list").stdout.splitlines()]
    assert names == ["a@one", "a@both", "b@both"]
    assert "2 snapshots" in run("device", "delete", "a", status=EXIT_CONFLICT).stderr
    answer = json.loads(run("snapshot", "rollback", "a@one", "--json").stdout)
    assert answer["kept"] == "a@before-rollback"
    with server.connect("a") as client, server.connect("a@before-rollback") as before:
        assert client.read(0, len(OLD)) == OLD
        assert before.read(0, len(NEW)) == NEW

    server.kill()
    server.start()
    with server.connect("a") as client, server.connect("c") as clone:
        assert client.read(0, len(OLD)) == OLD
        assert clone.read(0, 3) == b"own"
    assert server.stop() == 0

    assert run("snapshot", "delete", "a@one").stdout == "a@one: deleted\n"
    run("snapshot", "create", "@last", "--devices", "a,b")
    found = json.loads(run("snapshot", "list", "a", "--json").stdout)
    assert [one["name"] for one in found] == ["both", "before-rollback", "last"]
    assert [one["origin"] for one in found] == ["asked", "rollback", "asked"]
    assert len({one["identity"] for one in found}) == 3
    run("snapshot", "rollback", "a@both", "--discard")
    run("check")
    server.start()
    with server.connect("a") as client:
        assert client.read(0, len(NEW)) == NEW


def test_one_that_expires(server: Server) -> None:
    run = server.host.run
    run("snapshot", "create", "@soon", "--all", "--expires", "1s")
    run("snapshot", "create", "a@later", "--expires", "2w")
    until(lambda: "@soon" not in run("snapshot", "list").stdout, seconds=90, what="they expire")
    (later,) = json.loads(run("snapshot", "list", "--json").stdout)
    assert later["expires"] - later["created"] == pytest.approx(14 * 86400)
    assert run("snapshot", "list").stdout.split("\t")[3].startswith("20")
    assert "no length of time" in run("snapshot", "create", "a@x", "--expires", "soon", status=2).stderr


def test_commands_around_one_leave_its_input_and_its_output_alone(server: Server) -> None:
    """As in `while read name; do nbdserver snapshot create $name@x --before 'ssh host pause'; done < names`."""
    hooks = ("--before", "cat; echo paused", "--after", "cat; echo resumed")
    done = subprocess.run(
        [*COMMAND, "snapshot", "create", "a@one", *hooks, "--json"],
        env=server.host.environment(),
        cwd=server.host.folder,
        input="a\nb\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["snapshots"] == ["a@one"]
    assert [line for line in done.stderr.splitlines() if not line.startswith("nbdserver: ")] == ["paused", "resumed"]


def test_one_whose_command_afterwards_fails_is_said_to_be_taken(server: Server) -> None:
    """It is there, and nobody looked for it: the next try met it."""
    done = server.host.run("snapshot", "create", "a@one", "--after", "exit 7", "--json", status=3)
    assert json.loads(done.stdout)["snapshots"] == ["a@one"]
    assert "taken, and the command of --after ended with 7" in done.stderr
    killed = server.host.run("snapshot", "create", "a@two", "--after", "kill -9 $PPID", status=3)
    assert killed.stdout == "a@two: taken\n"
    assert "look whether one is still frozen" in killed.stderr
    server.host.run("snapshot", "create", "a@three", "--before", "exit 7", status=1)
    assert [line.split("\t")[0] for line in server.host.run("snapshot", "list").stdout.splitlines()] == [
        "a@one",
        "a@two",
    ]


def test_one_that_is_interrupted_afterwards_is_said_to_be_taken(server: Server) -> None:
    folder = server.host.folder
    os.mkfifo(folder / "pipe")
    create = subprocess.Popen(
        [*COMMAND, "snapshot", "create", "a@one", "--after", f"touch {folder}/began; cat {folder}/pipe"],
        env=server.host.environment(),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        until((folder / "began").exists, seconds=60, what="the command afterwards")
        create.send_signal(signal.SIGINT)
        (folder / "pipe").write_text("")
        _, said = create.communicate(timeout=60)
    finally:
        kill_quietly(create)
    assert create.returncode == 130
    assert b"nbdserver: a@one: taken, and --after may not have ended" in said


def test_a_schedule(server: Server) -> None:
    """Of a server that is told to, on the command line or in a file; it touches nobody else's."""
    run = server.host.run
    assert "no schedule" in run("serve", "--keep", "often=3", status=2).stderr
    assert "exclude each other" in run("serve", "--keep", "daily=3", "--read-only", status=2).stderr
    run("snapshot", "create", "a@mine")
    assert server.stop() == 0
    folder = server.host.folder / "config" / "nbdserver"
    folder.mkdir(parents=True)
    (folder / "nbdserver.toml").write_text('[serve]\nkeep = "yearly=2,daily=3"\n')
    server.start()

    def listed() -> list[tuple[str, str]]:
        found = json.loads(run("snapshot", "list", "--json").stdout)
        return sorted((f"{one['device']}@{one['name']}", one["origin"]) for one in found)

    until(lambda: len(listed()) == 3, seconds=90, what="they are taken")
    (first, _), (_, mine), (other, origin) = listed()
    assert first.startswith("a@auto-20")
    assert first[1:] == other[1:]
    assert (mine, origin) == ("asked", "schedule")
    run("snapshot", "delete", first)


def test_what_changed(server: Server) -> None:
    run = server.host.run

    def changed(*names: str) -> tuple[int, list[tuple[int, int]]]:
        answer = json.loads(run("snapshot", "diff", *names, "--json").stdout)
        ranges = [(each["offset"], each["length"]) for each in answer["ranges"]]
        assert answer["size"] == 4 * MIB
        assert answer["changed_bytes"] == sum(length for _, length in ranges)
        return answer["changed_bytes"], ranges

    with server.connect("a") as client:
        client.write(0, b"a" * MIB)
        run("snapshot", "create", "a@one")
        assert changed("a@one", "a") == (0, [])
        client.write(5 * 4096 + 7, b"b")
        client.write(3 * MIB, b"b" * 8192)
        run("snapshot", "create", "a@two")
        client.trim(0, 4096)
        for _ in range(2):
            assert changed("a@one", "a@two") == (12288, [(20480, 4096), (3 * MIB, 8192)])
            assert changed("a@two", "a@one")[1] == changed("a@one", "a@two")[1]
            assert changed("a@two", "a") == (4096, [(0, 4096)])
            assert changed("a@one", "a")[1] == [(0, 4096), (20480, 4096), (3 * MIB, 8192)]
            client.flush()
    assert run("snapshot", "diff", "a@one", "a@two").stdout == f"20480\t4096\n{3 * MIB}\t8192\n"
    assert server.stop() == 0
    assert changed("a@one", "a")[1] == [(0, 4096), (20480, 4096), (3 * MIB, 8192)]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["snapshot", "create", "a"], 2, "no DEVICE@SNAPSHOT"),
        (["snapshot", "create", "a@"], 2, "no DEVICE@SNAPSHOT"),
        (["snapshot", "create", "@s"], 2, "of which devices?"),
        (["snapshot", "create", "a@s", "--all"], 2, "of which devices?"),
        (["snapshot", "create", "@s", "--devices", ","], 2, "names none"),
        (["snapshot", "create", "x@s"], 10, "no device named 'x'"),
        (["snapshot", "create", "a@x/y"], 2, "'/'"),
        (["snapshot", "delete", "a"], 2, "is not DEVICE@SNAPSHOT"),
        (["snapshot", "delete", "a@x"], 10, "no snapshot named 'x'"),
        (["snapshot", "rollback", "a@x"], 10, "no snapshot named 'x'"),
        (["snapshot", "diff", "a", "a"], 2, "is not DEVICE@SNAPSHOT"),
        (["snapshot", "diff", "a@x", "b"], 2, "no snapshot of it"),
        (["snapshot", "diff", "a@x", "a"], 10, "no snapshot named 'x'"),
        (["snapshot", "list", "x"], 10, "no device named 'x'"),
        (["device", "clone", "a@x", "c"], 10, "no snapshot named 'x'"),
        (["device", "clone", "a", "b"], EXIT_EXISTS, "there is a 'b' already"),
    ],
)
def test_what_is_refused(refusing: Host, arguments: list[str], status: int, sentence: str) -> None:
    done = refusing.run(*arguments, status=status)
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) <= 3


@pytest.fixture(scope="module")
def refusing() -> Iterator[Host]:
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    host = Host(folder, {"NBDSERVER_STORE": f"file://{folder}/store"})
    server = Server(host, f"file://{folder}/store", create={"a": "4MiB", "b": "1MiB"}, tcp=False)
    server.start()
    yield host
    server.close()
    shutil.rmtree(folder)
