"""What is remembered of slow operations: the newest, the slowest, and never more."""

import random

from nbdserver.slow_operations import NEWEST_MAX, SLOWEST_MAX, SlowOperation, SlowOperations


def operation(seconds: float) -> SlowOperation:
    return SlowOperation(1e9, 1, "a client", "disk", "flush", 0, 0, seconds, {"log": seconds}, "done")


def test_the_newest_and_the_slowest() -> None:
    slow, chance = SlowOperations(), random.Random(1)
    took = [chance.uniform(0.1, 60) for _ in range(2000)]
    for seconds in took:
        slow.add(operation(seconds))
    found = slow.remembered()
    numbers = [each.number for each in found]
    assert numbers == sorted(set(numbers))
    assert slow.last == numbers[-1] == len(took)
    assert {each.seconds for each in found} == {*took[-NEWEST_MAX:], *sorted(took)[-SLOWEST_MAX:]}
    assert all(took[each.number - 1] == each.seconds for each in found)


def test_those_after_a_number() -> None:
    slow = SlowOperations()
    assert not slow.remembered()
    for _ in range(5):
        slow.add(operation(1))
    assert [each.number for each in slow.remembered(3)] == [4, 5]
    assert slow.remembered(5) == []
