"""What an index says of its object: a row, a name, a byte or an operation that does not fit is said."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from ulid import ULID

from storage.check.layout import sst_misfits
from storage.env import RealEnv, object_id
from storage.format.blocks import EntryKind, RangeZero, SstEntry, SstRef
from storage.format.envelope import HEADER_BYTES, Header, ObjectKind
from storage.format.frame import FULL_MASK
from storage.format.sst import Moved, SstIndex, decode_index, encode_index

SEQUENCE = 20
NAME, OTHER = (object_id(RealEnv(), 1) for _ in range(2))

FULL = SstEntry(1, 0, EntryKind.FULL, FULL_MASK, 10, HEADER_BYTES, 1000)
PATCH = SstEntry(1, 1, EntryKind.PATCH, 5, 11, HEADER_BYTES + 1000, 50)
ZERO = SstEntry(1, 2, EntryKind.ZERO, FULL_MASK, 12)
ZEROS = RangeZero(1, 5, 9, 13, False)
END = HEADER_BYTES + 1050
BOTH_MOVED = [Moved(OTHER, 500, FULL.offset), Moved(OTHER, 2000, PATCH.offset)]


def index(
    entries: list[SstEntry] | None = None, ranges: list[RangeZero] | None = None, moved: list[Moved] | None = None
) -> SstIndex:
    written = [FULL, PATCH, ZERO] if entries is None else entries
    return decode_index(encode_index(written, [ZEROS] if ranges is None else ranges, moved or []))


def misfits(found: SstIndex, *, rows: int = 4, name: str = NAME, end: int = END) -> list[str]:
    """Of an SST of that name, whose frames end there."""
    header = Header(ObjectKind.DATA, 1, bytes(16), bytes(16), link=ULID.from_str(name).bytes)
    return list(sst_misfits(SstRef(NAME, end + 500, end, bytes(16), rows), header, found, sequence=SEQUENCE))


def test_what_fits_is_not_said() -> None:
    assert misfits(index()) == []
    assert misfits(index([FULL, PATCH], [], BOTH_MOVED), rows=2) == []
    assert misfits(index([], []), rows=0, end=HEADER_BYTES) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda: misfits(index(), rows=5), "its index has 4 rows"),
        (lambda: misfits(index(), name=OTHER), "another name"),
        (lambda: misfits(index([replace(FULL, sequence=SEQUENCE + 1), PATCH, ZERO])), "it holds operation 21"),
        (lambda: misfits(index(ranges=[replace(ZEROS, sequence=SEQUENCE + 1)])), "it holds operation 21"),
        (lambda: misfits(index(ranges=[replace(ZEROS, end=5)])), "ends before it begins"),
        (lambda: misfits(index([replace(FULL, mask=FULL_MASK - 1), PATCH, ZERO])), "a mask that cannot be"),
        (lambda: misfits(index([FULL, replace(PATCH, mask=0), ZERO])), "a mask that cannot be"),
        (lambda: misfits(index([FULL, PATCH, replace(ZERO, length=1)])), "an entry of zeros has a frame"),
        (lambda: misfits(index([FULL, PATCH, replace(ZERO, offset=FULL.offset)])), "an entry of zeros has a frame"),
        (lambda: misfits(index([FULL, replace(PATCH, offset=PATCH.offset + 1), ZERO])), "says nothing, or two things"),
        (lambda: misfits(index([FULL, replace(PATCH, offset=PATCH.offset - 1), ZERO])), "says nothing, or two things"),
        (lambda: misfits(index(), end=END + 1), "says nothing, or two things"),
        (lambda: misfits(index([FULL, PATCH], [], BOTH_MOVED[:1]), rows=2), "not those that it says were moved"),
        (lambda: misfits(index([FULL, PATCH], moved=BOTH_MOVED), rows=3), "not those that it says were moved"),
    ],
)
def test_what_does_not_fit_is_said(found: Callable[[], list[str]], said: str) -> None:
    (sentence,) = found()
    assert said in sentence
