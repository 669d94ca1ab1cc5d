"""`nbdserver client`: who is connected, and how to be rid of one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from nbdserver.cli.shared import client_words, output
from nbdserver.cli.shared.parameters import NAME, Place, json_option, store_argument, store_option

if TYPE_CHECKING:
    from nbdserver.admin.client import AdminClient


@click.group()
def client() -> None:
    """See who is connected to a server of this machine, and disconnect clients."""


@client.command("list")
@json_option
@store_argument
def list_command(place: Place, as_json: bool) -> None:
    """List who is connected.

    In a pipe: id, peer, device, since when, flags, requests, bytes received, bytes sent, separated by tabs.
    A client without a device is in its handshake.
    """
    from nbdserver.admin.client_operations import ListClients

    clients = _server(place).perform(ListClients())["clients"]
    if as_json:
        output.document(clients)
        return
    output.table(
        ("ID", "CLIENT", "DEVICE", "SINCE", "FLAGS", "REQUESTS", "RECEIVED", "SENT"),
        [
            (
                str(each["id"]),
                client_words.who(each),
                each["export"] or "-",
                output.time(each["since"]),
                ",".join(client_words.flags(each)) or "-",
                str(each["requests"]),
                output.size(each["bytes_received"]),
                output.size(each["bytes_sent"]),
            )
            for each in clients
        ],
    )


@client.command()
@click.argument("number", metavar="ID", type=click.IntRange(1))
@json_option
@store_option
def disconnect(place: Place, number: int, as_json: bool) -> None:
    """Drop a client, by its id.

    What it has sent and was not carried out is not carried out any more. Nothing keeps it from connecting again.
    """
    from nbdserver.admin.client_operations import DisconnectClient

    answer = _server(place).perform(DisconnectClient(number))
    if as_json:
        output.document(answer)
    else:
        output.line(f"{answer['disconnected']}: disconnected")


@client.command()
@click.argument("export", metavar="EXPORT", type=NAME)
@json_option
@store_option
def accept(place: Place, export: str, as_json: bool) -> None:
    """Let clients have an export again that were attached to it when something was lost.

    They are refused it until then, since writes that they were answered and had not flushed may be missing. Detach the
    disk first where it was attached, and have its filesystem checked before it is mounted.
    """
    from nbdserver.admin.client_operations import AcceptClients

    answer = _server(place).perform(AcceptClients(export))
    if as_json:
        output.document(answer)
    else:
        output.line(f"{export}: {', '.join(answer['accepted']) or 'nobody was refused'}")


def _server(place: Place) -> AdminClient:
    """NotFound: there is no server, and so there are no clients."""
    from nbdserver.admin.client import find_reader, find_server
    from storage.errors import NotFound

    server = find_server(place.store, os.environ) or find_reader(place.store, os.environ)
    if server is None:
        raise NotFound(f"no server of {place.store} runs on this machine")
    return server
