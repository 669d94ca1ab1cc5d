"""Quarantine: frames that are wanted of suspects wait apart from all others, and are tried again with pauses.

Who has waited for a frame as long as its patience, and it was tried again in vain, is told that it cannot be read. No
I/O: it is told what became of a GET, and says what to try next.
"""

import logging
from collections.abc import Callable

from storage.env import Env
from storage.errors import StorageError, Unavailable, Unreadable
from storage.lsm.sst.suspects import Suspects
from storage.lsm.sst.wanted import Waiter, Wanted, next_retries

EXPIRY_SECONDS = 1.0
"""How often it is looked at who has waited long enough."""

NOBODY = Unavailable("nobody waits for it")

_log = logging.getLogger("nbdserver")


class Quarantine:
    """What is wanted of suspects, by location, and the suspects. Owned by the event loop."""

    def __init__(self, env: Env, end: Callable[[Wanted, Exception], None], gap_bytes_max: int) -> None:
        """`end` is called when a frame is not to be had, or is wanted no more; it has to `let_go` of it."""
        self.suspects = Suspects()
        self._env = env
        self._end = end
        self._gap_bytes_max = gap_bytes_max
        self._apart: dict[int, Wanted] = {}

    def __len__(self) -> int:
        """Frames that wait in it."""
        return len(self._apart)

    def takes(self, wanted: Wanted, now: float) -> bool:
        """Whether a frame is wanted of a suspect; then it waits here from now on, or ends, if nobody waits for it."""
        if wanted.name not in self.suspects:
            return False
        if wanted.missed:
            wanted.set_apart(now)
            self._apart[wanted.ref.location] = wanted
        else:
            self._end(wanted, NOBODY)
        return True

    def let_go(self, wanted: Wanted) -> None:
        """A frame waits here no more."""
        self._apart.pop(wanted.ref.location, None)

    def next(self, now: float, room: int) -> list[list[Wanted]]:
        """Up to `room` groups to try now."""
        return next_retries([*self._apart.values()], now, room, self._gap_bytes_max)

    def due(self, now: float, *, may_retry: bool) -> list[float]:
        """Moments to come back at; `may_retry`: there will be room then."""
        due = [EXPIRY_SECONDS + now] if self._apart else []
        if may_retry:
            due += [wanted.due for wanted in self._apart.values() if not wanted.under_way]
        return due

    def expire(self, now: float) -> None:
        """Tell those who have waited long enough for a suspect, whether or not it was its turn to be tried again."""
        for wanted in list(self._apart.values()):
            proven = self.suspects.is_proven(wanted.name, wanted.suspected, wanted.newest)
            for waiter in wanted.waiters:
                if waiter.future.done() or not (proven or waiter.urgent):
                    continue
                if now - max(waiter.asked, wanted.suspected) >= self._limit(wanted, waiter, now):
                    waiter.future.set_exception(self._unreadable(wanted, now))
            if not wanted.missed and not wanted.under_way:
                self._end(wanted, NOBODY)

    def _limit(self, wanted: Wanted, waiter: Waiter, now: float) -> float:
        """How long to wait for a turn: a flush waits for no object that was withheld before it began."""
        withheld = now - self.suspects.withheld_since(wanted.name, wanted.ref.location, now)
        return EXPIRY_SECONDS if waiter.urgent and withheld >= waiter.patience else waiter.patience

    def _unreadable(self, wanted: Wanted, now: float) -> Unreadable:
        since = self.suspects.withheld_since(wanted.name, wanted.ref.location, now)
        reason = self.suspects.reason(wanted.name)
        return Unreadable(
            f"{wanted.name} could not be read for {now - since:.0f} s, while the store gives others: {reason}"
        )

    def failed(self, group: list[Wanted], error: StorageError, began: float) -> None:
        """A GET that began then failed: the object is withheld while others are given, and what is wanted of it waits
        here.
        """
        now = self._env.monotonic()
        name = group[0].name
        frames = {w.ref.location: [(waiter.layer, w.ref.block) for waiter in w.waiters] for w in group if w.missed}
        if not frames and name not in self.suspects:
            # Nobody waits for any of it, so nobody would ask again, which alone can clear it of suspicion.
            for wanted in group:
                self._end(wanted, error)
            return
        if self.suspects.failed(name, frames, str(error), since=began):
            _log.warning("object_unreadable", extra={"object": name, "error": str(error)})
        for wanted in group:
            if wanted.ref.location not in self._apart:
                wanted.set_apart(began)
            wanted.failed(began, now, self._env.jitter())
            since = self.suspects.withheld_since(name, wanted.ref.location, now)
            proven = self.suspects.is_proven(name, wanted.suspected, wanted.newest)
            wanted.give_up(self._unreadable(wanted, now), now, since, proven=proven)
            if wanted.missed:
                self._apart[wanted.ref.location] = wanted
            else:
                self._end(wanted, error)

    def gave(self, group: list[Wanted]) -> list[Wanted]:
        """A GET brought these frames of one object. What may leave, if the object is above suspicion now."""
        name = group[0].name
        if not self.suspects.gave(name, [wanted.ref.location for wanted in group]):
            return []
        _log.warning("object_readable", extra={"object": name})
        return [wanted for wanted in self._apart.values() if wanted.name == name]

    def dissolve(self) -> list[Wanted]:
        """The store as a whole is away, which is no fault of any object: nobody is suspected, and all may leave."""
        self.suspects.clear()
        return [*self._apart.values()]
