"""The rules, on recorded histories: each of them is broken by what breaks it, and by nothing less."""

from tests.soak.rules import MEMORY_BYTES, TRACEBACK, Rules


def test_a_request_that_waits_too_long_breaks_a_rule() -> None:
    rules = Rules(wait_seconds=10)
    rules.sent("one", 1, "READ of 512 bytes at 0", 5.0)
    rules.sent("two", 1, "FLUSH", 5.0)
    rules.answered("two", 1)
    rules.look(15.0)
    assert not rules.violations
    rules.look(15.1)
    rules.look(99.0)
    assert rules.violations == ["one: READ of 512 bytes at 0 had no reply in 10 s in which the store answered"]


def test_the_time_in_which_the_store_is_away_does_not_count() -> None:
    rules = Rules(wait_seconds=10)
    rules.sent("one", 1, "FLUSH", 0.0)
    rules.store_answers(6.0, False)
    rules.store_answers(7.0, False)
    rules.look(100.0)
    rules.store_answers(100.0, True)
    rules.look(103.9)
    assert not rules.violations
    rules.look(104.1)
    assert len(rules.violations) == 1


def test_time_before_a_request_does_not_count() -> None:
    rules = Rules(wait_seconds=10)
    rules.store_answers(100.0, False)
    rules.sent("one", 1, "FLUSH", 150.0)
    rules.store_answers(200.0, True)
    rules.look(209.9)
    assert not rules.violations
    rules.look(210.1)
    assert rules.violations


def test_a_client_that_is_dropped_breaks_a_rule() -> None:
    rules = Rules(wait_seconds=10)
    rules.sent("one", 1, "FLUSH", 0.0)
    rules.gone("one", left=True)
    rules.look(1000.0)
    assert not rules.violations
    rules.gone("one", left=False)
    assert rules.violations == ["one was dropped, though it had neither left nor stalled"]


def test_an_error_breaks_a_rule_unless_the_server_is_ended() -> None:
    rules = Rules()
    for cookie in (1, 2):
        rules.sent("one", cookie, "READ of 512 bytes at 0", 0.0)
    rules.answered("one", 1, 5)
    assert rules.violations == ["one: READ of 512 bytes at 0 was answered with error 5"]
    rules.ending = True
    rules.answered("one", 2, 108)
    rules.gone("one", left=False)
    assert len(rules.violations) == 1


def test_memory_a_stop_and_the_log() -> None:
    rules = Rules(wait_seconds=10)
    rules.memory("VmRSS", MEMORY_BYTES)
    rules.stopped(9.0, 0)
    rules.log("2026-11-28 a warning\n")
    assert not rules.violations
    rules.memory("VmHWM", MEMORY_BYTES + 1)
    rules.stopped(None, None)
    rules.stopped(11.0, 0)
    rules.stopped(1.0, 10)
    rules.log(f"before\n{TRACEBACK}:\n  File ...")
    assert len(rules.violations) == 5
