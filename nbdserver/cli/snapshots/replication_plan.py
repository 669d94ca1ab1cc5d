"""What a round of a replication does with the snapshots it finds on both sides, and what it says. No I/O.

The snapshots that a replication takes are its own, and told by their name: `replica-`, eight digits that stand for the
second store and the device in it, and the time. So several replications of one device do not touch each other's, and
none those of anybody else. What two snapshots hold is the same where their identity is, whatever they are called.

A chain holds as long as both sides have one snapshot in common: so the newest that they have stays on both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from nbdserver.config import format_size

_TAG_DIGITS = 8

TRY_AGAIN_SECONDS = 60.0
"""At most until a round that failed is tried again."""

_PASSING = frozenset(
    ("Unavailable", "Unreadable", "Fenced", "Conflict", "AlreadyExists", "Closed", "OutOfSpace", "NoBucket")
)
"""The errors of a store that may be over when a round is tried again, by the names of their classes."""


@dataclass(frozen=True, slots=True)
class Held:
    """A snapshot of one of the two devices; when it was taken in seconds since 1970."""

    name: str
    identity: str
    created: float


@dataclass(frozen=True, slots=True)
class Round:
    """What a round came to; moments in seconds since 1970."""

    device: str
    replica: str
    snapshot: str
    """The newest one that both sides have: what the replica shows."""
    as_of: float
    """The replica is as the device was then."""
    stream_bytes: int | None
    """That were moved; None: nothing had changed."""
    seconds: float
    """That moving them took."""


def own_prefix(store_id: str, replica: str) -> str:
    """What the names of the snapshots begin with that are taken to keep one device of a second store alike."""
    digits = hashlib.sha256(f"{store_id} {replica}".encode(errors="surrogateescape")).hexdigest()[:_TAG_DIGITS]
    return f"replica-{digits}-"


def own(snapshots: Iterable[Held], prefix: str) -> list[Held]:
    """Those that the replication of this prefix has taken."""
    pattern = re.compile(re.escape(prefix) + r"\d{8}T\d{6}Z(-\d+)?")
    return [one for one in snapshots if pattern.fullmatch(one.name)]


def new_name(prefix: str, now: float, snapshots: Iterable[Held]) -> str:
    """A name for the next one, which none of these has: those of both sides, since it is to be brought."""
    taken = {one.name for one in snapshots}
    plain = name = f"{prefix}{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
    count = 1
    while name in taken:
        count += 1
        name = f"{plain}-{count}"
    return name


def newest_common(source: Sequence[Held], target: Sequence[Held]) -> tuple[Held, Held] | None:
    """The newest snapshot of the source that the target has too, as each of them has it. Both are oldest first."""
    there = {one.identity: one for one in target}
    return next(((one, there[one.identity]) for one in reversed(source) if one.identity in there), None)


def brought(source: Sequence[Held], target: Sequence[Held], prefix: str) -> list[str]:
    """The names there of what was brought, the newest that both have first, and then the newest: while nobody but a
    replication writes to the replica, it holds one of these. What somebody took of it there is none of them.
    """
    known = {one.identity for one in source} | {one.identity for one in own(target, prefix)}
    names = [one.name for one in reversed(target) if one.identity in known]
    common = newest_common(source, target)
    first = [] if common is None else [common[1].name]
    return first + [name for name in names if name not in first]


def unneeded(
    source: Sequence[Held], target: Sequence[Held] | None, prefix: str, keep: int
) -> tuple[list[str], list[str]]:
    """The names of the snapshots that may be deleted at the source, and at the target, where the newest `keep` stay.
    Without a replica (None) nobody needs those that were taken for it; one that has none in common needs a decision.
    """
    if target is None:
        return [one.name for one in own(source, prefix)], []
    common = newest_common(source, target)
    if common is None:
        return [], []
    here = [one.name for one in own(source, prefix) if one != common[0]]
    there = [one.name for one in own(target, prefix)[:-keep] if one != common[1]]
    return here, there


def passes(error: Exception, *, begun: bool) -> bool:
    """Whether what a round failed with may pass by itself. Once a round came to its end (`begun`), so may it that a
    store or a device is not there: what it was told before was right.
    """
    name = type(error).__name__
    return name in _PASSING or (begun and name == "NotFound")


def pause_after(every: float, took: float, *, failed: bool) -> float:
    """The seconds from the end of a round that took so long to the next."""
    wanted = min(every, TRY_AGAIN_SECONDS) if failed else every
    return max(0.0, wanted - took)


def facts(done: Round, now: float) -> dict[str, object]:
    """A round, for programs."""
    return {
        "device": done.device,
        "replica": done.replica,
        "snapshot": done.snapshot,
        "as_of": done.as_of,
        "lag_seconds": lag(done.as_of, now),
        "changed": done.stream_bytes is not None,
        "stream_bytes": done.stream_bytes or 0,
        "seconds": round(done.seconds, 3),
    }


def sentence(done: Round, now: float) -> str:
    """A round, for people."""
    behind = age(lag(done.as_of, now))
    if done.stream_bytes is None:
        return f"{done.replica}: as {done.device}, in which nothing changed; {behind} behind"
    rate = format_size(round(done.stream_bytes / max(done.seconds, 0.001)))
    moved = f"{format_size(done.stream_bytes)} in {done.seconds:.1f} s ({rate}/s)"
    return f"{done.replica}: as {done.device} was at {moment(done.as_of)}, {moved}; {behind} behind"


def failure(replica: str, reason: str, as_of: float | None, now: float) -> str:
    """A round that failed and is tried again, for people."""
    shows = "" if as_of is None else f"; {replica} is as of {moment(as_of)}, {age(lag(as_of, now))} behind"
    return f"{reason}{shows}: trying again"


def lag(as_of: float, now: float) -> float:
    """How old the newest state at the target is, in seconds; the clocks of two hosts may differ."""
    return round(max(0.0, now - as_of), 3)


def moment(seconds: float) -> str:
    """A time, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")


def age(seconds: float) -> str:
    """`3 s`, `5 min`, `2 h`, `3 d`."""
    for unit, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
