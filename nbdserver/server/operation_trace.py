"""Traces: where the time of an operation goes that memory alone cannot answer. What was slow is remembered
(`slow_operations`).

An operation that is answered in the pass in which it arrived has no trace: it costs nothing. A trace is at any moment
in one span, and knows how long it was in each before.
"""

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

from nbdserver.protocol.commands import COMMANDS
from nbdserver.slow_operations import SLOW_OPERATION_SECONDS, SlowOperation, SlowOperations
from nbdserver.traffic import Waits
from storage.fetch_times import OBJECTS_MAX, FetchTimes

UNDER_WAY_MAX = 16
"""Of one client, of each kind: who asks for more hangs with all of them for the same reason."""


class TraceSpan(StrEnum):
    """What an operation waits for."""

    QUEUE = "queue"
    """For a place among the requests and bytes under way (`admission`)."""
    GATE = "gate"
    """For memory to write to, until the store took what is there; or its reply was delayed, so that it would."""
    LOG = "log"
    """For what was written to be durable."""
    WAITING = "waiting"
    """For a request to the store to begin (`FetchTimes`)."""
    STORE = "store"
    """For the store's answer."""
    DECODING = "decoding"
    """For that to be decrypted and decompressed."""
    ASSEMBLY = "assembly"
    """For the event loop, and for the answer to be put together."""
    SENDING = "sending"
    """For the kernel to take the reply, or all but `Limits.reply_bytes` of what goes to the client."""


class OperationTrace:
    """One operation on its way."""

    __slots__ = ("_clock", "_since", "_span", "began", "command", "failed", "length", "offset", "spent", "times")

    def __init__(self, clock: Callable[[], float], command: int, offset: int, length: int, span: TraceSpan) -> None:
        self.command, self.offset, self.length = command, offset, length
        self.began = clock()
        self.failed = False
        self.spent: dict[TraceSpan, float] = {}
        """Seconds in the spans that are over."""
        self.times = FetchTimes()
        """Of a READ, that part of it which came last."""
        self._clock = clock
        self._since, self._span = self.began, span

    def waited_since(self, moment: float) -> None:
        """It was not taken when it was offered first, at that moment."""
        self.spent[TraceSpan.QUEUE] = self.began - moment
        self.began = moment

    def enter(self, span: TraceSpan) -> float:
        """From now on it waits for that; gives the seconds in the span before."""
        now = self._clock()
        seconds = now - self._since
        self.spent[self._span] = self.spent.get(self._span, 0.0) + seconds
        self._since, self._span = now, span
        return seconds

    def part_read(self, times: FetchTimes) -> None:
        """A part of a READ is there, or all of it."""
        before, self.times = self.times, times
        times.requests += before.requests
        times.tries = max(times.tries, before.tries)
        times.objects = list(dict.fromkeys([*before.objects, *times.objects]))[:OBJECTS_MAX]

    def read(self) -> float:
        """All parts of it are there; gives how long that took."""
        took, times = self.enter(TraceSpan.SENDING), self.times
        self.spent[TraceSpan.WAITING] = times.waiting
        self.spent[TraceSpan.STORE] = times.store
        self.spent[TraceSpan.DECODING] = times.decoding
        self.spent[TraceSpan.ASSEMBLY] = took - times.waiting - times.store - times.decoding
        return took

    def so_far(self) -> tuple[float, dict[str, float]]:
        """How long it has taken until now, and by span."""
        now = self._clock()
        spent = {**self.spent, self._span: self.spent.get(self._span, 0.0) + now - self._since}
        return now - self.began, {str(span): round(spent[span], 6) for span in TraceSpan if spent.get(span, 0.0) > 0.0}


class Tracing:
    """Where traces of all clients of one server end; seconds of `clock` never go back."""

    def __init__(
        self, waits: Waits, slow: SlowOperations, clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        self.waits = waits
        self.slow = slow
        self.clock = clock
        self.wall_clock = wall_clock

    def of(self, client: int, peer: str, device: str) -> "Tracer":
        """For one client that attached a device."""
        return Tracer(self, client, peer, device)


class Tracer:
    """Traces of one client."""

    def __init__(self, tracing: Tracing, client: int, peer: str, device: str) -> None:
        self.waits = tracing.waits
        self._tracing = tracing
        self._clock = tracing.clock
        self._who = client, peer, device
        self._refused: tuple[bytes, float] | None = None
        """The cookie of a request that was not taken, and when it was offered first."""

    def begin(self, cookie: bytes, command: int, offset: int, length: int, span: TraceSpan) -> OperationTrace:
        """An operation that will take a while; it begins in that span."""
        trace = OperationTrace(self._clock, command, offset, length, span)
        if self._refused is not None and self._refused[0] == cookie:
            trace.waited_since(self._refused[1])
            self._refused = None
        return trace

    def refused(self, cookie: bytes, trace: OperationTrace) -> bool:
        """There is no room for it now, it will be offered again: False."""
        self._refused = cookie, trace.began
        return False

    def sent(self, trace: OperationTrace) -> None:
        """Its reply is gone."""
        if self._clock() - trace.began >= SLOW_OPERATION_SECONDS:
            self._tracing.slow.add(self._story(trace, "failed" if trace.failed else "done"))

    def dropped(self, traces: Iterable[OperationTrace]) -> None:
        """The client has gone before its replies."""
        for story in self.under_way(traces):
            self._tracing.slow.add(story)

    def under_way(self, traces: Iterable[OperationTrace], outcome: str = "dropped") -> Iterator[SlowOperation]:
        """The stories so far of those that are slow already."""
        for trace in traces:
            if self._clock() - trace.began >= SLOW_OPERATION_SECONDS:
                yield self._story(trace, outcome)

    def _story(self, trace: OperationTrace, outcome: str) -> SlowOperation:
        seconds, spent = trace.so_far()
        times = trace.times
        return SlowOperation(
            self._tracing.wall_clock() - seconds,
            *self._who,
            COMMANDS[trace.command].name.lower(),
            trace.offset,
            trace.length,
            round(seconds, 6),
            spent,
            outcome,
            times.requests,
            times.tries,
            times.objects,
        )
