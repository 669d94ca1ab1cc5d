"""The gate before the engine: writers look at it before and after each write, and wait at it in turns. No I/O.

While it is closed a writer asks for a turn for its next write. When there is room, the writer whose turn it is gets
through with that one write, and asks again for its next. Turns are fair by bytes (start-time fair queueing: Goyal,
Vin, Cheng, SIGCOMM 1996): who sends little goes before the rest of those who flood, whatever waits of them. The gate
stays closed until nobody waits, so nobody gets past those who do.
"""

from collections.abc import Callable

from storage.units import MIB

PASS_BYTES = MIB
"""What is let through in one pass of the event loop: about a millisecond. What it makes due is done before the next."""

TURN_BYTES = 4096
"""What a write counts for beside its data, so that empty ones (discards) take turns as well."""

RATE_DELAY_SECONDS_MAX = 2.0
"""Longest delay of one reply for what was written before it: well below what a client waits for."""

Callback = Callable[[], None]


class RateLimiter:
    """When the replies of one writer may go out, while they are to be delayed.

    What it wrote is drawn out over time (`Gate.seconds_per_byte`), so that who writes little waits little, whatever
    others write, and however many requests it has in flight.
    """

    __slots__ = ("_clock", "_gate", "_until")

    def __init__(self, gate: "Gate", clock: Callable[[], float]) -> None:
        self._gate = gate
        self._clock = clock
        self._until = 0.0
        """When what it wrote so far is drawn out to."""

    def delay(self, length: int) -> float:
        """Seconds by which the reply to a write of `length` bytes, carried out now, is to be delayed."""
        gate, now = self._gate, self._clock()
        until = max(self._until, now) + (length + TURN_BYTES) * gate.seconds_per_byte
        self._until = min(until, now + RATE_DELAY_SECONDS_MAX)
        return max(gate.delay, self._until - now)


class Gate:
    """What a connection looks at before and after each write."""

    __slots__ = (
        "_call_soon", "_due", "_full", "_next", "_now", "_waiting", "closed", "delay", "seconds_per_byte", "slows",
    )  # fmt: skip

    def __init__(self, call_soon: Callable[[Callback], object]) -> None:
        """`call_soon` has a function called in another pass of the event loop."""
        self.slows = False
        """Replies are to be delayed now, each by what its writer's `RateLimiter` says."""
        self.delay = 0.0
        """Seconds by which any reply is delayed at least."""
        self.seconds_per_byte = 0.0
        """How far what each writer writes is drawn out."""
        self.closed = False
        self._call_soon = call_soon
        self._full = False
        """Some limit is reached: writes wait, and are let through one by one."""
        self._due = False
        self._now = 0
        """Virtual time: the start of the turn that was given last, in bytes."""
        self._waiting: dict[Callback, int] = {}
        """Who waits, and when by virtual time its turn would begin."""
        self._next: dict[Callback, int] = {}
        """Where the turns that each has had, or waits for, end."""

    def when_open(self, callback: Callback, length: int) -> None:
        """Call once when it is this writer's turn to write `length` bytes; it writes them in that call, or soon."""
        start = max(self._now, self._next.get(callback, 0))
        self._waiting[callback] = start
        self._next[callback] = start + length + TURN_BYTES
        self.closed = True
        self._give_turns_soon()

    def forget(self, callback: Callback) -> None:
        """Do not call it after all."""
        self._next.pop(callback, None)
        if self._waiting.pop(callback, None) is not None:
            self._give_turns_soon()

    def rate_limiter(self, clock: Callable[[], float]) -> RateLimiter:
        """For the delays of one more writer. `clock` gives seconds, and does not go back."""
        return RateLimiter(self, clock)

    def set(self, delay: float, *, full: bool, seconds_per_byte: float = 0.0) -> None:
        """Change the state. Without anybody who waits, the gate opens or closes at once."""
        self.delay = delay
        self.seconds_per_byte = seconds_per_byte
        self.slows = delay > 0 or seconds_per_byte > 0
        self._full = full
        if full:
            self.closed = True
        elif self._waiting:
            self._give_turns_soon()
        elif not self._due:
            self.closed = False

    def _give_turns_soon(self) -> None:
        if not self._full and not self._due:
            self._due = True
            self._call_soon(self._give_turns)

    def _give_turns(self) -> None:
        try:
            passed = 0
            while self._waiting and not self._full and passed < PASS_BYTES:
                callback = min(self._waiting, key=self._waiting.__getitem__)
                self._now = self._waiting.pop(callback)
                passed += self._next[callback] - self._now
                callback()
        finally:
            self._due = False
            if self._waiting:
                self._give_turns_soon()
            elif not self._full:
                self.closed = False
                self._next.clear()
