"""What a journal holds beyond the log: decided for each queue, and nothing missing in between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import Corrupt
from storage.format.journal_batch import JournalEntry
from storage.format.wal import TREE, Meta
from storage.journal.unlogged import beyond_log

LAYERS = (TREE, 1, 2)

order = st.lists(st.sampled_from(LAYERS), max_size=20)
"""Whose turn it was, operation by operation."""


def history(turns: list[int]) -> list[JournalEntry]:
    newest = dict.fromkeys(LAYERS, 0)
    made = []
    for sequence, layer in enumerate(turns, 1):
        op = Meta(sequence, b"record") if layer == TREE else (sequence, 0, b"data")
        made.append(JournalEntry(layer, newest[layer], op))
        newest[layer] = sequence
    return made


def some_of_each(turns: list[int], chance: st.DataObject) -> dict[int, int]:
    """For each layer an operation of it, or 0: how far the log has it."""
    return {
        layer: chance.draw(st.sampled_from([0, *(at for at, turn in enumerate(turns, 1) if turn == layer)]))
        for layer in LAYERS
    }


@given(order, st.data())
def test_each_operation_is_in_the_log_or_taken_and_never_both(turns: list[int], chance: st.DataObject) -> None:
    entries, logged = history(turns), some_of_each(turns, chance)
    taken = beyond_log(entries, lambda layer: logged[layer])
    assert taken == [entry for entry in entries if entry.sequence > logged[entry.layer]]


@given(order.filter(bool), st.data())
def test_one_that_is_missing_is_noticed(turns: list[int], chance: st.DataObject) -> None:
    entries, logged = history(turns), some_of_each(turns, chance)
    gone = chance.draw(st.sampled_from(entries))
    left = [entry for entry in entries if entry is not gone]
    needed = gone.sequence > logged[gone.layer]
    followed = any(entry.layer == gone.layer and entry.sequence > gone.sequence for entry in left)
    if needed and followed:
        with pytest.raises(Corrupt):
            beyond_log(left, lambda layer: logged[layer])
    else:
        assert gone not in beyond_log(left, lambda layer: logged[layer])


@given(order, st.data())
def test_what_a_first_try_got_into_the_log_is_not_taken_again(turns: list[int], chance: st.DataObject) -> None:
    entries, logged = history(turns), some_of_each(turns, chance)
    first = beyond_log(entries, lambda layer: logged[layer])
    for entry in first[: chance.draw(st.integers(0, len(first)))]:
        logged[entry.layer] = entry.sequence
    second = beyond_log(entries, lambda layer: logged[layer])
    assert second == [entry for entry in first if entry.sequence > logged[entry.layer]]


def test_a_layer_that_is_not_there_asks_for_nothing() -> None:
    dropped = [JournalEntry(9, 55, (60, 0, b"x")), JournalEntry(9, 60, (61, 0, b"x"))]
    assert beyond_log(dropped, lambda layer: None) == dropped


def test_what_the_log_has_dropped_is_passed_over_though_parts_of_it_are_missing() -> None:
    """The journal lets go of each segment for itself: of a layer whose end the log has, what lies in one may be gone,
    and what was written before and behind that still there.
    """
    op = 0, b"data"
    entries = [
        JournalEntry(3, 5, (6, *op)),
        JournalEntry(3, 7, (8, *op)),  # 7 lay in a segment that is not there any more
        JournalEntry(TREE, 4, Meta(9, b"layer 3 goes")),
        JournalEntry(TREE, 9, Meta(10, b"layer 4 is made")),
        JournalEntry(4, 10, (11, *op)),
    ]
    assert beyond_log(entries, {TREE: 10, 3: None, 4: 10}.__getitem__) == entries[4:]
    assert beyond_log(entries, {TREE: 9, 3: None, 4: None}.__getitem__) == entries[3:], "the log has not made layer 4"


def test_a_part_that_is_missing_of_a_layer_which_the_log_has_not_made_is_noticed() -> None:
    op = 0, b"data"
    entries = [
        JournalEntry(TREE, 4, Meta(9, b"layer 4 is made")),
        JournalEntry(4, 9, (10, *op)),
        JournalEntry(4, 11, (12, *op)),
    ]
    with pytest.raises(Corrupt, match="operation 11 of layer 4"):
        beyond_log(entries, {TREE: 4, 4: None}.__getitem__)
