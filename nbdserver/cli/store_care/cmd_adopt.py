"""`nbdserver adopt`: make the copy of a store a store of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from nbdserver.cli.shared import output, passwords
from nbdserver.cli.shared.backend import adopt_copy
from nbdserver.cli.shared.parameters import Place, json_option, store_argument

if TYPE_CHECKING:
    from storage import Store, StoreStatus


@click.command()
@click.option("--take-over", "of_running", is_flag=True, help="It is a complete copy of a store that was running.")
@json_option
@store_argument
def adopt(place: Place, of_running: bool, as_json: bool) -> None:
    """Make the copy of a store a store of its own, with an id of its own.

    \b
    aws s3 sync s3://bucket/disks s3://other/disks
    nbdserver adopt s3://other/disks

    For a bucket or folder that was copied or forked, once the copy is complete and nothing is copied into it any
    more. Devices, snapshots and passwords stay as they are. Clients of the original that are led here by mistake see
    another disk. What this host has opened before at that place is refused: it is no copy. So is a store that was
    not closed, unless --take-over says that it is the copy of a running one: at the address of the original it would
    take that from its server.
    """

    async def describe(store: Store) -> StoreStatus:
        return store.status()

    with passwords.current(os.environ).secret as secret:
        status = adopt_copy(place, secret, describe, take_over=of_running)
    if as_json:
        output.document({"store": status.url, "store_id": status.store_id, "epoch": status.epoch})
    else:
        output.line(f"{status.url} is a store of its own now, with the id {status.store_id}")
