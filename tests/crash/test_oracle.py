"""The oracle itself: it accepts what the promise allows and names everything else."""

import numpy as np
import pytest

from tests.crash.history import Lane, Lost, Operation, check, zeros
from tests.crash.stamps import SECTOR_BYTES, ZEROS, Damaged, decode, encode


def lane(*writes: tuple[int, int, int], floor: int = 0, first: int = 0, connections: int = 1) -> Lane:
    """A lane of 16 sectors with (first, count, value) written in this order."""
    after = (0,) * connections
    operations = [Operation(*write, after) for write in writes]
    return Lane(first, zeros(16), operations, floor=floor)


def test_stamps_come_back() -> None:
    data = bytearray(encode(device=3, number=9, first=100, count=4)) + bytearray(SECTOR_BYTES)
    assert decode(data, device=3, first=100).tolist() == [9, 9, 9, 9, ZEROS]


@pytest.mark.parametrize("byte", [0, 9, 17, 25, 33, 41, 300, 511])
def test_one_bit_is_seen(byte: int) -> None:
    data = bytearray(encode(device=3, number=9, first=100, count=1))
    data[byte] ^= 1
    with pytest.raises(Damaged):
        decode(data, device=3, first=100)


def test_a_torn_and_a_displaced_sector_are_seen() -> None:
    older = encode(device=3, number=8, first=100, count=1)
    newer = encode(device=3, number=9, first=100, count=1)
    with pytest.raises(Damaged):
        decode(newer[:256] + older[256:], device=3, first=100)
    with pytest.raises(Damaged):
        decode(newer, device=3, first=101)
    with pytest.raises(Damaged):
        decode(newer, device=4, first=100)


def test_every_prefix_from_the_floor_on_is_allowed() -> None:
    history = lane((0, 4, 1), (2, 4, 2), (0, 1, ZEROS), floor=1)
    state = zeros(16)
    with pytest.raises(Lost):
        check([history], [state.copy()])
    for length, (first, count, value) in enumerate([(0, 4, 1), (2, 4, 2), (0, 1, ZEROS)], 1):
        state[first : first + count] = value
        assert check([history], [state.copy()]) == [length]


def test_a_hole_in_the_order_is_seen() -> None:
    history = lane((0, 4, 1), (8, 4, 2))
    state = zeros(16)
    state[8:12] = 2  # the later write without the earlier
    with pytest.raises(Lost):
        check([history], [state])


def test_half_a_write_is_seen() -> None:
    state = zeros(16)
    state[0:2] = 1
    with pytest.raises(Lost):
        check([lane((0, 4, 1))], [state])


def test_a_trim_that_came_back_is_seen() -> None:
    history = lane((0, 4, 1), (0, 4, ZEROS), floor=2)
    state = zeros(16)
    state[0:4] = 1
    with pytest.raises(Lost):
        check([history], [state])


def test_order_between_connections() -> None:
    first = Lane(0, zeros(16), [Operation(0, 1, 1, (0, 0))])
    second = Lane(16, zeros(16), [Operation(16, 1, 2, (1, 0))])  # sent after the other had completed
    without, with_first, with_second = zeros(16), zeros(16), zeros(16)
    with_first[0], with_second[0] = 1, 2
    assert check([first, second], [with_first, with_second]) == [1, 1]
    assert check([first, second], [with_first, without]) == [1, 0]
    with pytest.raises(Lost):
        check([first, second], [without, with_second])


def test_the_longer_of_two_equal_states_is_found_when_the_order_needs_it() -> None:
    # The first lane's second write changes nothing to be seen, yet the other lane's write came after it.
    first = Lane(0, zeros(16), [Operation(0, 1, 1, (0, 0)), Operation(4, 1, ZEROS, (1, 0))])
    second = Lane(16, zeros(16), [Operation(16, 1, 2, (2, 0))])
    seen_first, seen_second = zeros(16), zeros(16)
    seen_first[0], seen_second[0] = 1, 2
    assert check([first, second], [seen_first, seen_second]) == [2, 1]
    assert np.count_nonzero(seen_first) == 1
