"""Clients that come back: what a store tells them of what they were answered.

Every session has one client, which asks each later session whether anything may be lost since its own began, and goes
on if not. So a session that says "nothing" must hold all that the one before it *answered*, flushed or not, and must
not forget a loss that an earlier one had found. One that says otherwise needs a reason: its client ends loudly.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.disk_history import Violation
from tests.simulation.oracle import Session


@dataclass
class ReturningClients:
    """The clients of all sessions of one store, by epoch."""

    _incarnations: dict[int, bytes] = field(default_factory=dict)
    _whole_since: dict[int, set[int]] = field(default_factory=dict)
    """Of each session the earlier ones since which nothing is lost, as it said."""

    def ask(self, epoch: int, is_unbroken_since: Callable[[bytes], bool]) -> set[int]:
        """The sessions below `epoch` since which it says that nothing is lost."""
        return {e for e, known in self._incarnations.items() if e < epoch and is_unbroken_since(known)}

    def attach(self, epoch: int, incarnation: bytes, told: set[int], parent: Session, *, whole: bool) -> None:
        """A session of that epoch, which follows `parent`, says so; `whole`: nothing can be lost in between. Violation:
        it may not."""
        if len(incarnation) == 0 or incarnation in self._incarnations.values():
            raise Violation(f"epoch {epoch} has the incarnation {incarnation.hex()!r}, which tells it from no other")
        known = self._whole_since.get(parent.epoch, set()) | {parent.epoch}
        if not told <= known or (told and parent.epoch not in told):
            raise Violation(f"epoch {epoch} says that nothing is lost since {told}, {parent.epoch} said: since {known}")
        if whole and told != known & self._incarnations.keys():
            raise Violation(f"epoch {epoch} says that something may be lost since {known - told}, and nothing is")
        self._incarnations[epoch] = incarnation
        self._whole_since[epoch] = told
