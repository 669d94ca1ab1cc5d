"""`nbdserver dashboard`: the address of the dashboard of a running server, with a token."""

from __future__ import annotations

import os

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.parameters import Place, json_option, option, store_argument


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
    from nbdserver.admin.client import find_reader, find_server
    from storage.errors import NotFound

    server = find_server(place.store, os.environ) or find_reader(place.store, os.environ)
    if server is None:
        raise NotFound(f"no server of {place.store} runs on this host: start one with serve --dashboard 10810")
    found = server.dashboard()
    address = f"{found['url']}#token={found['read_only' if look_only else 'full']}"
    if as_json:
        output.document({**found, "address": address})
    else:
        click.echo(address)
