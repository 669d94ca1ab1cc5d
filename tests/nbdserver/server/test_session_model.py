"""FUA, FLUSH and plain writes of two clients at a gate that opens, delays and closes: every order within bounds, and
proof that mistakes in it are found."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nbdserver.server.durability_waiters import DurabilityWaiters
from nbdserver.server.held_writes import HeldWrite, HeldWrites
from nbdserver.server.operation_trace import TraceSpan
from nbdserver.server.outbox import Outbox
from nbdserver.server.session import Session
from tests.nbdserver.server.session_model import Violation, explore
from tests.support.memory_device import MemoryJournal


def test_every_order_of_four_events(monkeypatch: pytest.MonkeyPatch) -> None:
    assert explore(4, monkeypatch) > 3000


@pytest.mark.slow
def test_every_order_of_six_events(monkeypatch: pytest.MonkeyPatch) -> None:
    assert explore(6, monkeypatch) > 100_000


def fua_forgotten(patch: pytest.MonkeyPatch) -> None:
    def carry_out_held(self: Any, held: Any) -> None:
        self.admission.end()
        self._carry_out(replace(held, fua=False))
        self.admission.give(held.length)

    patch.setattr(Session, "_carry_out_held", carry_out_held)


def fua_answered_after_the_delay(patch: pytest.MonkeyPatch) -> None:
    original = Session._carry_out

    def carry_out(self: Any, write: HeldWrite) -> None:
        original(self, replace(write, fua=write.fua and not self._gate.slows))

    patch.setattr(Session, "_carry_out", carry_out)


def flush_of_its_own_writes(patch: pytest.MonkeyPatch) -> None:
    def flush(self: Any, cookie: bytes) -> bool:
        trace = self._tracer.begin(cookie, 3, 0, 0, TraceSpan.LOG)
        self._answer_when_durable(cookie, self._device.own_sequence, trace)
        return True

    patch.setattr(Session, "flush", flush)


def newest_first(patch: pytest.MonkeyPatch) -> None:
    def turn(self: Any) -> None:
        self._at_gate = False
        if self._queue and self._may_go():
            self._carry_out(self._queue.pop())
            self.wait()

    patch.setattr(HeldWrites, "_turn", turn)


def carried_out_after_close(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HeldWrites, "close", lambda self: None)


def past_those_who_wait(patch: pytest.MonkeyPatch) -> None:
    original = Session._change

    def change(self: Any, write: HeldWrite) -> bool:
        if write.fua:
            self._carry_out(write)
            return True
        return original(self, write)

    patch.setattr(Session, "_change", change)


def delay_forgotten(patch: pytest.MonkeyPatch) -> None:
    original = Session._carry_out

    def carry_out(self: Any, write: HeldWrite) -> None:
        slows, self._gate.slows = self._gate.slows, False
        try:
            original(self, write)
        finally:
            self._gate.slows = slows

    patch.setattr(Session, "_carry_out", carry_out)


def one_confirmation_at_a_time(patch: pytest.MonkeyPatch) -> None:
    def became_durable(self: Any, sequence: int) -> None:
        if self._waiting and self._waiting[0][0] <= sequence:
            self._answer(*self._waiting.popleft()[1:])

    patch.setattr(DurabilityWaiters, "_became_durable", became_durable)


def confirmed_twice(patch: pytest.MonkeyPatch) -> None:
    original = DurabilityWaiters._became_durable

    def became_durable(self: Any, sequence: int) -> None:
        again = [(reply, trace) for wanted, reply, trace in self._waiting if wanted <= sequence]
        original(self, sequence)
        for reply, trace in again:
            self._answer(reply, trace)

    patch.setattr(DurabilityWaiters, "_became_durable", became_durable)


def reply_before_the_journal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryJournal, "keep", lambda self: None)


def only_its_own_writes_in_the_journal(patch: pytest.MonkeyPatch) -> None:
    """A client is answered for what another one wrote in the same pass."""
    original = Outbox.send

    def send(self: Any) -> None:
        if not self._transport._number:
            self._unkept, kept = (), self._unkept
            original(self)
            self._unkept = kept
        else:
            original(self)

    patch.setattr(Outbox, "send", send)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (fua_forgotten, "with FUA was answered before it was durable"),
        (fua_answered_after_the_delay, "with FUA was answered before it was durable"),
        (flush_of_its_own_writes, "a flush was answered before what it covers was durable"),
        (newest_first, "has overtaken an earlier one"),
        (carried_out_after_close, "was carried out after it had gone"),
        (past_those_who_wait, "though there is no room|has overtaken"),
        (delay_forgotten, "before the gate's delay was over"),
        (one_confirmation_at_a_time, "was never answered"),
        (confirmed_twice, "wrongly, twice, or too late"),
        (reply_before_the_journal, "before the journal had"),
        (only_its_own_writes_in_the_journal, "before the journal had"),
    ],
)
def test_a_mistake_is_found(
    monkeypatch: pytest.MonkeyPatch, mistake: Callable[[pytest.MonkeyPatch], None], message: str
) -> None:
    mistake(monkeypatch)
    with pytest.raises(Violation, match=message):
        explore(5, monkeypatch)
