"""The writes of one client that are not applied yet: they wait at the gate of the memtable, in the order in which they
came.

None is applied out of turn, or behind a later one, or after `close`. Before each, its client is asked after (`may_go`):
an old copy of a write that comes to life here would undo a newer one (see `transmission_phase`).
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nbdserver.block_device import WriteGate
from nbdserver.server.operation_trace import OperationTrace

logger = logging.getLogger("nbdserver")


@dataclass(frozen=True, slots=True)
class HeldWrite:
    """A write with data of `length` bytes."""

    cookie: bytes
    change: Callable[[], int]
    length: int
    fua: bool
    trace: OperationTrace


class HeldWrites:
    """A queue, and its place at the gate."""

    def __init__(
        self,
        gate: WriteGate,
        *,
        may_go: Callable[[], bool],
        carry_out: Callable[[HeldWrite], None],
        fail: Callable[[], None],
    ) -> None:
        """`may_go`: whether the client's next write may be applied now; if not, `wait` is called when it may.
        `fail`: something happened that nobody foresaw."""
        self.active = False
        """A write that comes has to wait, behind others or until the client is known to be there."""
        self._gate = gate
        self._may_go = may_go
        self._carry_out = carry_out
        self._fail = fail
        self._queue: deque[HeldWrite] = deque()
        self._at_gate = False

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, write: HeldWrite) -> None:
        """It waits, behind all others."""
        self.active = True
        self._queue.append(write)
        self.wait()

    def hold(self) -> None:
        """Hold what comes, until `wait` finds that none is left."""
        self.active = True

    def wait(self) -> None:
        """Ask for a turn for the first one, if there is any."""
        if not self._queue:
            self.active = False
        elif not self._at_gate:
            self._at_gate = True
            self._gate.when_open(self._turn, self._queue[0].length)

    def traces(self) -> Iterator[OperationTrace]:
        """Those that wait, longest first."""
        return (held.trace for held in self._queue)

    def close(self) -> None:
        """None of them is applied any more."""
        self._queue.clear()
        self._gate.forget(self._turn)

    def _turn(self) -> None:
        """The gate lets one write through."""
        self._at_gate = False
        try:
            if self._queue and self._may_go():
                self._carry_out(self._queue.popleft())
                self.wait()
        except Exception:
            # It was called by the engine's gate: what is wrong with one client is not to reach it.
            logger.exception("held_write_crashed")
            self._fail()
