"""The evidence that a writer has ended, as a server elsewhere sees it: a decision without input or output.

A writer counts as ended when all of this holds, and never else:

1. It has given a sign of life in this very term (epoch) of its. One that gives none (a command, a server that was not
   told to) is never taken for ended, however silent.
2. The store was asked again and again, and each time answered that nothing is new, neither sign nor manifest, for as
   long as the last sign asks for (its lease). A question that was not answered begins the count anew, and adds
   `OUTAGE_SECONDS`: the writer's line may be back later than ours. No answer is no evidence.
3. Only time between two answers counts, and of a pause no more than `PAUSE_SECONDS_MAX`: whoever was itself stopped,
   or asleep, has not watched.
4. At the end the log is no longer than it was at half of that time.

A writer that has closed the store has said itself that it ended; then its last word decides how long whoever stands by
waits. What is decided here is only when to try: a mistake costs what was answered and not flushed, and clients, but
nothing that was acknowledged, since the take-over fences the other one whatever the clocks do.
"""

from dataclasses import dataclass
from typing import Literal

from storage.format.sign import Sign, Word

PAUSE_SECONDS_MAX = 1.5
"""Between two looks so much counts at most."""

OUTAGE_SECONDS = 10.0
"""Longer than a lease is waited where the store did not answer meanwhile: a writer gives a sign two seconds after its
own line is back."""

CLOSED_SECONDS = {Word.HANDS_OVER: 0.0, Word.COMES_BACK: 30.0, Word.SERVES: 2.0}
"""How long a closed store is left to whoever else wants it, by the last word of its writer; without a word as with
SERVES: long enough for a restart on the writer's own host. One that nobody has written yet is left to nobody."""

Verdict = Literal["wait", "closed", "silent"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a look found: the newest manifest, and the sign of its writer, if that gives any."""

    manifest: int
    epoch: int
    closed: bool
    sign: Sign | None


class Evidence:
    """What was seen of one store, look by look. Times are those of the watcher's monotonic clock."""

    def __init__(self) -> None:
        self.seen: Sighting | None = None
        """The newest that was seen."""
        self.silent_seconds = 0.0
        """For so long it was watched and nothing was new."""
        self._more = 0.0
        self._last: float | None = None
        self.fresh_at: float | None = None
        """When something was new."""

    def answered(self, seen: Sighting, began: float, ended: float) -> None:
        """The store answered a look. What was there before it began is silence, and behind its end: when in between a
        sign was read is not known."""
        if seen != self.seen:
            self.seen = seen
            self._begin_anew(ended)
            self._more, self._last = 0.0, ended
        elif self._last is None:
            self._last = ended
        else:
            self.silent_seconds += min(max(began - self._last, 0.0), PAUSE_SECONDS_MAX)
            self._last = max(began, self._last)

    def unanswered(self) -> None:
        """The store did not answer."""
        self._last, self.silent_seconds = None, 0.0
        self._more = OUTAGE_SECONDS

    def moved(self, now: float) -> None:
        """The log has grown: its writer lives, though no sign of it was seen."""
        self._begin_anew(now)
        self._more = 0.0

    def _begin_anew(self, now: float) -> None:
        self.silent_seconds, self.fresh_at = 0.0, now

    @property
    def patience_seconds(self) -> float | None:
        """For how long it must be silent; None: however long, it is not taken for ended."""
        if self.seen is None:
            return None
        sign = self.seen.sign
        if not self.seen.epoch:
            return 0.0
        if self.seen.closed:
            return CLOSED_SECONDS[Word.SERVES if sign is None else sign.word]
        return None if sign is None else sign.lease_seconds + self._more

    @property
    def is_called(self) -> bool:
        """Whether the writer has said that whoever stands by is to come."""
        return self.seen is not None and self.seen.sign is not None and self.seen.sign.word is Word.HANDS_OVER

    @property
    def is_suspect(self) -> bool:
        """Whether half of that time is over."""
        patience = self.patience_seconds
        return patience is not None and self.silent_seconds >= patience / 2

    def verdict(self) -> Verdict:
        """What to do now."""
        patience = self.patience_seconds
        if self.seen is None or patience is None or self._last is None or self.silent_seconds < patience:
            return "wait"
        return "closed" if self.seen.closed else "silent"
