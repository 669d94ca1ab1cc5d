"""Retention: which snapshots a schedule takes and deletes. Pure.

A schedule such as hourly=24,daily=7 keeps the first snapshot of each of the last 24 hours in which one was taken, and
of each of the last 7 days. Hours, days, weeks (from Monday), months and years are those of UTC. It takes one in each
of its shortest periods, and no second one. What was taken at a time that is yet to come, by a clock that was ahead,
stays until then and counts from then on: it keeps nothing from being taken now, and is no reason to delete anything.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime

Keep = Mapping[str, int]
"""How many of each period, by its name in `PERIODS`; not empty, each at least 1."""

_DAY = 86400

PERIODS: dict[str, Callable[[float], int]] = {
    "hourly": lambda moment: int(moment // 3600),
    "daily": lambda moment: int(moment // _DAY),
    "weekly": lambda moment: int((moment // _DAY + 3) // 7),  # 1 January 1970 was a Thursday
    "monthly": lambda moment: _month(moment),
    "yearly": lambda moment: _month(moment) // 12,
}
"""Which hour, day and so on a moment, in seconds since 1970, lies in; the shortest first."""


def retained(keep: Keep, moments: Iterable[float], now: float) -> set[float]:
    """Of snapshots that were taken at these moments, those that the schedule keeps."""
    ordered: list[float] = []
    result = set[float]()
    for moment in sorted(moments):
        if moment <= now:
            ordered.append(moment)
        else:
            result.add(moment)
    for period, count in keep.items():
        first: dict[int, float] = {}
        for moment in ordered:
            first.setdefault(PERIODS[period](moment), moment)
        result.update(first[number] for number in sorted(first)[-count:])
    return result


def is_due(keep: Keep, moments: Collection[float], now: float) -> bool:
    """Whether a snapshot is to be taken now, if those of the schedule that are there were taken at `moments`."""
    shortest = next(period for period in PERIODS if period in keep)
    number = PERIODS[shortest](now)
    return all(PERIODS[shortest](moment) != number for moment in moments)


def _month(moment: float) -> int:
    at = datetime.fromtimestamp(moment, UTC)
    return at.year * 12 + at.month - 1
