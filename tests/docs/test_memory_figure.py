"""The memory that the page says to leave is no less than what the parts of a server may take together."""

import re
from pathlib import Path

from nbdserver.server.limits import Limits
from nbdserver.service.tuning import TRIM_BYTES
from storage.lsm.options import EngineOptions, MaintenanceOptions
from storage.units import GIB, MIB

PAGE = " ".join((Path(__file__).resolve().parents[2] / "docs/durability.md").read_text().split())

ENGINE, LIMITS = EngineOptions(), Limits()

PARTS = {
    "cache": ENGINE.cache_bytes,
    "requests": LIMITS.memory_bytes + LIMITS.connections * LIMITS.reply_bytes,
    "memtables": ENGINE.memtable_bytes_max,
    "journal": ENGINE.unlogged_bytes_max,
    "job of maintenance": 2 * MaintenanceOptions().job_bytes_max,
    "allocator": TRIM_BYTES,
}
"""Beside the objects on their way, and the program: 64 and 100 MiB, which are nobody's constants."""

OTHERS = 164 * MIB


def test_the_figure_has_room_for_all() -> None:
    told = re.search(r"Leave it room: (\d+) GiB", PAGE)
    assert told
    assert int(told[1]) * GIB >= sum(PARTS.values()) + OTHERS


def test_the_sum_is_told_with_the_parts_as_they_are() -> None:
    told = PAGE.partition("The figure is the sum")[2].partition("of the program")[0]
    sizes = [int(number) for number in re.findall(r"(\d+) MiB", told)]
    assert sizes == [*(size // MIB for size in PARTS.values()), 64, 100]
