"""Whole devices in and out beside others: so many reads are under way, and who fills one leaves others their turn."""

import asyncio

from nbdserver.admin.transfer import READS_AT_ONCE, Filler, dump
from nbdserver.protocol.replies import Piece as ReadPiece
from storage.fetch_times import FetchTimes
from storage.lsm.memtable.gate import Gate
from tests.simulation.virtual import virtually
from tests.support.memory_device import MemoryDevice

MIB = 1 << 20
KIB = 1 << 10


class CountedReads(MemoryDevice):
    """Reads take a second each; how many there are at a time."""

    now = most = 0

    async def read(self, offset: int, length: int, times: FetchTimes | None = None) -> list[ReadPiece]:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(1)
        self.now -= 1
        return await super().read(offset, length, times)


@virtually
async def test_so_many_reads_are_under_way_and_no_more() -> None:
    """Each is in memory: a disk of a terabyte is not."""
    device = CountedReads(64 * MIB)
    for at in range(64):
        device.write(at * MIB, bytes([at + 1]) * MIB)
    pieces = [(offset, bytes(data[:1])) async for offset, data in dump(device, device.size)]
    assert device.most == READS_AT_ONCE
    assert sorted({(offset // MIB, data[0]) for offset, data in pieces}) == [(at, at + 1) for at in range(64)]
    assert [offset for offset, _ in pieces] == sorted(offset for offset, _ in pieces)


@virtually
async def test_who_fills_goes_as_slowly_as_the_store_asks_for() -> None:
    device = MemoryDevice(MIB)
    device.gate.seconds = 10.0
    filler, began = Filler(device), asyncio.get_running_loop().time()
    for _ in range(3):
        await filler.write(0, b"data")
        await filler.zero(4096, 4096)
    assert asyncio.get_running_loop().time() - began == 60.0


@virtually
async def test_who_fills_leaves_others_their_turn() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.ensure_future(others())
    filler = Filler(MemoryDevice(MIB))
    for _ in range(50):
        await filler.write(0, b"data")
        await filler.zero(4096, 4096)
    assert turns >= 90
    beside.cancel()


class RoomInSteps:
    """A gate whose room comes bit by bit, as on a slow link, and what each of its writers wrote."""

    def __init__(self) -> None:
        self.gate = Gate(asyncio.get_running_loop().call_soon)
        self.gate.set(0, full=True)
        self.written = {"filler": 0, "client": 0}
        self._room = 0

    def write(self, who: str, length: int) -> None:
        self.written[who] += length
        self._room -= length
        self.gate.set(0, full=self._room <= 0)

    async def make(self, room: int) -> None:
        self._room = min(self._room, 0) + room
        self.gate.set(0, full=self._room <= 0)
        await asyncio.sleep(0.1)


class Narrow(MemoryDevice):
    """A device behind such a gate."""

    def __init__(self, room: RoomInSteps) -> None:
        super().__init__(MIB)
        self.gate = room.gate  # type: ignore[assignment]
        self._told = room

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        self._told.write("filler", len(data))
        return 0


@virtually
async def test_who_fills_takes_turns_with_clients_where_room_is_scarce() -> None:
    """It writes in large pieces, and to the gate each is one more of the same writer."""
    room = RoomInSteps()

    async def fill() -> None:
        filler = Filler(Narrow(room))
        while True:
            await filler.write(0, bytes(MIB))

    def client() -> None:
        room.write("client", 128 * KIB)
        room.gate.when_open(client, 128 * KIB)

    filling = asyncio.ensure_future(fill())
    room.gate.when_open(client, 128 * KIB)
    for _ in range(100):
        await room.make(512 * KIB)
    assert min(room.written.values()) > 20 * MIB, room.written
    filling.cancel()


@virtually
async def test_who_is_cut_short_at_the_gate_waits_there_no_more() -> None:
    device = MemoryDevice(MIB)
    device.gate.closed = True
    filling = asyncio.ensure_future(Filler(device).write(0, b"data"))
    await asyncio.sleep(0)
    assert device.gate.waiting
    filling.cancel()
    await asyncio.wait({filling})
    assert not device.gate.waiting
