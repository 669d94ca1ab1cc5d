"""Whole devices in and out beside others: so many reads are under way, and who fills one leaves others their turn."""

import asyncio

from nbdserver.admin.transfer import READS_AT_ONCE, Filler, dump
from nbdserver.protocol.replies import Piece as ReadPiece
from storage.fetch_times import FetchTimes
from tests.simulation.virtual import virtually
from tests.support.memory_device import MemoryDevice

MIB = 1 << 20


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
