"""Whole devices in and out, on a real store in memory."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from nbdserver.admin.content_frames import DATA_BYTES_MAX, Piece
from nbdserver.admin.transfer import Filler, dump, import_device, salvage
from nbdserver.exports import Exports
from nbdserver.protocol.replies import Piece as ReadPiece
from nbdserver.server.listener import Listener
from storage import ExtentState, Store
from storage.errors import Conflict, Corrupt, Invalid, NotFound, StorageError, Unreadable
from storage.fetch_times import FetchTimes
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.fs.devices.device import Device
from tests.support.memory_device import MemoryDevice
from tests.support.nbd import Client, NbdError
from tests.support.waiting import soon, until

MIB = 1 << 20


def source(*pieces: Piece, failing: BaseException | None = None) -> Callable[[int], AsyncIterator[Piece]]:
    async def generate(_: int) -> AsyncIterator[Piece]:
        for piece in pieces:
            yield piece
        if failing is not None:
            raise failing

    return generate


async def content(store: Store, name: str) -> bytes:
    device = store.device(name)
    whole = bytearray(device.size)
    last = 0
    async for offset, data in dump(device, device.size):
        assert last <= offset
        assert 0 < len(data) <= DATA_BYTES_MAX
        last = offset + len(data)
        whole[offset:last] = data
    return bytes(whole)


async def test_a_device_is_made_for_what_is_imported(store: Store) -> None:
    data = os.urandom(3 * MIB)
    pieces = source((MIB, data[:MIB]), (5 * MIB, data[MIB : 2 * MIB]), (7 * MIB + 99, data[:601]))
    answer = await import_device(store, "a/b", pieces, size=7 * MIB + 700, overwrite=False)
    assert answer == {"name": "a/b", "size": 7 * MIB + 1024}
    expected = bytearray(7 * MIB + 1024)
    expected[MIB : 2 * MIB] = data[:MIB]
    expected[5 * MIB : 6 * MIB] = data[MIB : 2 * MIB]
    expected[7 * MIB + 99 : 7 * MIB + 700] = data[:601]
    assert await content(store, "a/b") == expected


def answers_for_little(device: Device) -> None:
    """Its map covers five blocks at most, as that of the engine covers what it can look at in one call."""
    extents = device.extents
    device.extents = lambda offset, length: extents(offset, min(length, 5 * BLOCK_BYTES))


async def test_a_map_that_answers_a_part_is_asked_for_the_rest(store: Store) -> None:
    """The engine looks at so many blocks in one call, and then answers for less than it was asked."""
    data = os.urandom(8 * MIB)
    await import_device(store, "a", source(*((n * MIB, data[n * MIB :][:MIB]) for n in range(8))), size=8 * MIB,
                        overwrite=False)  # fmt: skip
    answers_for_little(store.device("a"))
    assert await content(store, "a") == data


async def test_data_behind_the_first_part_of_a_map_is_not_replaced(store: Store) -> None:
    await store.create_device("a", 8 * MIB)
    store.device("a").zero(0, 7 * MIB, allocated=True)
    store.device("a").write(7 * MIB, b"old")
    answers_for_little(store.device("a"))
    with pytest.raises(Conflict, match="--overwrite"):
        await import_device(store, "a", source((0, b"new")), size=MIB, overwrite=False)


@pytest.mark.parametrize("answer", [[], [(0, ExtentState.DATA)], [(MIB, ExtentState.DATA)]])
async def test_a_map_that_ends_early_ends_the_dump(store: Store, answer: list[tuple[int, ExtentState]]) -> None:
    """What it does not tell would be taken for zeros."""
    await store.create_device("a", 2 * MIB)
    device = store.device("a")
    device.write(0, os.urandom(2 * MIB))
    device.extents = lambda offset, length: answer if not offset else []
    with pytest.raises(StorageError, match="map of the device ends at"):
        await content(store, "a")


async def test_a_device_that_grew_is_dumped_to_where_it_ended(store: Store) -> None:
    await store.create_device("a", MIB)
    device = store.device("a")
    await store.resize_device("a", 2 * MIB)
    device.write(MIB - 512, b"x" * 1024)
    assert [(offset, len(data)) async for offset, data in dump(device, MIB)][-1] == (MIB - 4096, 4096)


async def test_a_device_that_shrinks_ends_its_dump(store: Store) -> None:
    await store.create_device("a", 4 << 30)
    device = store.device("a")
    device.write(0, b"x" * 4096)
    pieces = dump(device, device.size)
    assert await anext(pieces)
    await store.resize_device("a", 2 << 30, shrink=True)
    with pytest.raises(Conflict, match="made smaller"):
        await anext(pieces)


async def test_a_device_that_shrinks_behind_its_last_data_ends_its_dump(store: Store) -> None:
    await store.create_device("a", 64 << 30)
    device = store.device("a")
    with pytest.raises(Conflict, match="made smaller"):
        await asyncio.gather(anext(dump(device, device.size)), store.resize_device("a", 1 << 30, shrink=True))


async def test_holes_are_not_dumped(store: Store) -> None:
    await store.create_device("big", 1 << 40)
    device = store.device("big")
    device.write(700 << 30, b"x" * 4096)
    pieces = [(offset, len(data)) async for offset, data in dump(device, device.size)]
    assert pieces
    assert sum(length for _, length in pieces) <= DATA_BYTES_MAX
    assert all(700 << 30 <= offset < (700 << 30) + DATA_BYTES_MAX for offset, _ in pieces)


async def test_a_device_that_is_there_must_be_large_enough(store: Store) -> None:
    await store.create_device("a", MIB)
    with pytest.raises(Conflict, match="make it larger"):
        await import_device(store, "a", source(), size=MIB + 1, overwrite=False)
    with pytest.raises(Conflict, match="make it larger"):
        await import_device(store, "a", source((MIB - 1, b"xy")), size=None, overwrite=False)
    await import_device(store, "a", source((MIB - 2, b"xy")), size=MIB, overwrite=True)
    assert (await content(store, "a"))[-2:] == b"xy"


async def test_data_that_is_there_is_not_replaced_unasked(store: Store) -> None:
    await import_device(store, "a", source((MIB, b"old" * 1000)), size=4 * MIB, overwrite=False)
    with pytest.raises(Conflict, match="--overwrite"):
        await import_device(store, "a", source((0, b"new")), size=MIB, overwrite=False)
    await import_device(store, "a", source((0, b"new")), size=MIB, overwrite=True)
    assert await content(store, "a") == b"new" + bytes(4 * MIB - 3)


async def test_a_device_of_zeros_counts_as_empty(store: Store) -> None:
    await store.create_device("a", MIB)
    store.device("a").zero(0, MIB, allocated=True)
    await import_device(store, "a", source((0, b"new")), size=MIB, overwrite=False)


async def test_a_pipe_needs_a_device(store: Store) -> None:
    with pytest.raises(Invalid, match="device create"):
        await import_device(store, "a", source((0, b"x")), size=None, overwrite=False)
    assert store.devices() == []


async def test_an_attached_device_is_left_alone(store: Store) -> None:
    await store.create_device("a", MIB)
    store.open_devices.clients_of = lambda name: ["client 1 (somebody)"]
    with pytest.raises(Conflict, match="attached"):
        await import_device(store, "a", source((0, b"x")), size=MIB, overwrite=True)
    store.open_devices.clients_of = lambda name: []
    assert await content(store, "a") == bytes(MIB)


@pytest.mark.parametrize("failing", [ValueError("the source broke"), asyncio.CancelledError()])
async def test_a_device_whose_source_fails_is_gone_again(store: Store, failing: BaseException) -> None:
    with pytest.raises(type(failing)):
        await import_device(store, "a", source((0, b"half"), failing=failing), size=MIB, overwrite=False)
    with pytest.raises(NotFound):
        store.device("a")
    await store.create_device("b", MIB)
    with pytest.raises(type(failing)):
        await import_device(store, "b", source((0, b"half"), failing=failing), size=MIB, overwrite=False)
    assert store.device("b").size == MIB, "it was there before"


@pytest.mark.parametrize("failing", [ValueError("the source broke"), asyncio.CancelledError()])
async def test_a_device_keeps_what_it_held_if_the_source_fails(store: Store, failing: BaseException) -> None:
    """Of what was there nothing is lost, and of what came nothing stays; nor does what was kept for that."""
    await import_device(store, "a", source((MIB, b"old" * 1000)), size=4 * MIB, overwrite=False)
    await store.create_device("empty", MIB)
    before = await content(store, "a")
    for name, overwrite in (("a", True), ("empty", False)):
        with pytest.raises(type(failing)):
            await import_device(store, name, source((0, b"half"), failing=failing), size=MIB, overwrite=overwrite)
    with pytest.raises(Conflict, match="make it larger"):
        await import_device(store, "a", source((0, b"half"), (4 * MIB, b"x")), size=None, overwrite=True)
    assert await content(store, "a") == before
    assert await content(store, "empty") == bytes(MIB)
    assert store.device("a").exclusive_user is None
    await until(lambda: not any(store.device(name).history.snapshots() for name in ("a", "empty")))


async def test_what_was_imported_is_durable(store: Store) -> None:
    """More than goes into one object of the log: the record that all is there is in the first one."""
    megabytes = source(*((number * MIB, os.urandom(MIB)) for number in range(16)))
    await import_device(store, "a", megabytes, size=16 * MIB, overwrite=False)
    assert store.status().unlogged_bytes == 0


async def test_a_dump_that_is_abandoned_leaves_nothing_running(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    megabytes = source(*((n * MIB, b"x" * MIB) for n in range(20)))
    await import_device(store, "a", megabytes, size=20 * MIB, overwrite=False)
    device = store.device("a")
    read = device.read

    async def read_the_first_only(offset: int, length: int) -> list[bytes | bytearray | memoryview | int]:
        if offset:
            await asyncio.Event().wait()
        return await read(offset, length)

    monkeypatch.setattr(device, "read", read_the_first_only)
    before = asyncio.all_tasks()
    pieces = dump(device, device.size)
    await anext(pieces)
    async with asyncio.timeout(10):
        await pieces.aclose()
    await until(lambda: asyncio.all_tasks() <= before)  # those of the store come and go


async def test_nobody_attaches_a_disk_that_is_half_filled(store: Store, work: Path) -> None:
    """What a client would find there is neither the old disk nor the new one."""
    await store.create_device("a", 2 * MIB)
    begun, rest = asyncio.Event(), asyncio.Event()

    async def slow(_: int) -> AsyncIterator[Piece]:
        yield 0, b"1" * MIB
        begun.set()
        await rest.wait()
        yield MIB, b"2" * MIB

    server = Listener(Exports(store.device, store.names))
    await server.listen_unix(work / "socket")
    importing = asyncio.ensure_future(import_device(store, "a", slow, size=2 * MIB, overwrite=False))
    await begun.wait()
    with pytest.raises(NbdError, match="in use by an import"):
        await asyncio.to_thread(Client, work / "socket", "a")
    rest.set()
    await importing
    client = await asyncio.to_thread(Client, work / "socket", "a")
    assert await asyncio.to_thread(client.read, MIB, 4096) == b"2" * 4096
    client.close()
    await server.stop(5)


async def test_nobody_attaches_a_disk_that_is_being_made_for_an_import(store: Store) -> None:
    """Neither while its name is on its way to the log, nor in the turn in which the source fails."""
    exports = Exports(store.device, store.names)
    answers = []

    def ask() -> None:
        found = exports.find("new")
        answers.append(None if found is None else exports.refusal(found))

    async def failing(_: int) -> AsyncIterator[Piece]:
        yield 0, b"1" * MIB
        asyncio.get_running_loop().call_soon(ask)
        raise RuntimeError("the source broke")

    importing = asyncio.ensure_future(import_device(store, "new", failing, size=MIB, overwrite=False))
    await asyncio.sleep(0)
    ask()
    with pytest.raises(RuntimeError):
        await importing
    assert answers == ["new is in use by an import: attach when that is done", None]
    assert store.names() == ()


async def test_a_disk_that_is_half_filled_is_not_dumped(store: Store) -> None:
    """Whoever has it copied would have half of one content and half of the other."""
    async with store.filling.new("a", MIB, "an import") as device:
        device.write(0, b"half")
        with pytest.raises(Conflict, match="in use by an import: export it when that is done"):
            await anext(dump(device, MIB))
    assert (await content(store, "a"))[:4] == b"half"


async def test_what_is_filled_waits_like_any_client() -> None:
    """A source may be faster than the store for hours, and what it gives is in memory until that has it."""
    device = MemoryDevice(MIB)
    filler = Filler(device)
    works = [(filler.write(0, b"data"), True), (filler.zero(4096, 4096), True), (filler.write(0, b"x"), False)]
    for work, given_up in works:
        device.gate.closed = True
        filling = asyncio.ensure_future(work)
        await until(lambda: len(device.gate.waiting) == 1)
        assert device.last_sequence == 0
        if given_up:
            filling.cancel()
            await asyncio.wait({filling})
        else:
            device.gate.open()
            await soon(filling)
        assert not device.gate.waiting
    assert device.last_sequence == 1
    assert device.contents(0, 1) == b"x"


class BadSectors(MemoryDevice):
    """Some of its sectors cannot be read, nor can a range that has one of them."""

    def __init__(self, size: int, bad: set[int], error: StorageError) -> None:
        super().__init__(size)
        self._bad = bad
        self._error = error

    async def read(self, offset: int, length: int, times: FetchTimes | None = None) -> list[ReadPiece]:
        if any(offset // SECTOR_BYTES <= sector <= (offset + length - 1) // SECTOR_BYTES for sector in self._bad):
            raise self._error
        return await super().read(offset, length, times)


@pytest.mark.parametrize("error", [Corrupt("an object", "damaged"), Unreadable("it is withheld")], ids=["bad", "held"])
async def test_all_but_bad_sectors_is_salvaged(error: StorageError) -> None:
    bad = {0, 70, 71, 500}
    device = BadSectors(3 * MIB, bad, error)
    want = random.Random(1).randbytes(5 * SECTOR_BYTES)
    device.write(MIB, want)
    for sector in bad:
        device.write(sector * SECTOR_BYTES, bytes(SECTOR_BYTES))
    device.write(SECTOR_BYTES, want[:SECTOR_BYTES])
    found = [part async for part in salvage(device, 3 * MIB)]
    assert [offset for offset, _ in found] == sorted(offset for offset, _ in found)
    lost = {(offset, part) for offset, part in found if isinstance(part, int)}
    assert lost == {(sector * SECTOR_BYTES, SECTOR_BYTES) for sector in bad}
    data = bytearray(3 * MIB)
    for offset, part in found:
        if not isinstance(part, int):
            data[offset : offset + len(part)] = part
    assert data[MIB : MIB + len(want)] == want
    assert data[SECTOR_BYTES : 2 * SECTOR_BYTES] == want[:SECTOR_BYTES]
