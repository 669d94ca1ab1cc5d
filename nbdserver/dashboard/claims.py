"""Claims: what the dashboard says of the safety of data, each with its evidence, the age of that, and what would make
it red. Pure.

A sentence is a list of parts: text, or what the page puts into the words of its reader, `{"time": seconds since 1970}`,
`{"age": seconds since 1970}`, `{"seconds": a length of time}`, `{"bytes": a size}`. A claim whose evidence is older
than `stale_seconds` says nothing any more: the page shows it grey, whatever it was.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

Document = Mapping[str, Any]
Part = str | dict[str, float]
State = Literal["good", "bad", "unknown"]

OLD_SECONDS = 30.0
"""Writes that are not durable after so long: `status` calls that a problem too."""

SAMPLE_SECONDS = 5.0
"""A look at the server's own memory is repeated each second; after five something is wrong with the page or the server.
"""

SILENCE_SECONDS_MAX = 30.0
"""Who writes a store asks it something every ten seconds."""

CERTIFICATE_SECONDS_MIN = 7 * 86400.0
"""Certificates are renewed weeks before they expire: one that has not been by now will not be by itself."""

READ_REPORT_SECONDS = 600.0
"""The report of what was read is made anew every half minute, or, of a very large store, less often."""


class SafetyClaim(msgspec.Struct, frozen=True):
    """One claim; `at` is when its evidence is from, None if there is none."""

    name: str
    title: str
    state: State
    says: list[Part]
    evidence: list[Part]
    at: float | None
    stale_seconds: float
    red: str
    """What would make it red."""


class Seen(msgspec.Struct, frozen=True):
    """What claims are made from: the store's status as a document, and what else was seen at `now`."""

    now: float
    store: Document
    answered: Mapping[str, float]
    """By verb: when the store answered last, in seconds since 1970."""
    problems: Sequence[str] = ()
    reads: Document | None = None
    """The report of what was read, with `at`, when it was made."""
    scrub_days: float = 0.0
    snapshots: Document | None = None
    """`count`, `newest` (when it was taken, or None), and `at`, when that was seen."""
    snapshot_seconds: float | None = None
    """So often one is to be taken; None: there is no schedule."""
    certificate: Document | None = None
    """The `path` of the certificate, or list of revoked ones, that expires first, and `until` when it is valid; None:
    there is no TLS.
    """


def claims(seen: Seen) -> list[SafetyClaim]:
    """All of them, the gravest question first."""
    found = [_view(seen)] if seen.store["view"] else [_durable(seen), _writer(seen)]
    found += [_answers(seen), _sound(seen), _snapshots(seen)]
    return found if seen.certificate is None else [*found, _certificate(seen, seen.certificate)]


def _durable(seen: Seen) -> SafetyClaim:
    store = seen.store
    behind, waiting = store["unlogged_seconds"], store["unlogged_bytes"]
    says: list[Part] = ["durable to ", {"time": seen.now - behind}, ", ", {"age": seen.now - behind}]
    evidence: list[Part] = [f"by wal/{store['wal_acknowledged']}"]
    if waiting:
        evidence += [
            "; ",
            {"bytes": waiting},
            " written since are not durable yet, the oldest for ",
            {"seconds": behind},
        ]
    else:
        evidence.append("; nothing waits")
    bad = behind > OLD_SECONDS or store["failing"] is not None
    return SafetyClaim(
        "durable",
        "What clients flushed is durable",
        "bad" if bad else "good",
        says,
        evidence,
        seen.now,
        SAMPLE_SECONDS,
        "the store fails, or something written is not durable after 30 s",
    )


def _view(seen: Seen) -> SafetyClaim:
    view = seen.store["view"]
    return SafetyClaim(
        "view",
        "What is shown is what the writer committed",
        "bad" if view["reason"] or view["collected"] or view["missing"] else "good",
        ["a view of ", {"time": view["as_of"]}, ", ", {"age": view["as_of"]}],
        [f"by manifest/{store_number(seen.store)}", *(f"; {view[why]}" for why in ("reason", "missing") if view[why])],
        seen.now,
        SAMPLE_SECONDS,
        "there is no newer view though there may be something newer, or parts of one in use were deleted",
    )


def store_number(store: Document) -> int:
    """The number of the newest manifest."""
    number: int = store["manifest"]
    return number


def _writer(seen: Seen) -> SafetyClaim:
    """The next manifest is asked for every ten seconds: whoever took the store has made it. No other request tells."""
    at = seen.store["sole_writer_at"]
    return SafetyClaim(
        "writer",
        "This server is the only writer",
        "unknown" if at is None else "good",
        [f"epoch {seen.store['epoch']}"],
        ["not looked yet"] if at is None else ["looked for a newer writer ", {"age": at}],
        at,
        SILENCE_SECONDS_MAX,
        "never here: once another writer has taken the store, this server acknowledges nothing and ends (status 11)",
    )


def _answers(seen: Seen) -> SafetyClaim:
    store = seen.store
    at = max(seen.answered.values(), default=None)
    verb = max(seen.answered, key=lambda verb: seen.answered[verb], default=None)
    says: list[Part] = [store["url"]]
    evidence: list[Part] = ["it was not asked yet"] if at is None else [f"it answered a {verb} ", {"age": at}]
    bad = False
    if failing := store["failing"]:
        bad, says = True, ["fails since ", {"time": failing["since"]}, f": {failing['reason']}"]
    elif alone := store["failing_requests"]:
        bad = True
        says = [f"{alone[0]['name']} fails since ", {"time": alone[0]["since"]}, f": {alone[0]['reason']}"]
    elif store["garbage"]["since"] is not None:
        bad, says = True, ["refuses to delete what nothing needs: ", store["garbage"]["reason"]]
    return SafetyClaim(
        "answers",
        "The store answers",
        "bad" if bad else "unknown" if at is None else "good",
        says,
        evidence,
        seen.now if bad else at,
        SAMPLE_SECONDS if bad else SILENCE_SECONDS_MAX,
        "it does not answer, is full or denies access; a single request fails for ten seconds; it refuses to delete",
    )


def _sound(seen: Seen) -> SafetyClaim:
    store, reads = seen.store, seen.reads
    wrong = [*store["lost"], *store["damaged"], *(each["name"] + " cannot be read" for each in store["unreadable"])]
    says, evidence, state, at = _read_check(seen, reads)
    if wrong:
        says, state, at = [wrong[0], *([f", and {len(wrong) - 1} more"] if wrong[1:] else [])], "bad", seen.now
    return SafetyClaim(
        "sound",
        "All that is stored can be read",
        state,
        says,
        evidence,
        at,
        SAMPLE_SECONDS if wrong else READ_REPORT_SECONDS,
        "an object is damaged, missing or kept back by the store"
        + (f"; grey when something was not read for {1.5 * seen.scrub_days:.0f} days" if seen.scrub_days else ""),
    )


def _read_check(seen: Seen, reads: Document | None) -> tuple[list[Part], list[Part], State, float | None]:
    """What a scrub, or a check of all data, has read lately: what it says, the evidence, and the age of that."""
    if reads is None:
        return ["not looked yet"], [], "unknown", None
    ever = sum(group["bytes"] for group in reads["last_read"] if group["since"] != "never")
    total = sum(group["bytes"] for group in reads["last_read"])
    if not total:
        return ["there is nothing to read yet"], ["the manifest lists no SST"], "good", reads["at"]
    oldest = reads["oldest"]
    says: list[Part] = [f"read check: {100 * ever / total:.0f} %, oldest part ", {"seconds": seen.now - oldest}]
    evidence: list[Part] = [
        {"bytes": ever},
        " of ",
        {"bytes": total},
        " read to the end and sound; unread parts count from when they were written",
    ]
    if not seen.scrub_days:
        return says, [*evidence, "; nothing is read by itself (--scrub-days 0)"], "unknown", reads["at"]
    late = seen.now - oldest > 1.5 * seen.scrub_days * 86400
    return says, evidence, "unknown" if late else "good", reads["at"]


def _snapshots(seen: Seen) -> SafetyClaim:
    found, every = seen.snapshots, seen.snapshot_seconds
    title, red = "There is something to go back to", "never without a schedule (--keep)"
    if every is not None:
        red = f"the newest snapshot is older than {2 * every / 3600:.0f} hours, twice what the schedule says"
    if found is None:
        return SafetyClaim("snapshots", title, "unknown", ["not looked yet"], [], None, READ_REPORT_SECONDS, red)
    if found["newest"] is None:
        state: State = "bad" if every is not None and seen.store["uptime_seconds"] > 2 * every else "unknown"
        nothing: list[Part] = ["no snapshot: what is overwritten or deleted is gone"]
        return SafetyClaim("snapshots", title, state, nothing, [], found["at"], READ_REPORT_SECONDS, red)
    late = every is not None and seen.now - found["newest"] > 2 * every
    says: list[Part] = ["the newest snapshot is from ", {"time": found["newest"]}, ", ", {"age": found["newest"]}]
    evidence: list[Part] = [f"{found['count']} snapshots; they lie in the same store, and a copy elsewhere is safer"]
    return SafetyClaim(
        "snapshots", title, "bad" if late else "good", says, evidence, found["at"], READ_REPORT_SECONDS, red
    )


def _certificate(seen: Seen, certificate: Document) -> SafetyClaim:
    """What the server shows clients is that which it read last, whatever lies in the folder now."""
    left = certificate["until"] - seen.now
    says: list[Part] = ["valid for ", {"seconds": left}] if left > 0 else ["expired ", {"age": certificate["until"]}]
    return SafetyClaim(
        "certificate",
        "Clients can check who this server is",
        "bad" if left < CERTIFICATE_SECONDS_MIN else "good",
        says,
        [f"{certificate['path']}, as it was read last, until ", {"time": certificate["until"]}],
        seen.now,
        SAMPLE_SECONDS,
        "less than 7 days are left: renew it, and have the server read it (SIGHUP)",
    )


def verdict(found: Iterable[SafetyClaim]) -> State:
    """Of all claims together: bad if one is."""
    states = {claim.state for claim in found}
    return "bad" if "bad" in states else "unknown" if "unknown" in states else "good"
