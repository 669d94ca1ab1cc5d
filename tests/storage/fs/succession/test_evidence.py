"""What counts as evidence that a writer has ended, look by look."""

import pytest

from storage.format.sign import Sign, Word
from storage.fs.succession.evidence import OUTAGE_SECONDS, PAUSE_SECONDS_MAX, Evidence, Sighting

LEASE = 4.0
FIRST = Sign(1, 7, 4000)
SIGNED = Sighting(manifest=7, epoch=3, closed=False, sign=FIRST)


def watched(seen: Sighting, seconds: float, *, step: float = 0.5) -> Evidence:
    """As `seen`, for so long, without a gap."""
    evidence = Evidence()
    for look in range(round(seconds / step) + 1):
        evidence.answered(seen, look * step, look * step)
    return evidence


def test_a_lease_without_anything_new() -> None:
    assert watched(SIGNED, LEASE - 0.5).verdict() == "wait"
    assert watched(SIGNED, LEASE).verdict() == "silent"


def test_the_writer_says_how_long_its_sign_is_to_be_believed() -> None:
    patient = Sighting(7, 3, closed=False, sign=Sign(1, 7, 20_000))
    assert watched(patient, 19.5).verdict() == "wait"
    assert watched(patient, 20.0).verdict() == "silent"


@pytest.mark.parametrize(
    "new",
    [Sighting(7, 3, closed=False, sign=Sign(2, 7, 4000)), Sighting(8, 3, closed=False, sign=FIRST)],
    ids=["sign", "manifest"],
)
def test_whatever_is_new_begins_it_anew(new: Sighting) -> None:
    evidence = watched(SIGNED, LEASE - 0.5)
    evidence.answered(new, LEASE, LEASE)
    assert (evidence.silent_seconds, evidence.verdict()) == (0.0, "wait")


def test_so_does_a_log_that_has_grown() -> None:
    evidence = watched(SIGNED, LEASE)
    evidence.moved(LEASE)
    assert evidence.verdict() == "wait"


def test_no_answer_is_no_evidence() -> None:
    """And more is wanted behind an outage: the writer's line may be back later than ours."""
    evidence = watched(SIGNED, LEASE - 0.5)
    evidence.unanswered()
    assert evidence.verdict() == "wait"
    for look in range(100):
        evidence.answered(SIGNED, 100 + look * 0.5, 100 + look * 0.5)
        assert (evidence.verdict() == "silent") == (look * 0.5 >= LEASE + OUTAGE_SECONDS)
    evidence.answered(Sighting(7, 3, closed=False, sign=Sign(2, 7, 4000)), 200.0, 200.0)
    assert evidence.patience_seconds == LEASE, "it is back"


def test_who_did_not_look_has_not_watched() -> None:
    """Stopped, or asleep for an hour."""
    evidence = Evidence()
    evidence.answered(SIGNED, 0.0, 0.0)
    evidence.answered(SIGNED, 3600.0, 3600.0)
    assert evidence.silent_seconds == PAUSE_SECONDS_MAX
    assert evidence.verdict() == "wait"


def test_a_look_that_lasts_has_not_watched_meanwhile() -> None:
    """The sign that it found may have been given at its very end, and the next one be missing from there on."""
    evidence = Evidence()
    evidence.answered(SIGNED, 0.0, 20.0)
    for look in range(9):
        began = 20.0 + look * 0.5
        assert evidence.verdict() == "wait"
        evidence.answered(SIGNED, began, began + 0.4)
        assert evidence.silent_seconds == look * 0.5
    assert evidence.verdict() == "silent"


def test_without_signs_never() -> None:
    assert watched(Sighting(7, 3, closed=False, sign=None), 100_000, step=1.0).verdict() == "wait"
    assert Evidence().verdict() == "wait"


@pytest.mark.parametrize(("word", "seconds"), [(Word.HANDS_OVER, 0.0), (Word.COMES_BACK, 30.0), (Word.SERVES, 2.0)])
def test_a_closed_store_is_left_to_who_comes_first(word: Word, seconds: float) -> None:
    closed = Sighting(7, 3, closed=True, sign=Sign(9, 7, 4000, word))
    assert watched(closed, seconds).verdict() == "closed"
    if seconds:
        assert watched(closed, seconds - 0.5).verdict() == "wait"


def test_one_that_nobody_wrote_is_free() -> None:
    assert watched(Sighting(0, 0, closed=True, sign=None), 0.0).verdict() == "closed"
