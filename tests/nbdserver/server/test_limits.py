"""The budget that all clients share."""

import pytest

from nbdserver.server.limits import Allowance, Budget, Limits, share_of_one_address


def test_what_is_taken_is_bounded() -> None:
    budget = Budget(100)
    assert budget.take(60)
    assert not budget.take(41)
    assert budget.take(40)
    budget.give(100)
    assert budget.taken == 0


def test_something_is_left_for_others_whatever_the_limit() -> None:
    """Seen: with --max-connections 50 one address could have all of them."""
    assert share_of_one_address(Limits().connections) == Limits().connections_per_address
    for connections in (2, 5, 50, 1000):
        assert 0 < share_of_one_address(connections) < connections


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


def test_the_reserve_is_for_one_that_looks_ahead_at_a_time() -> None:
    """Together they would each take a part of it, and none enough."""
    budget = Budget(150, reserve=40)
    limits = Limits(reply_bytes=10, inflight_bytes=50)
    told: list[int] = []
    first, second = (Allowance(limits, budget, lambda number=number: told.append(number)) for number in range(2))  # type: ignore[misc]
    assert first.take(50)
    assert second.take(50)
    assert budget.taken == 80
    assert not first.take(35), "its own limit"
    first.look_ahead(30)
    second.look_ahead(30)
    assert first.take(35), "the last request may begin within what is allowed"
    assert not second.take(36), "not while the other may take the reserve"
    assert not first.take(40), "and no more than the reserve"
    first.look_ahead(0)
    assert told
    assert not second.take(36), "it is still taken"
    first.close()
    assert second.take(36)
    second.close()
    assert budget.taken == 0
    assert budget.looking_ahead is None


def test_who_looks_ahead_again_may_take_as_much_again() -> None:
    """What it still has of the last time is no reason to see nothing of what comes."""
    limits = Limits(reply_bytes=10, inflight_bytes=50)
    allowance = Allowance(limits, Budget(1000), lambda: None)
    allowance.look_ahead(30)
    assert allowance.take(80)
    allowance.look_ahead(0)
    assert not allowance.take(1)
    allowance.look_ahead(30)
    assert allowance.take(30)
    assert allowance.take(1), "the last request may begin within what is allowed"
    assert not allowance.take(1)
    allowance.close()


def test_what_was_not_taken_cannot_be_given_back() -> None:
    """It would make room that is not there, also without assertions (python -O)."""
    budget = Budget(10)
    assert budget.take(4)
    with pytest.raises(RuntimeError, match="5 bytes are given back to a budget of which 4 are taken"):
        budget.give(5)
    assert budget.taken == 4
