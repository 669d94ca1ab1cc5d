"""Replies of one client that wait until a write is in the store: those of FLUSH, and of writes with FUA, and no others.

They wait without tasks: the device tells its listeners up to which write it is durable. If the store fails nobody is
told anything, no error either: the connection is dropped, because a client that was told its writes succeeded may
ignore the error of a FLUSH.
"""

from collections import deque
from collections.abc import Callable, Iterator

from nbdserver.block_device import BlockDevice
from nbdserver.server.operation_trace import OperationTrace, TraceSpan
from storage.histogram import Histogram


class DurabilityWaiters:
    """A queue of replies, each with the sequence number of the write it waits for, in ascending order of it."""

    def __init__(
        self,
        device: BlockDevice,
        answer: Callable[[bytes, OperationTrace], None],
        *,
        begin: Callable[[], None],
        waited: Histogram,
    ) -> None:
        """`begin`: a reply waits from now on; `answer`: it waits no longer, and `waited` knows for how long it did."""
        self._device = device
        self._answer = answer
        self._begin = begin
        self._waited = waited
        self._waiting: deque[tuple[int, bytes, OperationTrace]] = deque()
        device.listen(self._became_durable)

    def is_durable(self, sequence: int, reply: bytes, trace: OperationTrace) -> bool:
        """Whether every write up to `sequence` is durable. If not, `reply` waits for that, and is given to `answer`."""
        if self._device.want_durable(sequence):
            return True
        self._begin()
        trace.enter(TraceSpan.LOG)
        self._waiting.append((sequence, reply, trace))
        return False

    def traces(self) -> Iterator[OperationTrace]:
        """Who waits, longest first."""
        return (trace for _, _, trace in self._waiting)

    def close(self) -> None:
        """Answer nobody any more."""
        self._waiting.clear()
        self._device.unlisten(self._became_durable)

    def _became_durable(self, sequence: int) -> None:
        """Every write up to this one is durable."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= sequence:
            _, reply, trace = waiting.popleft()
            self._waited.add(trace.enter(TraceSpan.SENDING))
            self._answer(reply, trace)
