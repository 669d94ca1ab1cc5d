"""What a buffer keeps in memory, and when it is copied out of what it is a view of."""

import numpy
import pytest

from storage.buffers import Buffer, own, own_all, retained_by_all, retained_bytes

KIB = 1024


def payload(size: int) -> memoryview:
    """As a session allocates one for a WRITE."""
    return numpy.zeros(size, numpy.uint8).data


@pytest.mark.parametrize(
    "whole", [bytes(100 * KIB), bytearray(100 * KIB), payload(100 * KIB)], ids=lambda w: str(type(w))
)
def test_a_view_keeps_all_of_what_it_was_cut_from(whole: Buffer) -> None:
    view = memoryview(whole)[4 * KIB : 8 * KIB]
    assert retained_bytes(whole) == retained_bytes(view) == retained_bytes(view[10:20]) == 100 * KIB
    mine = own(view)
    assert mine == view
    assert retained_bytes(mine) == 4 * KIB
    assert own(whole) is whole


def test_a_little_beside_it_is_no_reason_to_copy() -> None:
    behind_a_header = memoryview(bytes(9 + 256 * KIB))[9:]
    assert own(behind_a_header) is behind_a_header
    half = memoryview(bytes(8 * KIB))[: 4 * KIB]
    assert isinstance(own(half), bytes)


def test_what_parts_share_counts_once() -> None:
    whole = payload(64 * KIB)
    sectors: dict[int, Buffer] = {at: whole[at * 4 * KIB : (at + 1) * 4 * KIB] for at in range(16)}
    assert retained_by_all(sectors) == 64 * KIB
    assert own_all(sectors)[3] is sectors[3]
    few: dict[int, Buffer] = {3: sectors[3], 5: bytes(4 * KIB)}
    assert retained_by_all(few) == 68 * KIB
    mine = own_all(few)
    assert mine == few
    assert retained_by_all(mine) == 8 * KIB
    assert mine[5] is few[5]
