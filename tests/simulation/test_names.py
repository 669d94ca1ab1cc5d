"""The operator's own idea of the tree of names, with which the engine's is compared."""

import pytest

from tests.simulation.disk_history import Disk, Image, Op, Violation
from tests.simulation.names import Change, after, cut_off
from tests.simulation.oracle import Session

BEFORE = {"alpha": (1, 1000), "beta": (2, 500)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change("create", "c", size=7), BEFORE | {"c": (3, 7)}),
        (Change("resize", "beta", size=9), BEFORE | {"beta": (2, 9)}),
        (Change("rename", "alpha", new="c"), {"c": (1, 1000), "beta": (2, 500)}),
        (Change("delete", "alpha"), {"beta": (2, 500)}),
    ],
    ids=str,
)
def test_a_change_is_what_it_says(change: Change, expected: dict[str, tuple[int, int]]) -> None:
    assert after(BEFORE, change, expected, known={1, 2}) == expected


def test_a_new_device_does_not_get_a_layer_that_was_there_before() -> None:
    shown = BEFORE | {"c": (2, 7)}
    assert after(BEFORE, Change("create", "c", size=7), shown, known={1, 2}) != shown


def test_what_a_smaller_device_lost_is_what_lies_between_its_sizes() -> None:
    assert cut_off(BEFORE, {"a new name": (1, 400), "beta": (2, 600)}) == {1: (400, 600)}


def session() -> Session:
    disk = Disk(1, Image())
    disk.add(Op(0, 1000, b"x" * 1000))
    return Session("server1", 1, None, {}, 0, [{"alpha": (1, 1000)}], {1: disk})


def test_a_shrink_zeroes_what_the_sizes_say() -> None:
    one = session()
    one.tree_changed(Change("resize", "alpha", size=400), {"alpha": (1, 400)}, sequence=5)
    assert one.disks[1].live.read(0, 1000) == b"x" * 400 + bytes(600)


def test_a_tree_that_shows_anything_else_is_a_violation() -> None:
    with pytest.raises(Violation, match="instead of"):
        session().tree_changed(Change("resize", "alpha", size=400), {"alpha": (1, 401)}, sequence=5)
    with pytest.raises(Violation, match="instead of"):
        session().tree_changed(Change("delete", "alpha"), {"alpha": (1, 1000)}, sequence=5)


def test_what_memory_takes_for_durable_is_counted_in_operations() -> None:
    disk = Disk(1, Image())
    for sequence in (3, 7, None, 9):
        disk.add(Op(0, 10, b"y" * 10), sequence)
    assert [disk.admitted(sequence) for sequence in (0, 3, 6, 7, 8, 9, 100)] == [0, 1, 1, 2, 2, 4, 4]
