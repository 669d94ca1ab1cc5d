"""What data rests on is checked in every interpreter: `python -O` takes asserts away, and must take away nothing."""

import subprocess
import sys
from pathlib import Path

from storage.errors import BrokenInvariant

ROOT = Path(__file__).parents[2]

PREPARED = """
from msgspec.structs import replace
from storage.errors import BrokenInvariant
from storage.format.blocks import HOLE, SstRef, sector_range
from storage.format.envelope import Header, ObjectKind
from storage.format.manifest import EMPTY, check_successor
from storage.lsm.flush.flush_plan import plan
from storage.lsm.memtable.backpressure import Pressure
from storage.lsm.memtable.gate import Gate
from storage.lsm.memtable.memtable import BlockEntry, Memtable, overlay
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.read.extents import extents
from storage.lsm.sst.bulk import snapshot

OLD = replace(EMPTY, epoch=3, replay=40, fences=[5, 30])

def part_of_a_sector():
    memtable = Memtable()
    memtable.layer(1).entry(0).link_extent(0, 5, b"piece")
    return memtable

assert False, "this line is not there under -O"
"""

STATEMENTS = {
    "a replay point that goes backwards": "check_successor(OLD, replace(OLD, replay=39))",
    "a dropped fence": "check_successor(OLD, replace(OLD, fences=[5]))",
    "a flush of what is not whole": "plan(part_of_a_sector(), full_sectors_min=32)",
    "bulk of a block that is not whole": "snapshot(0, BlockEntry())",
    "a sector of another length": "overlay(bytes(4095), [])",
    "memory given back of no memtable": (
        "limits = dict(unlogged_max=9, memtable_max=9, log_objects_max=9, log_bytes_max=9); "
        "WriteState(sequence=0, pressure=Pressure(Gate(print), **limits)).release(1, sealed=True)"
    ),
    "a nonce of another length": "Header(ObjectKind.WAL, 1, bytes(16), bytes(15)).encode()",
    "sectors behind a block": "sector_range(0, 65)",
}


def test_without_asserts_they_are_refused_all_the_same() -> None:
    tries = "".join(
        f"try:\n    {statement}\nexcept BrokenInvariant:\n    print({name!r})\n"
        for name, statement in STATEMENTS.items()
    )
    done = subprocess.run(
        [sys.executable, "-O", "-c", PREPARED + tries],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.splitlines() == list(STATEMENTS), done.stderr


def test_it_is_no_error_that_anybody_handles() -> None:
    """Neither damage nor the world: whoever meets it stops, as at any mistake in this program."""
    assert BrokenInvariant.__mro__[1] is Exception
