"""The memtable flush beside an object that is withheld: it does without, and what is kept over it is bounded."""

import asyncio

import pytest

from storage.errors import StorageError, Unreadable
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.sst.fetch import FLUSH_SECONDS_MAX
from storage.lsm.sst.frame_reader import ATTEMPT_SECONDS_MAX
from tests.storage.lsm.read.withheld import BAD, BLOCKS, DENIED, EIO, GOOD, Withheld, now, played
from tests.storage.lsm.worlds import durable, join


@pytest.mark.parametrize("error", [EIO, DENIED, None], ids=["EIO", "denied", "hangs"])
def test_a_flush_does_without_what_is_withheld(error: StorageError | None) -> None:
    """Pieces over it stay in the log, others are durable, the log does not grow, and the end comes."""

    async def case(there: Withheld) -> None:
        engine = there.engine
        there.layer.write(100, b"piece")
        there.other.write(100, b"fine")
        began = now()
        await engine.flush_memtable()
        assert now() - began <= ATTEMPT_SECONDS_MAX + FLUSH_SECONDS_MAX + 2
        assert there.engine.writes.memtable.kept_bytes or engine.report().flushing
        for _ in range(20):
            there.other.write(8 * SECTOR_BYTES, b"w" * SECTOR_BYTES)
            began = now()
            await engine.flush_memtable()
            assert now() - began <= 3, "a flush waits for no object that is known to be withheld"
            assert len(engine.log.position.objects) <= 2
        assert len(there.store.names("wal/")) < 15
        assert join(await there.other.read(96, 12)) == GOOD[96:100] + b"fine" + GOOD[104:108]
        began = now()
        await engine.close()
        assert now() - began <= 3
        assert there.store.names("wal/"), "the piece is in the log"
        there.store.denials.clear()
        there.store.holds.clear()
        await there.reopen()
        assert join(await there.layer.read(96, 12)) == BAD[96:100] + b"piece" + BAD[105:108]
        await there.engine.flush_memtable()
        assert not there.engine.writes.memtable
        await there.reopen()
        assert join(await there.layer.read(96, 12)) == BAD[96:100] + b"piece" + BAD[105:108]

    played(case, error)


def test_a_flush_waits_while_the_whole_store_is_away() -> None:
    async def case(there: Withheld) -> None:
        there.layer.write(100, b"piece")
        await durable(there.engine, there.layer)
        there.store.deny("get", "", EIO)
        flushing = asyncio.ensure_future(there.engine.flush_memtable())
        await asyncio.sleep(600)
        assert not flushing.done()
        there.store.denials.clear()
        await asyncio.wait_for(flushing, 15)
        assert not there.engine.writes.memtable.kept_bytes

    played(case)


def test_what_is_kept_over_a_withheld_object_is_bounded() -> None:
    """Beyond that only whole sectors are taken, of that disk; what was taken stays, through flush and restart."""

    async def case(there: Withheld) -> None:
        for sector in range(200):
            there.layer.write(sector * SECTOR_BYTES + 100, b"piece")
        await there.engine.flush_memtable()
        assert there.layer.kept_bytes >= 200 * SECTOR_BYTES
        before = there.engine.writes.sequence
        with pytest.raises(Unreadable, match="whole sectors"):
            there.layer.write(300 * SECTOR_BYTES + 1, b"x")
        for offset, length in ((1, 7), (0, 7), (1, SECTOR_BYTES)):
            with pytest.raises(Unreadable, match="whole sectors"):
                there.layer.write(300 * SECTOR_BYTES + offset, bytes(length))
            with pytest.raises(Unreadable, match="whole sectors"):
                there.layer.zero(300 * SECTOR_BYTES + offset, length, allocated=False)
        assert there.engine.writes.sequence == before
        there.other.write(1, b"x")
        there.layer.write(300 * SECTOR_BYTES, b"w" * SECTOR_BYTES)
        for _ in range(3):
            await there.engine.flush_memtable()
        there.layer.write(0, bytes(BLOCK_BYTES))  # which takes the place of 64 of them
        there.layer.write(BLOCK_BYTES, bytes(BLOCK_BYTES))
        await there.engine.flush_memtable()
        there.layer.write(301 * SECTOR_BYTES + 1, b"x")
        there.store.denials.clear()
        await there.engine.flush_memtable()
        await there.reopen()
        assert join(await there.layer.read(150 * SECTOR_BYTES + 99, 7)) == BAD[3:4] + b"piece" + BAD[1:2]

    played(case, kept_bytes_max=100 * SECTOR_BYTES)


def test_what_is_kept_is_bounded_while_a_flush_looks_at_it_again() -> None:
    """Else each flush would let more in, and none of it counts against the limits of memory."""

    async def case(there: Withheld) -> None:
        for sector in range(200):
            there.layer.write(sector * SECTOR_BYTES + 100, b"piece")
        await there.engine.flush_memtable()
        await there.engine.flush_memtable()
        kept = there.layer.kept_bytes
        assert kept >= 200 * SECTOR_BYTES
        flushing = asyncio.ensure_future(there.engine.flush_memtable())
        while not flushing.done():
            with pytest.raises(Unreadable, match="whole sectors"):
                there.layer.write(300 * SECTOR_BYTES + 1, b"x")
            await asyncio.sleep(0.1)
        assert there.layer.kept_bytes == kept
        # What is read again bounds nobody any more.
        for held in there.store.holds:
            held.release()
        await there.engine.flush_memtable()
        await there.engine.flush_memtable()
        assert there.layer.kept_bytes == 0
        there.layer.write(300 * SECTOR_BYTES + 1, b"x")

    played(case, None, kept_bytes_max=100 * SECTOR_BYTES)


@pytest.mark.parametrize("error", [EIO, None], ids=["EIO", "hangs"])
def test_a_flush_waits_for_a_withheld_object_once_however_much_is_kept_over_it(error: StorageError | None) -> None:
    """Else writers of all disks would stand still meanwhile: two minutes at the most that is kept."""

    async def case(there: Withheld) -> None:
        for sector in range(BLOCKS * BLOCK_BYTES // SECTOR_BYTES):
            there.layer.write(sector * SECTOR_BYTES + 100, b"piece")
        for _ in range(2):
            await there.engine.flush_memtable()
        kept, began = there.layer.kept_bytes, now()
        await there.engine.flush_memtable()
        assert now() - began <= 2
        assert there.layer.kept_bytes == kept > 0
        there.store.denials.clear()
        for held in there.store.holds:
            held.release()
        await there.engine.flush_memtable()
        await there.engine.flush_memtable()
        assert not there.engine.writes.memtable.kept_bytes, "it is asked for once in each flush"

    played(case, error)
