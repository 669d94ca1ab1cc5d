"""When a memtable is flushed: the trigger, with a log and a memtable of all sizes."""

import asyncio

import pytest

from storage.format.blocks import SstRef
from storage.format.envelope import NO_LINK
from storage.lsm.flush.trigger import FlushTrigger
from storage.lsm.memtable.memtable import Memtable
from storage.lsm.options import EngineOptions
from storage.lsm.wal.position import LoggedObject, LogPosition
from storage.units import MIB

OPTIONS = EngineOptions(flush_bytes=1000, flush_objects=3, flush_uploaded_bytes=10 * MIB, flush_seconds=3600.0)


def memtable(size: int, kept: int = 0) -> Memtable:
    made = Memtable()
    made.bytes, made.kept_bytes = size, kept
    return made


def uploaded(*sizes: int) -> Memtable:
    made = Memtable()
    made.ssts = [SstRef(str(number), size, 1, bytes(16), 1) for number, size in enumerate(sizes)]
    return made


def log(objects: int, size: int = 1) -> LogPosition:
    position = LogPosition(next_number=1, tail_tag=NO_LINK, acknowledged=0)
    for number in range(1, objects + 1):
        position.add(LoggedObject(number, size, NO_LINK))
    return position


async def is_pulled(trigger: FlushTrigger) -> bool:
    """Whether it is time now."""
    task = asyncio.ensure_future(trigger.wait())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    done = task.done()
    task.cancel()
    return done


@pytest.mark.parametrize(
    ("position", "written", "due"),
    [
        (log(0), memtable(0), False),
        (log(2), memtable(999), False),
        (log(0), memtable(1000), True),
        (log(3), memtable(1), True),
        (log(1, OPTIONS.log_bytes_max // 4), memtable(1), True),
        (log(1, OPTIONS.log_bytes_max // 4 - 1), memtable(1), False),
        # What is kept comes back with every flush: it asks for none.
        (log(3), memtable(5000, kept=5000), False),
        (log(1, OPTIONS.log_bytes_max // 4 + 4999), memtable(5000, kept=5000), False),
        (log(1, OPTIONS.log_bytes_max // 4 + 5000), memtable(5000, kept=5000), True),
        (log(0), memtable(6000, kept=5000), True),
        (log(0), uploaded(5 * MIB, 4 * MIB - 1, 1), False),
        (log(0), uploaded(5 * MIB, 4 * MIB, 1), True),
    ],
)
async def test_it_is_time_when_log_or_memtable_are_long(position: LogPosition, written: Memtable, due: bool) -> None:
    trigger = FlushTrigger(OPTIONS)
    trigger.log_moved(position, written)
    assert await is_pulled(trigger) == due


async def test_it_counts_from_the_beginning_afterwards() -> None:
    trigger = FlushTrigger(OPTIONS)
    trigger.pull()
    assert await is_pulled(trigger)
    assert not await is_pulled(trigger)


async def test_it_is_time_when_the_seconds_have_passed() -> None:
    async with asyncio.timeout(20):
        await FlushTrigger(EngineOptions(flush_seconds=0.001)).wait()
