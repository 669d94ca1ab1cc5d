"""In the order of a run with several workers every test comes once, and none that takes long comes last."""

from itertools import groupby, pairwise

from tests.support.interleaved import DONE_AT, Kind, interleaved

QUICK, LONG = Kind(waits=False, is_long=False), Kind(waits=False, is_long=True)
WAITS, WAITS_LONG = Kind(waits=True, is_long=False), Kind(waits=True, is_long=True)

FILES = {
    "crash": [WAITS_LONG] * 12 + [WAITS] * 8,
    **{f"integration {number}": [WAITS] * 5 for number in range(10)},
    "integration, long": [WAITS, WAITS_LONG] * 8,
    "storage": [QUICK] * 30,
    "storage, long": [LONG] * 10 + [QUICK] * 20,
    **{f"storage {number}": [QUICK] * 20 for number in range(50)},
}
TESTS = [(file, kind, (file, kind, number)) for file, kinds in FILES.items() for number, kind in enumerate(kinds)]
ORDER = interleaved(TESTS)


def test_every_test_comes_once() -> None:
    assert sorted(ORDER) == sorted(test for *_, test in TESTS)


def test_each_kind_keeps_its_order_and_is_done_in_time() -> None:
    for kind, done_at in DONE_AT.items():
        assert [test for test in ORDER if test[1] == kind] == [test for *_, test in TESTS if test[1] == kind]
        last = max(at for at, test in enumerate(ORDER) if test[1] == kind)
        assert last / len(ORDER) <= done_at + 0.02


def test_what_waits_is_everywhere_beside_what_works() -> None:
    waiting = [at for at, (_, kind, _) in enumerate(ORDER) if kind.waits]
    for first in range(0, len(ORDER) * 8 // 10, len(ORDER) // 10):
        assert any(first <= at < first + len(ORDER) // 10 for at in waiting)
    long = [at for at, (_, kind, _) in enumerate(ORDER) if kind == WAITS_LONG]
    assert all(later - earlier > 1 for earlier, later in pairwise(long))


def test_a_file_stays_together_but_for_what_waits_long() -> None:
    runs = [key for key, _ in groupby(ORDER, key=lambda test: test[:2]) if key[1] != WAITS_LONG]
    assert len(runs) == len(set(runs))


def test_none_of_a_kind_is_no_error() -> None:
    assert interleaved([("a", QUICK, 1), ("a", QUICK, 2)]) == [1, 2]
    assert not interleaved([])
