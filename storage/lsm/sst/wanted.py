"""Frames that were asked for and are not here yet, and who waits for them."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from storage.cache.frame_cache import Decoded
from storage.fetch_times import OBJECTS_MAX, FetchTimes
from storage.format.blocks import FrameRef
from storage.lsm.sst.ranges import coalesce

SUSPECT_PAUSE_SECONDS_MIN = 0.1
SUSPECT_PAUSE_SECONDS_MAX = 10.0
"""Between two tries of a frame of a suspect, doubling."""

GROUP_MAX = 64
"""Frames of a suspect that are tried together at first. Each failure quarters that, so that a bad one ends alone."""


@dataclass(slots=True, eq=False)
class Waiter:
    """Somebody who waits for a frame; seconds, and moments of a monotonic clock."""

    future: asyncio.Future[Decoded]
    asked: float
    patience: float
    layer: int
    urgent: bool
    """The memtable flush waits for it."""


@dataclass(slots=True, eq=False)
class Wanted:
    """A frame. One without waiters is fetched ahead."""

    ref: FrameRef
    name: str
    waiters: list[Waiter] = field(default_factory=list)
    tries: int = 0
    """GETs in vain, since its object is a suspect."""
    due: float = 0.0
    """When to try again (`Env.monotonic`)."""
    suspected: float = 0.0
    """Since when it waits among what is wanted of suspects; when the first GET in vain began, if there was one."""
    newest: float = 0.0
    """When the newest GET began that was in vain since then."""
    under_way: bool = False
    gets: int = 0
    """GETs that were begun for it."""
    began: float = 0.0
    """When the newest of them began."""
    answered: float = 0.0
    """When the store's answer with it was there; 0: it is not."""

    @property
    def missed(self) -> bool:
        """Whether anybody still waits for it."""
        return any(not waiter.future.done() for waiter in self.waiters)

    @property
    def urgent(self) -> bool:
        """Whether the memtable flush waits for it."""
        return any(waiter.urgent for waiter in self.waiters)

    @property
    def abandoned(self) -> bool:
        """Whether all who waited for it went away."""
        return bool(self.waiters) and not self.missed

    def set_apart(self, now: float) -> None:
        """Its object is a suspect from now on, seconds of `Env.monotonic`: it waits apart, and may be tried at once."""
        self.suspected = self.newest = self.due = now
        self.tries = 0

    def failed(self, began: float, now: float, jitter: float) -> None:
        """A GET that began then was in vain: try again later."""
        self.tries += 1
        self.newest = max(self.newest, began)
        self.due = now + min(SUSPECT_PAUSE_SECONDS_MIN * 2**self.tries, SUSPECT_PAUSE_SECONDS_MAX) * (0.5 + jitter / 2)

    def give_up(self, error: Exception, now: float, since: float, *, proven: bool) -> None:
        """Tell those whose patience has ended, if the frame is withheld since then; the memtable flush does not need to
        have that proven.
        """
        for waiter in self.waiters:
            if not waiter.future.done() and now - since >= waiter.patience and (proven or waiter.urgent):
                waiter.future.set_exception(error)


def in_turns(groups: list[list[Wanted]]) -> list[list[Wanted]]:
    """Groups in order of asking, so that layers take turns: a disk of which little is asked does not wait for all that
    was asked of others before. What nobody waits for comes last.
    """
    before: Counter[int] = Counter()
    turns: list[tuple[bool, int]] = []
    for group in groups:
        layers = {waiter.layer for wanted in group for waiter in wanted.waiters if not waiter.future.done()}
        turns.append((not layers, min((before[layer] for layer in layers), default=0)))
        before.update(layers)
    order = sorted(range(len(groups)), key=lambda place: (*turns[place], place))
    return [groups[place] for place in order]


def note_times(times: FetchTimes, wanted: list[Wanted], asked: float, now: float) -> None:
    """A round of fetching that began at `asked` is over: add where its time went, by the frame whose answer came last.
    Who came to a GET that was under way waited for the rest of it alone.
    """
    if not wanted:
        return
    last = max(wanted, key=lambda each: (each.answered or now, each.began))
    began = min(max(last.began, asked), now) if last.gets else now
    answered = min(max(last.answered, began), now) if last.answered else now
    times.waiting += began - asked
    times.store += answered - began
    times.decoding += now - answered
    times.requests += len({(each.name, each.began) for each in wanted if each.gets})
    times.tries = max(times.tries, *(each.gets for each in wanted))
    names = dict.fromkeys(each.name for each in wanted)
    times.objects += [name for name in names if name not in times.objects][: OBJECTS_MAX - len(times.objects)]


def next_retries(apart: list[Wanted], now: float, room: int, gap_bytes_max: int) -> list[list[Wanted]]:
    """Up to `room` groups to try now. What was tried least goes first: parts of a suspect that can be read are not kept
    by those that cannot.
    """
    due = [wanted for wanted in apart if not wanted.under_way and wanted.due <= now]
    due.sort(key=lambda wanted: (wanted.tries, wanted.due))
    groups: list[list[Wanted]] = []
    taken: set[int] = set()
    for wanted in due:
        if len(groups) == room:
            break
        if wanted.ref.location not in taken:
            groups.append(_neighbours(wanted, [w for w in due if w.ref.location not in taken], gap_bytes_max))
            taken.update(w.ref.location for w in groups[-1])
    return groups


def _neighbours(first: Wanted, due: list[Wanted], gap_bytes_max: int) -> list[Wanted]:
    """The frames that go with one, fewer the more often it was tried."""
    alike = {w.ref.location: w for w in due if w.name == first.name and w.tries == first.tries}
    limit = max(GROUP_MAX >> 2 * first.tries, 1)
    for group in coalesce(sorted((w.ref for w in alike.values()), key=lambda ref: ref.location), gap_bytes_max):
        for start in range(0, len(group), limit):
            part = group[start : start + limit]
            if first.ref in part:
                return [alike[ref.location] for ref in part]
    return [first]
