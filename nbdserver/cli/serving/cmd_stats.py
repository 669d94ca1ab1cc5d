"""`nbdserver stats`: every counter and gauge of a store, or of one device, with unit and meaning."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.backend import at_rest
from nbdserver.cli.shared.parameters import NAME, Place, json_option, store_option

if TYPE_CHECKING:
    from nbdserver.admin.asked import Answer


@click.command()
@click.argument("device", type=NAME, required=False)
@json_option
@store_option
def stats(place: Place, device: str | None, as_json: bool) -> None:
    """Show all counters and gauges of a store, or those of one DEVICE.

    In a pipe: name, value, unit, meaning, separated by tabs; a count by verb has a line for each verb, as requests.get.
    Counters begin at 0 when the server opens its store. Without a server on this host the store is read, and there are
    gauges only.
    """
    from nbdserver.admin.client import find_server
    from nbdserver.admin.operations import ShowStats

    operation = ShowStats(device)
    server = find_server(place.store, os.environ)
    if server is not None:
        found = server.perform(operation)["stats"]
    else:
        found = _of_a_reader(at_rest(place, operation.perform, writes=False))
    if as_json:
        output.document({"served": server is not None, "stats": found})
        return
    output.table(("NAME", "VALUE", "UNIT", "MEANING"), [row for stat in found for row in _rows(stat)])


def _of_a_reader(answer: Answer) -> list[Answer]:
    """What a command that opened the store to read it counted since is of no interest."""
    of_this_process = {"write_amplification", "uptime_seconds", "cached_bytes"}
    return [s for s in answer["stats"] if s["kind"] == "gauge" and s["name"] not in of_this_process]


def _rows(stat: Answer) -> list[tuple[str, str, str, str]]:
    value, formula = stat["value"], stat["formula"]
    meaning = stat["meaning"] + (f" ({formula})" if formula else "")
    if isinstance(value, dict):
        return [(f"{stat['name']}.{verb}", str(count), stat["unit"], meaning) for verb, count in sorted(value.items())]
    return [(stat["name"], str(value), stat["unit"], meaning)]
