"""docs/format.md says enough to read a store: a program written from it reads what the real program wrote."""

import ast
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import format_blocks, format_reader, format_sealed
from tests.support.format_reader import FormatReader
from tests.support.messages import FUA, NO_HOLE
from tests.support.nbd import Client
from tests.support.program import Host, Server
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration
MIB = 1024 * 1024
DISK_BYTES = 48 * MIB
ODD_BYTES = 5859 * 512
"""Not a whole number of sectors."""
NEW_PASSWORD = "another password"
EVERY_RECORD = {"1/0", "2/0", "2/1", "3/0", "4/0", "5/0"}
"""Type and flags of all records of the log that the page describes."""
LIBRARIES = {"argon2", "cryptography", "lz4", "msgspec", "nacl"}


class Disk:
    """A device and what it should hold."""

    def __init__(self, client: Client, content: bytearray, seed: int) -> None:
        self.client = client
        self.content = content
        self.random = random.Random(seed)

    def write(self, offset: int, data: bytes, *, flags: int = 0) -> None:
        self.client.write(offset, data, flags=flags)
        self.content[offset : offset + len(data)] = data

    def trim(self, offset: int, length: int) -> None:
        self.client.trim(offset, length)
        self.content[offset : offset + length] = bytes(length)

    def zero(self, offset: int, length: int, *, flags: int = 0) -> None:
        self.client.zero(offset, length, flags=flags)
        self.content[offset : offset + length] = bytes(length)

    def exercise(self) -> None:
        """Some of everything that leaves a mark of its own in the store, and a flush."""
        draw = self.random
        at = draw.randrange(8) * MIB
        self.write(at + MIB // 2, draw.randbytes(9 * MIB))  # whole blocks in the middle: frames and locators
        self.write(draw.randrange(24, 40) * MIB, b"compressible " * 30000)
        for _ in range(60):
            self.write(draw.randrange(DISK_BYTES // 4096) * 4096, draw.randbytes(4096))
        for _ in range(30):  # parts of sectors, also over the end of one
            self.write(draw.randrange(DISK_BYTES - 9000), draw.randbytes(draw.randrange(1, 9000)))
        self.trim(draw.randrange(20) * MIB + 5000, 5 * MIB)
        self.zero(draw.randrange(40) * MIB + 100, 700_000, flags=NO_HOLE)
        self.zero(draw.randrange(40) * MIB, 262144)
        self.write(draw.randrange(40) * MIB, bytes(3 * 262144))  # zeros that are written
        self.write(at + MIB, draw.randbytes(8192), flags=FUA)  # over a frame that is uploaded already
        self.client.flush()


def folder_of(store: StoreUnderTest) -> Path:
    return Path(store.location.removeprefix("file://"))


def compare(reader: FormatReader, device: str, expected: bytearray) -> None:
    """Equal, or the first byte that is not: pytest would print megabytes."""
    found = reader.content(device)
    assert len(found) == len(expected)
    if found != expected:
        first = next(at for at in range(len(found)) if found[at] != expected[at])
        pytest.fail(f"byte {first} of {device} is {found[first]}, not {expected[first]}", pytrace=False)


@pytest.fixture
def running(local_store: StoreUnderTest, host: Host, make_server: Callable[..., Server]) -> Server:
    server = make_server(local_store, on=host, create={"disk": str(DISK_BYTES), "tenant-a/other": str(ODD_BYTES)})
    server.start()
    return server


def exercise(server: Server, content: bytearray, seed: int) -> None:
    with server.connect("disk") as client:
        Disk(client, content, seed).exercise()


def test_a_closed_store(running: Server, local_store: StoreUnderTest, host: Host) -> None:
    content = bytearray(DISK_BYTES)
    for seed in (1, 2):
        exercise(running, content, seed)
        assert running.stop() == 0
        running.start()
    assert running.stop() == 0

    reader = FormatReader(folder_of(local_store), host.password.encode())
    assert reader.closed
    assert not reader.records, "a closed store has nothing in its log"
    assert set(reader.devices()) == {"disk", "tenant-a/other"}
    compare(reader, "disk", content)
    assert len(reader.content("tenant-a/other")) == ODD_BYTES


def test_a_store_whose_server_was_killed(running: Server, local_store: StoreUnderTest, host: Host) -> None:
    """What is in the log only: writes, zeros, locators, changes of the tree; over SSTs, and behind a fence."""
    content = bytearray(DISK_BYTES)
    exercise(running, content, seed=3)
    assert running.stop() == 0
    running.start()

    def command(*words: str) -> None:
        host.run(*words, "--store", local_store.location)

    command("device", "delete", "tenant-a/other")
    command("device", "create", "b/c", "1MiB")
    command("device", "rename", "b/c", "new")
    command("device", "resize", "disk", str(DISK_BYTES - 5 * MIB - 512), "--shrink")
    command("device", "resize", "disk", str(DISK_BYTES))
    content[DISK_BYTES - 5 * MIB - 512 :] = bytes(5 * MIB + 512)
    exercise(running, content, seed=4)
    running.kill()

    reader = FormatReader(folder_of(local_store), host.password.encode())
    assert not reader.closed
    assert set(reader.records) == EVERY_RECORD
    assert set(reader.devices()) == {"disk", "new"}
    compare(reader, "disk", content)

    running.start()  # takes over, fences, replays
    exercise(running, content, seed=5)
    running.kill()
    reader = FormatReader(folder_of(local_store), host.password.encode())
    assert reader.takeover
    compare(reader, "disk", content)

    running.start()
    host.run("password", "change", "--store", local_store.location, NBDSERVER_NEW_PASSWORD=NEW_PASSWORD)
    exercise(running, content, seed=6)
    running.kill()
    with pytest.raises(ValueError, match="no slot opens"):
        FormatReader(folder_of(local_store), host.password.encode())
    reader = FormatReader(folder_of(local_store), NEW_PASSWORD.encode())
    assert reader.manifest[11] == reader.keys_number == 2
    compare(reader, "disk", content)


def test_the_reader_notices_a_flipped_bit(running: Server, local_store: StoreUnderTest, host: Host) -> None:
    """It checks what the page says is checked: without this it would prove less than it seems to."""
    content = bytearray(DISK_BYTES)
    exercise(running, content, seed=7)
    assert running.stop() == 0
    running.start()
    exercise(running, content, seed=8)
    running.kill()
    folder = folder_of(local_store)
    noticed: dict[str, int] = {}
    draw = random.Random(9)
    for path in sorted(path for path in folder.glob("*/*") if path.is_file()):
        whole = path.read_bytes()
        at = draw.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :])
        kind = path.parent.name
        try:
            reader = FormatReader(folder, host.password.encode())
            assert reader.content("disk") == content, f"a flipped bit in {path.name} gave wrong data"
        except ValueError:
            noticed[kind] = noticed.get(kind, 0) + 1
        path.write_bytes(whole)
    assert set(noticed) == {"keys", "manifest", "spare", "wal", "compacted"}
    compare(FormatReader(folder, host.password.encode()), "disk", content)


def test_the_reader_has_nothing_of_this_project() -> None:
    modules = {module.__name__: module for module in (format_reader, format_blocks, format_sealed)}
    imported = {
        name if name in modules else name.split(".")[0]
        for module in modules.values()
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= LIBRARIES | set(sys.stdlib_module_names) | modules.keys()
