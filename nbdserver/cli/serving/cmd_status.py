"""`nbdserver status` and `flush`: how a store is doing, and making everything durable."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.backend import at_rest, perform
from nbdserver.cli.shared.client_words import sentence
from nbdserver.cli.shared.exit_status import PROBLEMS
from nbdserver.cli.shared.parameters import Place, json_option, store_argument
from nbdserver.service.condition import budget_words, problems, refused, standing_by, view, waits_for

if TYPE_CHECKING:
    from nbdserver.admin.asked import Answer
    from nbdserver.admin.client import AdminClient
    from storage import Store


SIGN_SECONDS_LATE = 4.0
"""The shortest lease of `storage.fs.succession.signs_of_life`, which is not loaded for this."""


@click.command()
@json_option
@store_argument
def status(place: Place, as_json: bool) -> int:
    """Show what is served, to whom, and how the store is doing.

    Without a server on this host the store is read: "served" is then "not here", or names the process that is starting
    to serve it. A server that does not answer within 10 seconds, or is only making the store, is an error (status 21).

    \b
    The exit status is 3, and "problem" (in JSON "problems") says what it is, when
    - the store fails: it does not answer, is full, or denies access;
    - something written is not durable after 30 seconds;
    - an object cannot be read, or sectors cannot leave the log for that;
    - the newest manifest or the keys have no copy, since the store does not take it;
    - what nothing needs any more cannot be deleted;
    - a client is refused, since something that it was answered may be lost (see "client accept");
    - signs of life, of a server that others stand by for, do not reach the store;
    - a server of this host stands by (serve --standby) and has nothing to go by, or gets no answer from the store;
    - a server that follows another one (serve --read-only) has clients whose view has lost parts, or gets no newer one.
    """
    from nbdserver.admin.client import find_reader, find_server, find_standby

    server, reader = find_server(place.store, os.environ), find_reader(place.store, os.environ)
    silent: list[str] = []
    followed = None if server is None else _beside(reader, "which follows", silent)
    standby = _beside(find_standby(place.store, os.environ), "which stands by", silent)
    server = server or reader
    answer = {
        **(_at_rest(place) if server is None else {"served": True, **server.status()}),
        "follower": followed,
        "standby": None if standby is None else {"pid": standby["pid"], **standby["standby"]},
    }
    store = answer["store"]
    wrong = [*problems(store), *map(refused, answer["refused"]), *silent]
    if followed is not None:
        wrong += problems(followed["store"])
    if (answer.get("sign_age_seconds") or 0.0) > SIGN_SECONDS_LATE:
        wrong.append(
            f"no sign of life has reached the store for {answer['sign_age_seconds']:.0f} s: who stands by may take it"
        )
    if standby is not None and (standby["standby"]["reason"] or standby["standby"]["basis"] == "nothing"):
        wrong.append(f"process {standby['pid']} {standing_by(standby['standby'])}")
    if as_json:
        output.document({**answer, "problems": wrong})
    else:
        output.facts(list(_facts(answer, store, wrong)))
    return PROBLEMS if wrong else 0


def _beside(client: AdminClient | None, who: str, silent: list[str]) -> Answer | None:
    """What another server of this store on this machine says; one that does not answer is a problem, and no more."""
    from storage.errors import Unavailable

    try:
        return None if client is None else client.status()
    except Unavailable as error:
        silent.append(f"of one {who}: {error}")
        return None


def _at_rest(place: Place) -> Answer:
    """What the store says by itself, and which process is starting to serve it, if one is. Unavailable: that is making
    the store.
    """
    from nbdserver.admin.starting import find_starting
    from storage.errors import NotFound, Unavailable

    pid = find_starting(place.store, os.environ)
    try:
        answer = at_rest(place, _describe, writes=False)
    except NotFound:
        if pid is None:
            raise
        raise Unavailable(f"process {pid} is starting, and makes the store {place.store}: ask again") from None
    return {**answer, "starting": pid}


async def _describe(store: Store) -> Answer:
    import msgspec

    await store.count_usage()
    facts = {"served": False, "clients": [], "listening": [], "refused": [], "incarnation": store.incarnation.id}
    return {**facts, "store": msgspec.to_builtins(store.status())}


def _facts(answer: Answer, store: Mapping[str, Any], wrong: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield "store", str(store["url"])
    yield "served", _served(answer, store)
    for sentence_ in wrong:
        yield "problem", sentence_
    for uri in answer["listening"]:
        yield "listening", str(uri)
    for client in answer["clients"]:
        yield "client", sentence(client)
    if store["view"]:
        yield "view", view(store["view"])
    if (follower := answer["follower"]) is not None:
        yield "follower", f"process {follower['pid']} shows a view {view(follower['store']['view'])}"
    if (standby := answer["standby"]) is not None:
        yield "standby", f"process {standby['pid']} {standing_by(standby)}"
    if (age := answer.get("sign_age_seconds")) is not None:
        yield "sign of life", f"{age:.1f} s ago, for servers that stand by"
    yield "devices", str(store["devices"])
    yield "epoch", str(store["epoch"])
    yield "incarnation", answer["incarnation"]
    for name in ("logical", "allocated", "stored", "live", "dead"):
        yield name, output.size(store[f"{name}_bytes"])
    yield "unlogged", output.size(store["unlogged_bytes"])
    yield "unlogged_seconds", f"{store['unlogged_seconds']:.0f}"
    yield "journal", output.size(store["journal_bytes"])
    yield "memtable", output.size(store["memtable_bytes"])
    if answer["served"]:
        yield "written", output.size(store["written_bytes"])
        yield "uploaded", output.size(store["bytes_up"])
        yield "fetched", output.size(store["bytes_down"])
        yield "write amplification", f"{store['write_amplification']:.2f}"
    if (costs := store["costs"]) is not None:
        yield "cost of a month", f"{costs['month_cost']:.2f} {costs['currency']}, as since the server opened the store"
    if (budget := store["budget"]) is not None:
        yield "requests of the month", budget_words(budget)
    yield "space amplification", f"{store['space_amplification']:.2f}"
    if store["maintenance"]:
        yield "maintenance", store["maintenance"]
    if store["rotation"]:
        yield "rotation", output.rotation(store["rotation"])
    yield "garbage", str(store["garbage"]["objects"])
    yield "cached", output.size(store["cached_bytes"])
    if store["closing"] or store["flushing"]:
        yield "waiting", waits_for(store)


def _served(answer: Answer, store: Mapping[str, Any]) -> str:
    if not answer["served"]:
        return "not here" if answer["starting"] is None else f"not yet: process {answer['starting']} is starting"
    how = ", which follows its writer" if store["view"] else ""
    return f"by process {answer['pid']}{how}" + (
        ", which is stopping" if store["closing"] or answer["stopping"] else ""
    )


@click.command()
@json_option
@store_argument
def flush(place: Place, as_json: bool) -> None:
    """Return when everything that was written before is safe in the store."""
    from nbdserver.admin.operations import Flush

    answer = perform(place, Flush())
    if as_json:
        output.document(answer)
