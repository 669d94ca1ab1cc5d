"""`nbdserver check`: whether a store is whole, on a running server and at rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.exit_status import DAMAGED, PROBLEMS
from nbdserver.cli.shared.parameters import SIZE, Place, json_option, option, store_argument
from nbdserver.config import format_size

if TYPE_CHECKING:
    from nbdserver.admin.checking import Line
    from nbdserver.cli.shared.progress import ProgressDisplay
    from storage import CheckOptions

RANGES_SAID_MAX = 20
"""Of one finding, for people; programs get all."""


@click.command()
@option("--read-data", is_flag=True, help="Open every frame too: all data is read, at --rate.")
@option("--rate", type=SIZE, default="50MiB", show_default=True, help="Bytes a second of --read-data; 0: all there is.")
@option("--resume", is_flag=True, help="With --read-data: go on where the last run was cut short.")
@json_option
@store_argument
def check(place: Place, read_data: bool, rate: int, resume: bool, as_json: bool) -> int:
    """Say whether everything in the store is there, fits together and can be read. Changes nothing.

    Every object is accounted for, the manifests and the log are followed, the index of every SST is opened, and the
    index of each device is made again from them and compared. On a running server its memory is compared too, and its
    clients go on. Exit status 20: data is damaged or lost. 3: something is wrong, and no data is lost by it.
    """
    from nbdserver.cli.shared.progress import ProgressDisplay
    from storage import CheckOptions

    options = CheckOptions(read_data=read_data, rate=rate, resume=resume)
    with ProgressDisplay("checking", None, lines_to=sys.stderr if as_json else None) as display:
        found = _check(place, options, display)
    if as_json:
        output.document(found)
    else:
        for sentence in _lines(found):
            output.line(sentence)
    if any(not finding["fault"] for finding in found["findings"]):
        return DAMAGED
    return PROBLEMS if found["findings"] else 0


def _check(place: Place, options: CheckOptions, display: ProgressDisplay) -> dict[str, Any]:
    from nbdserver.admin.client import find_server
    from nbdserver.cli.shared.backend import without_opening
    from nbdserver.cli.shared.reminding import reminding

    def tell(line: Line) -> None:
        if line.total:
            display.expect(line.total)
            display.advance(line.done)

    server = find_server(place.store, os.environ)
    if server is None:
        return without_opening(place, options, tell)
    with reminding(server, shows_progress=True):
        return server.check(options, tell)


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    for finding in found["findings"]:
        weight = "fault" if finding["fault"] else "damage"
        yield f"{weight}: {finding['object']}: {finding['sentence']}"
        for span in finding["ranges"][:RANGES_SAID_MAX]:
            yield f"  {span['device']}: {span['length']} bytes at {span['offset']}"
        if len(finding["ranges"]) > RANGES_SAID_MAX:
            yield f"  and {len(finding['ranges']) - RANGES_SAID_MAX} more ranges: --json has all"
    for use, account in found["accounts"].items():
        yield f"{use}: {account['objects']} objects, {format_size(account['bytes'])}"
    if not found["findings"]:
        yield f"nothing is wrong with manifest {found['manifest']} and all that it refers to"
