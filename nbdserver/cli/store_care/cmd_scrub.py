"""`nbdserver scrub`: when the data of a store was last read, and what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.backend import perform
from nbdserver.cli.shared.exit_status import DAMAGED
from nbdserver.cli.shared.parameters import Place, json_option, store_argument
from nbdserver.config import format_size


@click.command()
@json_option
@store_argument
def scrub(place: Place, as_json: bool) -> int:
    """Show when the data of a store was last read and opened, and what was not sound then.

    A server reads all data once in 30 days (serve --scrub-days), beside its clients; check --read-data reads it now.
    What was read is remembered by this host. Exit status 20: something was damaged when it was last read.
    """
    from nbdserver.admin.operations import ShowReads

    found = perform(place, ShowReads())
    if as_json:
        output.document(found)
    else:
        for sentence in _lines(found):
            output.line(sentence)
    return DAMAGED if found["damaged"] else 0


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    from nbdserver.service.condition import moment

    for group in found["last_read"]:
        yield f"last read {group['since']}: {group['ssts']} SSTs, {format_size(group['bytes'])}"
    if found["oldest"] is not None:
        yield f"written, or last read, longest ago: {moment(found['oldest'])}"
    yield from (f"damaged: {sentence}" for sentence in found["damaged"])
