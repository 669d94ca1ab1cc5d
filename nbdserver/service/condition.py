"""The condition of a store in sentences for people: what is wrong with it, and what somebody waits for.

They are made from a `StoreStatus` as a document, so that a command has the same words for a store of its own and for
that of a server it asked. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nbdserver.config import format_size

if TYPE_CHECKING:
    from storage import Opening

LONG_SECONDS = 10.0
"""An opening that takes longer: a log of the usual size is replayed in a second or two."""

OLD_SECONDS = 30.0
"""Writes that are not durable after so long: they are pushed after one second, so something is wrong."""

FAILING_MAX = 3
"""Requests that fail by themselves: so many are said, as they mostly fail for one reason."""

Document = Mapping[str, Any]


def problems(store: Document) -> list[str]:
    """What is wrong with a store, one sentence each; nothing if all is well."""
    found = []
    if failing := store["failing"]:
        found.append(f"the store fails since {moment(failing['since'])}: {failing['reason']}")
    found += [_failing(each) for each in store["failing_requests"][:FAILING_MAX]]
    if store["unlogged_seconds"] > OLD_SECONDS:
        found.append(f"{not_durable(store)}: it is lost if this machine stops")
    found += store["lost"]
    found += [f"{sentence} (nbdserver check --read-data says where devices show it)" for sentence in store["damaged"]]
    for withheld in store["unreadable"]:
        since = moment(withheld["since"])
        found.append(f"{withheld['name']} cannot be read since {since}: {withheld['reason']}{_where(withheld)}")
    if kept := store["kept_bytes"]:
        found.append(f"{format_size(kept)} cannot leave the log, since what lies below them cannot be read")
    if store["view"]:
        found += _lags(store["view"])
    found += [
        f"{each['name']} has no sound copy since {moment(each['since'])}, and damage to it would be the loss of the "
        f"store: {each['reason']} (unless that says otherwise, let this server write below spare/)"
        for each in store["uncopied"]
    ]
    found += store["unkept"]
    found += [
        f"the schedule takes no snapshot of {each['device']} since {moment(each['since'])}: {each['reason']}"
        for each in store["untaken"]
    ]
    garbage = store["garbage"]
    if garbage["since"] is not None:
        found.append(
            f"{garbage['objects']} objects that nothing needs cannot be deleted since {moment(garbage['since'])}: "
            f"{garbage['reason']}"
        )
    return found


def summary(store: Document, clients: int) -> str:
    """A served store in one sentence: the gravest of what is wrong with it, or what it does."""
    wrong = problems(store)
    if wrong:
        return f"{wrong[0]} (and {len(wrong) - 1} more: nbdserver status)" if wrong[1:] else wrong[0]
    if store["view"]:
        return f"{store['devices']} devices, {clients} connections; a view {view(store['view'])}"
    waiting = not_durable(store) if store["unlogged_bytes"] else "everything durable"
    return f"{store['devices']} devices, {clients} connections; {waiting}"


def budget_words(outlook: Document) -> str:
    """How the month stands beside its budget of requests."""
    spent, budget, projected = (
        outlook[name] for name in ("month_requests", "request_budget", "month_requests_projected")
    )
    slow = outlook["background_slowdown"]
    slowed = f"; background work is {slow:.1f} times slower" if slow > 1.0 else ""
    return f"{spent:,} of {budget:,}, {projected:,} as in the last six hours{slowed}"


def refused(client: Document) -> str:
    """A client that is refused an export for what was lost, as a sentence."""
    export = client["export"]
    return (
        f"{export} is refused to {client['client']}, which was attached when something was lost: detach it there, have "
        f"its filesystem checked, then: nbdserver client accept {export}"
    )


def waits_for(store: Document) -> str:
    """What somebody waits for whose request to an open store is not answered yet."""
    parts = []
    if store["unlogged_bytes"]:
        parts.append(not_durable(store))
    if store["flushing"]:
        parts.append(f"waiting for {store['flushing']}")
    if failing := store["failing"]:
        parts.append(f"the store fails since {moment(failing['since'])}: {failing['reason']}")
    parts += [_failing(each) for each in store["failing_requests"][:1]]
    return "; ".join(parts) or "waiting for the store"


def opening(where: str, told: Opening, waited: float) -> str:
    """What somebody waits for who opens a store; nothing while that goes on and does not take long."""
    if told.health is not None and told.health.failing is not None:
        return f"opening {where}: waiting for {told.step}: {told.health.failing.reason}"
    return f"opening {where}: reading {told.step}, for {waited:.0f} s" if waited > LONG_SECONDS else ""


def not_durable(store: Document) -> str:
    """How much is not durable, and how old it is."""
    return f"{format_size(store['unlogged_bytes'])} not durable yet, the oldest for {store['unlogged_seconds']:.0f} s"


def moment(seconds: float) -> str:
    """A time in the local zone, to the second."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def view(shown: Document) -> str:
    """What a server shows that follows another one."""
    older = f"; {shown['older']} older ones are attached" if shown["older"] else ""
    return f"of {moment(shown['as_of'])}, {shown['age_seconds']:.0f} s old{older}"


def standing_by(found: Document) -> str:
    """Beside which writer a server stands by, and how it is known that that lives."""
    if found["reason"]:
        return f"stands by beside epoch {found['epoch']}, and cannot look: {found['reason']}"
    if found["basis"] == "lock":
        return f"stands by beside process {found['writer_pid']} of this host (epoch {found['epoch']}), which lives"
    if not found["epoch"]:
        return "stands by, and has not found the writer yet"
    if found["basis"] == "nothing":
        return (
            f"stands by beside epoch {found['epoch']}, which gives no signs of life: it takes the store only when that "
            "is closed; have its server started with --standby too"
        )
    return (
        f"stands by beside epoch {found['epoch']}: {found['silent_seconds']:.1f} s without a sign of life, of "
        f"{found['patience_seconds']:.1f} s after which it takes the store"
    )


def _lags(shown: Document) -> list[str]:
    """What is wrong with that."""
    found = []
    if shown["collected"]:
        found.append(
            "what a client has attached was read as it was at a moment of which the writer has deleted parts since: "
            "its reads fail, until it attaches again"
        )
    if shown["reason"]:
        found.append(f"what is shown is {shown['age_seconds']:.0f} s old: {shown['reason']}")
    if shown["missing"]:
        found.append(shown["missing"])
    return found


def _failing(request: Document) -> str:
    """A request that fails while others are answered."""
    what = {"create": "cannot be written", "put": "cannot be written", "list": "cannot be listed"}
    means = what.get(request["request"], f"cannot be asked for ({request['request']})")
    return f"{request['name']} {means} since {moment(request['since'])}: {request['reason']}"


def _where(unreadable: Document) -> str:
    """The parts of disks that were met, the first few."""
    ranges = [f"{each['device']} at {each['offset']}" for each in unreadable["ranges"][:3]]
    return f" (met in {', '.join(ranges)})" if ranges else ""
