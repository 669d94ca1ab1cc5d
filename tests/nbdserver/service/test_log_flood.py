"""An event that happens again and again does not fill the log, and nothing is left out in silence."""

import logging
from typing import Any

from nbdserver.service.log_flood import EVERY_SECONDS, RECORDS, FloodFilter
from tests.nbdserver.inside import events_remembered


def made(event: str, at: float, level: int = logging.INFO, name: str = "nbdserver", **facts: Any) -> logging.LogRecord:
    record = logging.LogRecord(name, level, __file__, 1, event, None, None)
    record.created = at
    record.__dict__.update(facts)
    return record


def test_so_many_of_one_event_and_the_rest_is_counted() -> None:
    flood = FloodFilter()
    passed = sum(flood.filter(made("read_failed", 100.0 + n / 100)) for n in range(1000))
    assert passed == RECORDS
    later = made("read_failed", 100.0 + EVERY_SECONDS)
    assert flood.filter(later)
    assert later.__dict__["left_out"] == 1000 - RECORDS


def test_other_events_and_errors_pass() -> None:
    flood = FloodFilter()
    for n in range(1000):
        flood.filter(made("client_attached", 100.0 + n / 100))
    assert flood.filter(made("client_left", 110.0))
    assert all(flood.filter(made("client_attached", 110.0, logging.ERROR)) for _ in range(10))


def test_tracebacks_are_counted_and_errors_without_one_pass() -> None:
    """A fault that each request meets again would be thousands of them a minute."""
    flood = FloodFilter()
    try:
        raise ValueError
    except ValueError as error:
        crash = (ValueError, error, error.__traceback__)
    passed = sum(flood.filter(made("read_crashed", 100.0, logging.ERROR, exc_info=crash)) for _ in range(1000))
    assert passed == RECORDS
    assert all(flood.filter(made("read_crashed", 100.0, logging.ERROR)) for _ in range(10))
    later = made("read_crashed", 100.0 + EVERY_SECONDS, logging.ERROR, exc_info=crash)
    assert flood.filter(later)
    assert later.__dict__["left_out"] == 1000 - RECORDS
    assert all(flood.filter(made("ended", 100.0, logging.CRITICAL, exc_info=crash)) for _ in range(1000))


def test_a_quiet_minute_says_nothing_of_it() -> None:
    flood = FloodFilter()
    assert flood.filter(made("client_left", 100.0))
    later = made("client_left", 100.0 + 2 * EVERY_SECONDS)
    assert flood.filter(later)
    assert "left_out" not in later.__dict__


def test_all_that_was_asked_for_is_written() -> None:
    """`-v` shows every request to the store."""
    flood = FloodFilter()
    assert all(flood.filter(made("object_request", 100.0, logging.DEBUG)) for _ in range(1000))


def test_words_of_libraries_are_no_events() -> None:
    """Each may be another: to count them would be to remember them all."""
    flood = FloodFilter()
    assert all(flood.filter(made(f"retry {n}", 100.0, logging.WARNING, name="urllib3")) for n in range(1000))
    assert events_remembered(flood) == 0


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    flood = FloodFilter()
    for n in range(1000):
        flood.filter(made("client_left", 100_000.0 + n / 100))
    later = made("client_left", 50_000.0)
    assert flood.filter(later)
    assert later.__dict__["left_out"] == 1000 - RECORDS
