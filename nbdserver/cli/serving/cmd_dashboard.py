"""`nbdserver dashboard`: the address of the dashboard of a running server, with a token."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.parameters import Place, json_option, option, store_argument

if TYPE_CHECKING:
    from nbdserver.admin.asked import Answer


@click.command()
@option("--look-only", is_flag=True, help="The token that may look, and change nothing.")
@json_option
@store_argument
def dashboard(place: Place, look_only: bool, as_json: bool) -> None:
    """Print the address of a server's dashboard, with the token that its page asks for.

    \b
    nbdserver serve /srv/disks --dashboard 10810
    nbdserver dashboard /srv/disks
    xdg-open "$(nbdserver dashboard /srv/disks --look-only)"

    Open it in a browser. Whoever has the token can do there what it allows: devices and snapshots can be made and
    deleted, unless it is that of --look-only. It stays the same until its file in the state folder is deleted. The part
    behind # is not sent to anybody; the page shows it in a header.
    """
    found = _found(place)
    address = f"{found['url']}#token={found['read_only' if look_only else 'full']}"
    if as_json:
        output.document({**found, "address": address})
    else:
        click.echo(address)


def _found(place: Place) -> Answer:
    """Of the server that writes the store, or else of one that follows it. NotFound, Conflict: there is none."""
    from nbdserver.admin.client import find_reader, find_server
    from storage.errors import Conflict, NotFound

    servers = [find(place.store, os.environ) for find in (find_server, find_reader)]
    refusal: Exception = NotFound(f"no server of {place.store} runs on this host: start it with --dashboard 10810")
    for server in servers:
        try:
            if server is not None:
                return server.dashboard()
        except Conflict as error:
            refusal = error
    raise refusal
