"""`nbdserver trace`: slow operations of clients, and where the time of each went."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.parameters import NAME, Place, SecondsRange, json_option, option, store_option
from nbdserver.config import format_size

if TYPE_CHECKING:
    from nbdserver.admin.client import AdminClient

FOLLOWING_SECONDS = 0.5
"""Looks while following."""

SLOW_SECONDS_MIN = 0.1
"""What took less is not remembered (`slow_operations.SLOW_OPERATION_SECONDS`)."""

HEADS = ("WHEN", "DEVICE", "CLIENT", "OPERATION", "OFFSET", "LENGTH", "TOOK", "OUTCOME", "WHERE THE TIME WENT")


@click.command()
@click.argument("device", type=NAME, required=False)
@option(
    "--slow",
    metavar="SECONDS",
    type=SecondsRange(SLOW_SECONDS_MIN, 86400),
    default=SLOW_SECONDS_MIN,
    show_default=True,
    help="Leave out what took less.",
)
@option("--follow", is_flag=True, help="Then show what ends, as it does, until Ctrl-C.")
@json_option
@store_option
def trace(place: Place, device: str | None, slow: float, follow: bool, as_json: bool) -> None:
    """Show what clients of a running server waited long for, and where the time of each operation went.

    \b
    nbdserver trace --store /srv/disks
    nbdserver trace vol1 --slow 2 --store /srv/disks
    nbdserver trace --follow --json --store /srv/disks | jq .spent

    The newest 256 operations that took 0.1 s or more, the 64 slowest of all, and those that are under way. The time is
    that of: queue (too many requests or bytes of the client, or of all, under way), gate (no memory to write to before
    the store took more, or a reply delayed for that), log (until it was durable), waiting (for a request to the store
    to begin, or tried in vain), store (for its answer), decoding (decrypted, decompressed), assembly, sending (until
    the client took the reply). It counts from when the server could look at the request.

    In a pipe: when, device, client, its peer, operation, offset, length, seconds, outcome, where the time went, GETs,
    objects of the store, separated by tabs.
    """
    from nbdserver.admin.client import find_reader, find_server
    from storage.errors import NotFound

    server = find_server(place.store, os.environ) or find_reader(place.store, os.environ)
    if server is None:
        raise NotFound(f"no server of {place.store} runs on this machine")
    if not follow:
        found = _look(server, device, slow, 0)["operations"]
        if as_json:
            output.document(found)
        else:
            output.table(HEADS, [_row(each) for each in found])
        return
    try:
        for each in _following(server, device, slow):
            click.echo(output.as_json(each)) if as_json else output.line(_line(each))
            sys.stdout.flush()
    except KeyboardInterrupt:
        click.echo("", err=True)  # behind the ^C of the terminal; it is how one leaves


def _look(server: AdminClient, device: str | None, slow: float, after: int) -> dict[str, Any]:
    from nbdserver.admin.client_operations import ShowSlow

    return server.perform(ShowSlow(device, slow, after))


def _following(server: AdminClient, device: str | None, slow: float) -> Iterator[dict[str, Any]]:
    """What ended before, and then what ends; not what is under way, which is to come."""
    after = 0
    while True:
        look = _look(server, device, slow, after)
        yield from (each for each in look["operations"] if each["number"])
        after = look["last"]
        time.sleep(FOLLOWING_SECONDS)


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    if not sys.stdout.isatty():
        return _plain(each)
    return (
        output.time(each["at"]),
        each["device"],
        f"{each['client']}: {each['peer']}",
        each["operation"],
        format_size(each["offset"]) if each["length"] else "",
        format_size(each["length"]) if each["length"] else "",
        _seconds(each["seconds"]),
        each["outcome"],
        _story(each),
    )


def _plain(each: dict[str, Any]) -> tuple[str, ...]:
    spent = " ".join(f"{name}={seconds:.6f}" for name, seconds in each["spent"].items())
    figures = (str(each[name]) for name in ("offset", "length"))
    who = output.time(each["at"]), each["device"], str(each["client"]), each["peer"], each["operation"]
    took = f"{each['seconds']:.6f}", each["outcome"], spent
    return *who, *figures, *took, str(each["requests"]), " ".join(each["objects"])


def _line(each: dict[str, Any]) -> str:
    """One as a line by itself."""
    if not sys.stdout.isatty():
        return "\t".join(_plain(each))
    when, device, client, operation, offset, length, took, outcome, story = _row(each)
    where = f" of {length} at {offset}" if length else ""
    ended = "" if outcome == "done" else f" ({outcome})"
    return f"{when}  {device}  {operation}{where}, {took}{ended}: {story}; client {client}"


def _story(each: dict[str, Any]) -> str:
    """Where the time went, the longest first."""
    parts = sorted(each["spent"].items(), key=lambda part: -part[1])
    said = [f"{name} {_seconds(seconds)}" for name, seconds in parts if seconds >= 0.01 * each["seconds"]]
    if each["requests"]:
        tries = f", tried {each['tries']} times" if each["tries"] > 1 else ""
        said.append(f"{each['requests']} GETs ({' '.join(each['objects'])}{tries})")
    return ", ".join(said)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
