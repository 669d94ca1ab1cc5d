"""The gate: who gets through when there is room, and in which order."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from storage.lsm.memtable.gate import PASS_BYTES, RATE_DELAY_SECONDS_MAX, TURN_BYTES, Gate
from tests.support.inside import give_turns

Callback = Callable[[], None]


class Passes:
    """Passes of an event loop, run by hand."""

    def __init__(self) -> None:
        self._soon: list[Callback] = []

    def call_soon(self, callback: Callback) -> None:
        self._soon.append(callback)

    def run(self) -> int:
        """Everything that is due; gives the number of passes."""
        count = 0
        while self._soon:
            count += 1
            due, self._soon = self._soon, []
            for callback in due:
                callback()
        return count


class Writer:
    """Writes `length` bytes at each turn, until `left` is 0."""

    def __init__(self, gate: Gate, passed: list["Writer"], length: int, left: int) -> None:
        self.gate, self.passed, self.length, self.left = gate, passed, length, left
        self.fills_the_room = False

    def ask(self) -> None:
        if self.left:
            self.gate.when_open(self.turn, self.length)

    def turn(self) -> None:
        self.left -= 1
        self.passed.append(self)
        if self.fills_the_room:
            self.gate.set(0.0, full=True)
        self.ask()


def made() -> tuple[Gate, Passes, list[Writer]]:
    passes = Passes()
    return Gate(passes.call_soon), passes, []


def test_who_waits_goes_on_once_and_in_order() -> None:
    gate, passes, _ = made()
    gate.set(0.0, full=True)
    passed: list[int] = []
    for number in range(5):
        gate.when_open(lambda number=number: passed.append(number), 1)  # type: ignore[misc]
    gate.set(0.01, full=True)
    passes.run()
    assert passed == []
    gate.set(0.01, full=False)
    before = gate.closed
    assert before, "until those who wait have had their turns, nobody gets past them"
    passes.run()
    assert passed == [0, 1, 2, 3, 4]
    after = gate.closed
    assert not after
    gate.set(0.0, full=True)
    gate.set(0.0, full=False)
    passes.run()
    assert passed == [0, 1, 2, 3, 4]


def test_one_write_does_not_wait_for_all_that_others_have() -> None:
    """Seen: whoever registered first got all the room, each time."""
    gate, passes, passed = made()
    gate.set(0.0, full=True)
    floods = [Writer(gate, passed, 1 << 20, 1000) for _ in range(3)]
    single = Writer(gate, passed, 4096, 3)
    for writer in (*floods, single):
        writer.fills_the_room = True
    for flood in floods:
        flood.ask()
    for turn in range(20):
        if turn == 10:
            single.ask()
        gate.set(0.0, full=False)
        passes.run()
    assert len(passed) == 20
    assert single in passed[10:13], "behind one of each at most, not behind 3,000"
    assert passed.count(single) == 3
    assert {passed.count(flood) for flood in floods} <= {5, 6}


@given(st.lists(st.integers(1, 1 << 20), min_size=2, max_size=6))
def test_turns_are_fair_by_bytes(lengths: list[int]) -> None:
    gate, _, passed = made()
    gate.set(0.0, full=True)
    writers = [Writer(gate, passed, length, 100_000) for length in lengths]
    for writer in writers:
        writer.ask()
    gate.set(0.0, full=False)
    for _ in range(20):
        give_turns(gate)
    most = max(lengths) + TURN_BYTES
    given_to = [passed.count(writer) * (writer.length + TURN_BYTES) for writer in writers]
    assert max(given_to) - min(given_to) <= most
    assert sum(given_to) >= 20 * PASS_BYTES


def test_who_left_holds_nobody_up() -> None:
    gate, passes, passed = made()
    gate.set(0.0, full=True)
    writer, other = Writer(gate, passed, 1, 1), Writer(gate, passed, 1, 1)
    writer.ask()
    other.ask()
    gate.forget(writer.turn)
    gate.set(0.0, full=False)
    passes.run()
    assert passed == [other]
    writer.ask()
    gate.forget(writer.turn)
    passes.run()
    assert not gate.closed
    assert passed == [other]


def test_one_that_fails_does_not_keep_the_others_from_their_turns() -> None:
    gate, passes, passed = made()
    gate.set(0.0, full=True)

    def fail() -> None:
        raise RuntimeError("a bug")

    gate.when_open(fail, 1)
    writer = Writer(gate, passed, 1, 1)
    writer.ask()
    gate.set(0.0, full=False)
    try:
        passes.run()
    except RuntimeError:
        passes.run()
    assert passed == [writer]
    assert not gate.closed


def test_thousands_who_waited_do_not_hold_the_loop() -> None:
    gate, passes, passed = made()
    gate.set(0.0, full=True)
    writers = [Writer(gate, passed, 1, 1) for _ in range(10 * PASS_BYTES // TURN_BYTES)]
    for writer in writers:
        writer.ask()
    gate.set(0.0, full=False)
    assert passes.run() >= 9
    assert passed == writers


@given(
    st.lists(st.tuples(st.integers(0, 1 << 20), st.floats(0, 0.5)), min_size=1, max_size=40),
    st.sampled_from([1e-8, 1e-6, 1e-4]),
    st.sampled_from([0.0, 0.05]),
)
def test_what_one_writer_writes_is_drawn_out(writes: list[tuple[int, float]], per_byte: float, least: float) -> None:
    gate = Gate(Passes().call_soon)
    gate.set(least, full=False, seconds_per_byte=per_byte)
    now, drawn_out, capped = 0.0, 0.0, False
    limiter = gate.rate_limiter(lambda: now)
    for length, pause in writes:
        now += pause
        drawn_out += (length + TURN_BYTES) * per_byte
        delay = limiter.delay(length)
        assert least <= delay <= RATE_DELAY_SECONDS_MAX + 1e-9
        assert delay <= max(least, drawn_out) + 1e-9
        capped = capped or delay > RATE_DELAY_SECONDS_MAX - 1e-9
        # However many of its requests are in flight.
        assert capped or now + delay >= drawn_out - 1e-9


def test_who_writes_little_does_not_wait_for_others() -> None:
    gate = Gate(Passes().call_soon)
    gate.set(0.0, full=False, seconds_per_byte=1e-6)
    assert gate.slows
    now = 0.0
    flood, modest = gate.rate_limiter(lambda: now), gate.rate_limiter(lambda: now)
    assert [flood.delay(1 << 20) for _ in range(3)][-1] == RATE_DELAY_SECONDS_MAX
    assert modest.delay(4096) < 0.01
    now = 60.0
    assert flood.delay(4096) < 0.01, "what it was slowed down for is over"
    assert flood.delay(1 << 20) > 1, "time that it did not use is not saved up"
    gate.set(0.0, full=False)
    assert not gate.slows
