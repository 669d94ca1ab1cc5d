"""The device commands, on a store at rest and on a running server, as a script sees them."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.program import COMMAND, EXIT_CONFLICT, EXIT_EXISTS, Host, Server
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

MIB = 1 << 20


@pytest.fixture(scope="module")
def served() -> Iterator[Host]:
    """A host with NBDSERVER_STORE set and a server of that store, with one device `first`."""
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    host = Host(folder, {"NBDSERVER_STORE": f"file://{folder}/store"})
    server = Server(host, f"file://{folder}/store", create={"first": "1MiB"}, tcp=False)
    server.start()
    yield host
    server.close()
    shutil.rmtree(folder)


@pytest.fixture
def at_rest(host: Host, local_store: StoreUnderTest) -> Host:
    """A host with NBDSERVER_STORE set, and no server; there is one device `first`."""
    host.store_environment = {"NBDSERVER_STORE": local_store.location}
    host.prepare(local_store.location)
    host.run("serve", "--create", "first=1MiB", "--run", "true")
    return host


def test_the_life_of_a_device(served: Host) -> None:
    run = served.run
    run("device", "create", "t/vol", "64MiB")
    lines = run("device", "list").stdout.splitlines()
    assert [line.split("\t")[:3] for line in lines] == [["first", "1048576", "0"], ["t/vol", "67108864", "0"]]
    run("device", "resize", "t/vol", "128M")
    run("device", "resize", "t/vol", "1M", status=EXIT_CONFLICT)
    run("device", "resize", "t/vol", "1M", "--shrink")
    run("device", "rename", "t/vol", "u")
    facts = dict(line.split("\t") for line in run("device", "show", "u").stdout.splitlines())
    assert (facts["name"], facts["size"], facts["mode"]) == ("u", "1048576", "0600")
    run("device", "delete", "u")
    assert [device["name"] for device in json.loads(run("device", "list", "--json").stdout)] == ["first"]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["create", "first", "1MiB"], EXIT_EXISTS, "there is a 'first' already"),
        (["create", "first/x", "1MiB"], EXIT_CONFLICT, "'first' is a device"),
        (["create", "x@y", "1MiB"], 2, "'@' separates"),
        (["create", "x", "513"], 2, "multiple of 512"),
        (["create", "x", "10GB"], 2, "'10GB' is not a size"),
        (["show", "x"], 10, "no device named 'x'"),
        (["rename", "x", "y"], 10, "no device named 'x'"),
        (["delete", "x"], 10, "no device named 'x'"),
        (["export", "x", "-"], 10, "no device named 'x'"),
        (["import", "x", "/nonexistent"], 1, "/nonexistent: No such file"),
    ],
)
def test_what_cannot_be_done(served: Host, arguments: list[str], status: int, sentence: str) -> None:
    """One sentence and the documented status; with --json, a document for programs as well."""
    done = served.run("device", *arguments, "--json", status=status)
    *_, said, document = done.stderr.splitlines()
    assert said.startswith("nbdserver: ")
    assert sentence in said
    assert json.loads(document) == {
        "message_type": "exit_error",
        "code": status,
        "message": said.removeprefix("nbdserver: "),
    }
    assert done.stdout == ""


@pytest.mark.parametrize("where", ["served", "at_rest"])
def test_disks_go_in_and_come_out_with_their_holes(where: str, work: Path, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(where).run
    image, back = work / "image", work / "back"
    with image.open("wb") as file:
        file.truncate(512 * MIB + 1000)
        for offset in (0, 100 * MIB + 5000, 512 * MIB):
            os.pwrite(file.fileno(), os.urandom(900), offset)
    run("device", "import", "img", str(image))
    done = run("device", "export", "img", str(back), "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1] == {"message_type": "summary", "name": "img", "size": 512 * MIB + 1024}
    assert all(line["message_type"] == "status" and line["total_bytes"] == 512 * MIB + 1024 for line in lines[:-1])
    assert back.stat().st_size == 512 * MIB + 1024, "filled up to whole sectors"
    assert back.stat().st_blocks * 512 <= 64 * 1024
    os.truncate(back, 512 * MIB + 1000)
    assert back.read_bytes() == image.read_bytes()


def test_nothing_is_replaced_unasked(served: Host, work: Path) -> None:
    image = work / "image"
    image.write_bytes(b"x" * MIB)
    served.run("device", "import", "first", str(image))
    assert "--overwrite" in served.run("device", "import", "first", str(image), status=EXIT_CONFLICT).stderr
    assert "--overwrite" in served.run("device", "export", "first", str(image), status=EXIT_EXISTS).stderr
    image.write_bytes(b"y" * 512)
    served.run("device", "import", "first", str(image), "--overwrite")
    served.run("device", "export", "first", str(image), "--overwrite")
    assert image.read_bytes() == b"y" * 512 + bytes(MIB - 512)


def test_pipes(at_rest: Host, work: Path) -> None:
    assert "how large" in at_rest.run("device", "import", "new", "-", status=2).stderr
    (work / "data").write_bytes(b"abc" * 1000)
    with (work / "data").open("rb") as file, subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE) as pipe:
        assert pipe.stdout is not None
        done = subprocess.run(
            [*COMMAND, "device", "import", "first", "-"], stdin=pipe.stdout, env=at_rest.environment(), check=True
        )
    assert done.returncode == 0
    piped = at_rest.run("device", "export", "first", "-")
    assert piped.stdout == "abc" * 1000 + "\0" * (MIB - 3000)
    assert "exported" in piped.stderr
    long = subprocess.run(
        [
            "bash",
            "-c",
            'head -c 1048577 /dev/zero | "$@"',
            "-",
            *COMMAND,
            "device",
            "import",
            "first",
            "-",
            "--overwrite",
        ],
        env=at_rest.environment(),
        capture_output=True,
    )
    assert long.returncode == EXIT_CONFLICT
    assert b"more to write than the 1048576 bytes" in long.stderr, "though what lies behind the end is zeros"


def test_what_is_used_is_said_of_the_store_and_of_each_disk(served: Host) -> None:
    run = served.run
    run("device", "create", "used", "8MiB")
    image = served.folder / "image"
    image.write_bytes(os.urandom(MIB))
    run("device", "import", "used", str(image))
    row = next(line.split("\t") for line in run("device", "list").stdout.splitlines() if line.startswith("used\t"))
    assert row[4] == str(MIB)
    shown = json.loads(run("device", "show", "used", "--json").stdout)
    assert (shown["usage"]["logical_bytes"], shown["usage"]["allocated_bytes"]) == (8 * MIB, MIB)
    stats = {stat["name"]: stat for stat in json.loads(run("stats", "used", "--json").stdout)["stats"]}
    assert stats["written_bytes"]["value"] == MIB
    assert stats["allocated_bytes"]["unit"] == "bytes"
    lines = [line.split("\t") for line in run("stats").stdout.splitlines()]
    values = {name: value for name, value, _, _ in lines}
    assert int(values["written_bytes"]) >= MIB
    assert int(values["requests.create"]) > 0
    status = dict(line.split("\t") for line in run("status").stdout.splitlines())
    assert status["allocated"] == values["allocated_bytes"]
    assert "write amplification" in status
    run("stats", "nobody", status=10)
    run("device", "delete", "used")


def test_at_rest_there_are_gauges_only(at_rest: Host) -> None:
    found = json.loads(at_rest.run("stats", "--json").stdout)
    assert found["served"] is False
    names = {stat["name"] for stat in found["stats"]}
    assert {"logical_bytes", "stored_bytes", "live_bytes", "dead_bytes"} <= names
    assert {stat["kind"] for stat in found["stats"]} == {"gauge"}
    assert "written" not in at_rest.run("status").stdout


@pytest.mark.parametrize("served_or_not", ["served", "at_rest"])
def test_maintenance_can_be_asked_for(request: pytest.FixtureRequest, served_or_not: str) -> None:
    run = request.getfixturevalue(served_or_not).run
    assert run("compact", "--dry-run").stdout.splitlines()[-1].startswith("stored: ")
    assert set(json.loads(run("compact", "--dry-run", "--json").stdout)) >= {
        "stored_before",
        "stored_after",
        "repacked",
    }
    assert run("compact").stdout.splitlines()[-1].startswith("done: ")
    summary = json.loads(run("compact", "first", "--json").stdout.splitlines()[-1])
    assert (summary["message_type"], summary["end"], summary["left"]) == ("summary", "done", 0)
    run("compact", "nobody", status=10)
    assert "would be dropped" in run("gc", "--dry-run").stdout
    assert json.loads(run("gc", "--json").stdout)["refused"] is False
