"""The rules, on recorded histories: each of them is broken by what breaks it, and by nothing less."""

from tests.soak.rules import MIB, OPENED_BYTES, SLACK_BYTES, TRACEBACK, Rules


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


def test_a_stop_and_the_log() -> None:
    rules = Rules(wait_seconds=10)
    rules.stopped(9.0, 0)
    rules.log("2026-11-28 a warning\n")
    assert not rules.violations
    rules.stopped(None, None)
    rules.stopped(11.0, 0)
    rules.stopped(1.0, 10)
    rules.log(f"before\n{TRACEBACK}:\n  File ...")
    assert len(rules.violations) == 4


def test_memory_is_what_a_start_takes_and_what_clients_had_held_since() -> None:
    rules = Rules(cache_bytes=64 * MIB)
    rules.opened(100 * MIB)
    assert rules.memory_bytes == 100 * MIB + SLACK_BYTES
    rules.sent("one", 1, "WRITE", 0.0, payload=MIB)
    assert rules.memory_bytes == 103 * MIB + SLACK_BYTES  # under way, and then in no SST yet, and cached
    rules.answered("one", 1)
    rules.sent("one", 2, "READ", 0.0, reply=MIB)
    rules.sent("two", 1, "READ", 0.0, reply=MIB)
    assert rules.memory_bytes == 106 * MIB + SLACK_BYTES
    rules.memory("VmRSS", rules.memory_bytes)
    assert not rules.violations
    rules.memory("VmRSS", rules.memory_bytes + 1)
    assert rules.violations == ["VmRSS is 154 MiB; the limits add up to 154 MiB"]
    rules.begin_life()
    rules.opened(90 * MIB)
    assert rules.memory_bytes == 90 * MIB + SLACK_BYTES


def test_no_client_makes_the_limits_larger_than_they_are() -> None:
    rules = Rules(cache_bytes=64 * MIB)
    rules.opened(100 * MIB)
    for number in range(100):
        rules.sent("one", number, "WRITE", 0.0, payload=10 * MIB)
    assert rules.memory_bytes == (100 + 64 + 64 + 256) * MIB + SLACK_BYTES
    for number in range(100):
        rules.sent(f"client {number}", 1, "READ", 0.0, reply=100 * MIB)
    assert rules.memory_bytes == (100 + 64 + 512 + 256) * MIB + SLACK_BYTES


def test_a_start_that_takes_more_than_a_log_breaks_a_rule() -> None:
    rules = Rules()
    rules.opened(OPENED_BYTES)
    assert not rules.violations
    rules.begin_life()
    rules.opened(OPENED_BYTES + SLACK_BYTES + 1)
    assert len(rules.violations) == 1
