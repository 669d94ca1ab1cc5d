"""The budget that all clients share."""

import pytest

from nbdserver.limits import Budget


def test_what_is_taken_is_bounded() -> None:
    budget = Budget(100)
    assert budget.take(60)
    assert not budget.take(41)
    assert budget.take(40)
    budget.give(100)
    assert budget.taken == 0


def test_who_waits_is_told_once_and_in_order() -> None:
    budget = Budget(10)
    told: list[int] = []

    def again(number: int) -> None:
        told.append(number)
        if not budget.take(10):
            budget.when_free(lambda: again(number))

    assert budget.take(10)
    for number in (1, 2, 3):
        budget.when_free(lambda number=number: again(number))  # type: ignore[misc]
    budget.give(10)
    assert told == [1, 2, 3]
    budget.give(10)
    assert told == [1, 2, 3, 2, 3]


def test_giving_back_too_much_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        Budget(10).give(1)
