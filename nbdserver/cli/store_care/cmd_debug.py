"""`nbdserver debug`: look into a store by hand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from nbdserver.cli.shared import output, passwords
from nbdserver.cli.shared.backend import without_keys
from nbdserver.cli.shared.parameters import NAME, Place, json_option, option, store_option

if TYPE_CHECKING:
    from storage.env import Env
    from storage.objects.retry import RetryingStore


@click.group()
def debug() -> None:
    """Look into a store by hand; nothing is changed, whoever serves it."""


@debug.command("list")
@click.argument("prefix", type=NAME, default="")
@json_option
@store_option
def list_objects(place: Place, prefix: str, as_json: bool) -> None:
    """List the objects of a store whose names begin with PREFIX, with their sizes and times.

    \b
    nbdserver debug list manifest/ --store /srv/disks
    """

    async def ask(objects: RetryingStore, _: Env) -> list[tuple[str, int, float | None]]:
        return [(each.name, each.size, each.modified) for each in await objects.list(prefix)]

    found = without_keys(place.store, "its objects", ask)
    if as_json:
        output.document([{"object": name, "bytes": size, "modified": modified} for name, size, modified in found])
    else:
        rows = [(name, str(size), "" if time is None else output.time(time)) for name, size, time in found]
        output.table(("OBJECT", "BYTES", "MODIFIED"), rows)


@debug.command("object")
@click.argument("name", type=NAME)
@option("--records", is_flag=True, help="Each record, entry or part too.")
@json_option
@store_option
def show_object(place: Place, name: str, records: bool, as_json: bool) -> None:
    """Open one object of a store and print what it says, as JSON: its header, and by its kind the manifest, what the
    log says of each layer, the index of an SST, the trailer of a checkpoint, or the passwords. docs/format.md has the
    meaning of each field. No data of disks is shown.

    \b
    nbdserver debug object wal/00000000000000000017.sst --records --store /srv/disks

    Exit status 20: it is not what it should be, and the sentence says why.
    """
    with passwords.current(os.environ).secret as secret:

        async def ask(objects: RetryingStore, env: Env) -> dict[str, Any]:
            from storage.check.anatomy import anatomy
            from storage.crypto import keys
            from storage.format.sizes import WAL_BYTES_MAX

            key, _ = await keys.load(objects, secret, env)
            raw = await objects.get(name, limit=WAL_BYTES_MAX)
            return await env.run("store", lambda: anatomy(name, raw, key, records=records))

        found = without_keys(place.store, "the object", ask)
    output.document(found)
