"""`nbdserver init`: make a new store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from nbdserver.cli.shared import output, passwords
from nbdserver.cli.shared.backend import is_there, make_store
from nbdserver.cli.shared.exit_status import EXISTS, CommandFailed
from nbdserver.cli.shared.parameters import Place, json_option, rollback_option, store_argument

if TYPE_CHECKING:
    from storage import Store, StoreStatus


@click.command()
@rollback_option
@json_option
@store_argument
def init(place: Place, accept_rollback: bool, as_json: bool) -> None:
    """Make a new, empty store.

    \b
    nbdserver init s3://bucket/disks
    nbdserver init /srv/disks

    Its data key is drawn now and kept in the store, sealed with the password. Who loses the password loses
    the data.
    """
    if is_there(place.store):
        raise CommandFailed(f"there is a store at {place.store} already", status=EXISTS)
    password = passwords.current(os.environ)

    async def describe(store: Store) -> tuple[bool, StoreStatus]:
        return store.created, store.status()

    with password.secret:
        if password.typed:
            passwords.confirm(password)
        created, status = make_store(place, password.secret, describe, accept_rollback=accept_rollback)
    if not created:
        raise CommandFailed(f"there is a store at {place.store} already", status=EXISTS)
    if as_json:
        output.document({"store": status.url, "store_id": status.store_id})
    else:
        output.line(f"made a store at {status.url}, with the id {status.store_id}")
        click.echo("keep the password: without it nobody can read what is stored there", err=True)
