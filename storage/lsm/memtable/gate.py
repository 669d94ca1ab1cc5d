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

Callback = Callable[[], None]


class Gate:
    """What a connection looks at before and after each write. `delay` is in seconds."""

    __slots__ = ("_call_soon", "_due", "_full", "_next", "_now", "_waiting", "closed", "delay")

    def __init__(self, call_soon: Callable[[Callback], object]) -> None:
        """`call_soon` has a function called in another pass of the event loop."""
        self.delay = 0.0
        self.closed = False
        self._call_soon = call_soon
        self._full = False
        """There is no room."""
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

    def set(self, delay: float, *, full: bool) -> None:
        """Change the state. Without anybody who waits, the gate opens or closes at once."""
        self.delay = delay
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
