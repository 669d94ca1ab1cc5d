"""A budget of requests to the store for a month: what was asked so far, where that leads, and how much slower
background work goes to keep it. Pure.

Months are those of the calendar, in UTC. Every attempt counts, of whatever verb, as in `RequestStats`. What is known of
earlier hours outlives a restart in a file of this host; if that is lost the month begins anew at nothing, and what
follows is that background work is slowed too late, and a warning may come twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

import msgspec

WINDOW_HOURS = 6
"""The pace is that of so many hours and what has passed of this one, as if nothing had come in hours that nobody
counted: what a start asks for is no pace.
"""

HOUR_SECONDS = 3600.0

DOUBLING_SHARE = 0.05
"""With each such share that the projection is beyond the budget, background work takes twice as long."""

SLOWDOWN_MAX = 16.0
"""Background work that never ended would keep a store from being read through, and in many pieces, for ever."""

SPENDING_VERSION = 1


class BudgetNews(IntEnum):
    """What is said once in a month."""

    NONE = 0
    PASSES = 1
    """The projection is beyond the budget."""
    USED_UP = 2


class Outlook(msgspec.Struct, frozen=True):
    """How a month stands: the `BUDGET_STATS`."""

    request_budget: int
    month_requests: int
    month_requests_projected: int
    background_slowdown: float

    @property
    def news(self) -> BudgetNews:
        """What somebody should know of it."""
        if self.month_requests >= self.request_budget:
            return BudgetNews.USED_UP
        return BudgetNews.PASSES if self.month_requests_projected > self.request_budget else BudgetNews.NONE


class _SpendingFile(msgspec.Struct, frozen=True, array_like=True):
    version: int
    month: str
    spent: int
    hours: dict[int, int]
    said: int
    said_of: int


class Spending:
    """What was asked of a store in this month and in the last hours. Moments in seconds since 1970."""

    def __init__(self) -> None:
        self.month = ""
        """As 2026-11."""
        self.spent = 0
        """In it."""
        self.hours: dict[int, int] = {}
        """By hour since 1970, of the last ones: those of a month that has just ended too."""
        self._said = BudgetNews.NONE
        self._said_of = 0

    @classmethod
    def decode(cls, raw: bytes | None) -> "Spending":
        """What `encode` gave; nothing, if it was damaged: it is only a memory."""
        found = cls()
        if raw is None:
            return found
        try:
            file = msgspec.msgpack.decode(raw, type=_SpendingFile)
            said = BudgetNews(file.said)
        except (msgspec.MsgspecError, ValueError):
            return found
        if file.version == SPENDING_VERSION:
            found.month, found.spent, found.hours = file.month, file.spent, dict(file.hours)
            found._said, found._said_of = said, file.said_of
        return found

    def encode(self) -> bytes:
        """What is kept between two runs of a server, as the bytes of a file."""
        file = _SpendingFile(SPENDING_VERSION, self.month, self.spent, self.hours, int(self._said), self._said_of)
        return msgspec.msgpack.encode(file)

    def note(self, requests: int, now: float) -> None:
        """So many more were sent, up to `now`. In a month that is not the last one noted the count begins anew: a clock
        that was wrong for a while costs a count, and does not stop it for years.
        """
        month, hour = _month(now), int(now // HOUR_SECONDS)
        if month != self.month:
            self.month, self.spent, self._said = month, 0, BudgetNews.NONE
        self.spent += requests
        self.hours[hour] = self.hours.get(hour, 0) + requests
        self.hours = {at: count for at, count in self.hours.items() if hour - WINDOW_HOURS <= at <= hour}

    def outlook(self, budget: int, now: float) -> Outlook:
        """How the month stands at `now`, the moment of the last `note`."""
        projected = self.spent + pace(self.hours, now) * max(_month_ends(now) - now, 0.0)
        return Outlook(budget, self.spent, round(projected), slowdown(budget, self.spent, projected))

    def untold(self, outlook: Outlook) -> BudgetNews:
        """What is to be said now, and is not said again in this month of this budget."""
        said = self._said if self._said_of == outlook.request_budget else BudgetNews.NONE
        if outlook.news <= said:
            return BudgetNews.NONE
        self._said, self._said_of = outlook.news, outlook.request_budget
        return outlook.news


def pace(hours: Mapping[int, int], now: float) -> float:
    """Requests a second in the last hours before `now`."""
    first = int(now // HOUR_SECONDS) - WINDOW_HOURS
    return sum(count for hour, count in hours.items() if hour >= first) / (now - first * HOUR_SECONDS)


def slowdown(budget: int, spent: float, projected: float) -> float:
    """How many times longer background work takes: 1, as long as the budget will do."""
    if spent >= budget:
        return SLOWDOWN_MAX
    beyond = max(projected / budget - 1.0, 0.0)
    return SLOWDOWN_MAX if beyond >= 1.0 else min(float(2.0 ** (beyond / DOUBLING_SHARE)), SLOWDOWN_MAX)


@dataclass(frozen=True, slots=True)
class JobRest:
    """The rest after a job of background work: until when nobody begins another."""

    usual_seconds: float
    """Of all jobs."""
    slowed_seconds: float
    """Of those that can wait."""


def rest_after(took_seconds: float, usual_seconds: float, slowdown: float) -> JobRest:
    """That after a job that took so long, and after which there is a rest anyway: both together, so many times."""
    return JobRest(usual_seconds, usual_seconds + (slowdown - 1.0) * (took_seconds + usual_seconds))


def _month(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m")


def _month_ends(now: float) -> float:
    at = datetime.fromtimestamp(now, UTC)
    year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()
