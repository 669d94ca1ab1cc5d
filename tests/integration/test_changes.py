"""What changed since a snapshot, as other people's tools ask for it: libnbd, nbdinfo, qemu-img; and a backup by it."""

import json
import random
import subprocess
from pathlib import Path

import pytest

from tests.integration.images import MIB, make_image
from tests.support.commands import SYSTEM_PYTHON, run
from tests.support.program import Server
from tests.support.requirements import require

SECTOR = 4096
CONTEXT = "qemu:dirty-bitmap:one"

BACKUP = """
import json, nbd, sys
uri, context, path = sys.argv[1:]
h = nbd.NBD()
h.set_uri_allow_local_file(True)
h.add_meta_context(context)
h.connect_uri(uri)
assert h.can_meta_context(context)
size, at, moved, dirty = h.get_size(), 0, 0, []
while at < size:
    seen = []
    def note(name, offset, extents, error):
        assert name == context
        seen.extend(extents)
        return 0
    h.block_status(min(size - at, 1 << 30), at, note)
    for length, flags in zip(seen[::2], seen[1::2]):
        if flags & 1:
            dirty.append((at, length))
        at += length
with open(path, "r+b") as copy:
    for offset, length in dirty:
        for start in range(offset, offset + length, 1 << 20):
            count = min(1 << 20, offset + length - start)
            copy.seek(start)
            copy.write(h.pread(count, start))
            moved += count
print(json.dumps({"moved": moved, "dirty": dirty}))
h.shutdown()
"""
"""An incremental backup: what is dirty is read, and put into a copy of what the snapshot held."""


@pytest.fixture
def copy(server: Server, work: Path) -> Path:
    """What `disk@one` holds, as a file."""
    require("nbdcopy", "nbdinfo", "qemu-img")
    make_image(work / "image.raw", 256)
    run("nbdcopy", "--flush", work / "image.raw", server.uri())
    snapshot(server, "disk@one")
    run("nbdcopy", server.uri("disk@one"), work / "copy.raw")
    return work / "copy.raw"


def snapshot(server: Server, name: str) -> None:
    server.host.run("snapshot", "create", name, "--store", server.location)


def change(server: Server, seed: int = 1) -> set[int]:
    """Write here and there, and discard; gives the sectors. What was a hole before it was discarded did not change."""
    chance, touched = random.Random(seed), set[int]()
    with server.connect("disk") as client:
        for _ in range(300):
            offset = chance.randrange(200 * MIB)
            data = chance.randbytes(chance.choice([1, SECTOR, 5000, 100_000]))
            client.write(offset, data)
            touched |= set(range(offset // SECTOR, (offset + len(data) - 1) // SECTOR + 1))
        client.trim(210 * MIB, 5 * MIB)
        touched |= set(range(210 * MIB // SECTOR, 215 * MIB // SECTOR))
        client.flush()
    return touched


def backup(uri: str, path: Path, context: str = CONTEXT) -> tuple[int, list[tuple[int, int]]]:
    answer = json.loads(run(SYSTEM_PYTHON, "-c", BACKUP, uri, context, path))
    return answer["moved"], [(offset, length) for offset, length in answer["dirty"]]


def test_an_incremental_backup_of_a_snapshot(server: Server, copy: Path, work: Path) -> None:
    before = copy.read_bytes()
    touched = change(server)
    snapshot(server, "disk@two")
    change(server, seed=2)
    uri = server.unix_uri("disk@two")
    moved, dirty = backup(uri, copy)
    sectors = {n for offset, length in dirty for n in range(offset // SECTOR, (offset + length) // SECTOR)}
    after = copy.read_bytes()
    parts = range(0, len(before), SECTOR)
    assert {at // SECTOR for at in parts if before[at : at + SECTOR] != after[at : at + SECTOR]} <= sectors <= touched
    assert moved <= 1.1 * len(touched) * SECTOR
    run("nbdcopy", uri, work / "whole.raw")
    assert copy.read_bytes() == (work / "whole.raw").read_bytes()
    # At rest in between: the same is said by a server that reads it from the store.
    assert server.stop() == 0
    server.start()
    again, same = backup(uri, copy, "x-nbdserver:changed:one")
    assert again <= 1.1 * len(touched) * SECTOR
    assert sum(length for _, length in same) >= len(sectors) * SECTOR
    assert copy.read_bytes() == after


def test_tools_show_what_changed(server: Server, copy: Path) -> None:
    with server.connect("disk") as client:
        client.write(8 * MIB, b"x" * 8192)
        client.trim(16 * MIB, MIB)
        client.flush()
    changed = [(8 * MIB, 8192), (16 * MIB, MIB)]
    listed = run("nbdinfo", "--list", server.uri("disk"))
    assert CONTEXT in listed
    assert "x-nbdserver:changed:one" in listed
    found = json.loads(run("nbdinfo", "--json", f"--map={CONTEXT}", server.uri("disk")))
    assert [(each["offset"], each["length"]) for each in found if each["type"] & 1] == changed
    assert sum(each["length"] for each in found) == 256 * MIB
    options = f"driver=nbd,server.type=inet,server.host=127.0.0.1,server.port={server.port},export=disk"
    shown = json.loads(run("qemu-img", "map", "--output=json", "--image-opts", f"{options},x-dirty-bitmap={CONTEXT}"))
    # So QEMU shows a bitmap: what is dirty is not data.
    assert [(each["start"], each["length"]) for each in shown if not each["data"]] == changed


def test_a_snapshot_that_is_deleted_under_a_client(server: Server, copy: Path) -> None:
    require("nbdinfo")
    program = """
import nbd, sys
h = nbd.NBD()
h.set_uri_allow_local_file(True)
for context in ("base:allocation", sys.argv[2]):
    h.add_meta_context(context)
h.connect_uri(sys.argv[1])
seen = []
h.block_status(1 << 20, 0, lambda name, *rest: seen.append(name) or 0)
assert seen == ["base:allocation", sys.argv[2]], seen
print("ready", flush=True)
sys.stdin.readline()
try:
    h.block_status(1 << 20, 0, lambda *rest: 0)
except nbd.Error as error:
    assert error.errno == "EINVAL", error
else:
    raise SystemExit("it still answers")
assert len(h.pread(4096, 0)) == 4096
h.shutdown()
"""
    client = subprocess.Popen(
        [SYSTEM_PYTHON, "-c", program, server.unix_uri("disk"), CONTEXT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        server.host.run("snapshot", "delete", "disk@one", "--store", server.location)
        client.communicate(b"\n", timeout=60)
        assert client.returncode == 0
    finally:
        client.kill()
        client.wait()
