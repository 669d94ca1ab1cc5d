"""`nbdserver status` and `flush`: how a store is doing, and making everything durable."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from nbdserver.cli import output
from nbdserver.cli.access import at_rest, perform
from nbdserver.cli.client import sentence
from nbdserver.cli.options import Place, json_option, store_option

if TYPE_CHECKING:
    from nbdserver.admin.operations import Answer
    from storage import Store


@click.command()
@json_option
@store_option
def status(place: Place, as_json: bool) -> None:
    """Show what is served, to whom, and how the store is doing.

    Without a server on this host the store is read: "served" is then "not here".
    """
    from nbdserver.admin.client import find_server

    server = find_server(place.store, os.environ)
    answer = at_rest(place, _describe, writes=False) if server is None else {"served": True, **server.status()}
    if as_json:
        output.document(answer)
    else:
        output.facts(list(_facts(answer)))


async def _describe(store: Store) -> Answer:
    import msgspec

    return {"served": False, "clients": [], "listening": [], "store": msgspec.to_builtins(store.status())}


def _facts(answer: Answer) -> list[tuple[str, str]]:
    store, clients, listening = answer["store"], answer["clients"], answer["listening"]
    assert isinstance(store, dict)
    assert isinstance(clients, list)
    assert isinstance(listening, list)
    pairs = [
        ("store", str(store["url"])),
        ("served", f"by process {answer['pid']}" if answer["served"] else "not here"),
    ]
    pairs += [("listening", str(uri)) for uri in listening]
    pairs += [("client", sentence(client)) for client in clients]
    for name in ("devices", "epoch"):
        pairs.append((name, str(store[name])))
    for name in ("unlogged_bytes", "stored_bytes", "cached_bytes"):
        pairs.append((name.removesuffix("_bytes"), output.size(store[name])))
    return pairs


@click.command()
@json_option
@store_option
def flush(place: Place, as_json: bool) -> None:
    """Return when everything that was written before is safe in the store."""
    from nbdserver.admin.operations import Flush

    answer = perform(place, Flush())
    if as_json:
        output.document(answer)
