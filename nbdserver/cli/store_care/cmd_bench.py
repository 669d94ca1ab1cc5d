"""`nbdserver bench`: what a place for a store can do, before anything rests on it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.parameters import Place, SecondsRange, json_option, option, store_argument
from nbdserver.cli.shared.standard import complain
from nbdserver.config import format_size

if TYPE_CHECKING:
    from storage.env import Env
    from storage.objects.retry import RetryingStore
    from storage.objects.trial import Speed

SECONDS_EACH = 2.0


@click.group()
def bench() -> None:
    """Try what a bucket or a folder can do."""


@bench.command()
@option(
    "--seconds",
    type=SecondsRange(0.1, 600),
    default=SECONDS_EACH,
    show_default=True,
    help="For each kind of request.",
)
@json_option
@store_argument
def store(place: Place, seconds: float, as_json: bool) -> None:
    """Try whether a place can hold a store safely, and how fast it is.

    \b
    nbdserver bench store s3://bucket/disks
    nbdserver bench store /srv/disks --seconds 10

    First what safety rests on, ten times: of creates that race exactly one wins, an object reads back as it was made,
    in all its ranges, and listings show at once what was made and deleted. A place that fails is named with the reason
    (status 14), and no server uses it. Then each kind of request is timed: a flush costs one create of a few KiB, a
    read that the cache does not have one get. Objects are written below probe/ in the place, of 2 GiB in all at most,
    and deleted again; what an interrupted run leaves there may be deleted. No password is needed.
    """
    from nbdserver.cli.shared.backend import without_keys
    from storage.objects.trial import PROBES, look_for_faults, measure

    speeds: list[Speed] = []

    def told(speed: Speed) -> None:
        speeds.append(speed)
        if not as_json:
            output.line(_sentence(speed))

    def looked(times: int) -> None:
        if times == PROBES and not as_json:
            output.line(f"safety: nothing wrong in {PROBES} tries of races, ranges and listings")

    async def run(objects: RetryingStore, env: Env) -> None:
        await look_for_faults(objects, env, looked)
        await measure(objects, env, seconds, told)

    complain(f"trying {place.store}, for about {9 * seconds:.0f} s")
    without_keys(place.store, "what it can do", run)
    if as_json:
        output.document({"store": place.store, "safe": True, "requests": [dataclasses.asdict(each) for each in speeds]})


def _sentence(speed: Speed) -> str:
    what = f"{speed.request} of {format_size(speed.size)}" if speed.size else speed.request
    rate = f", {format_size(int(speed.bytes_per_second))}/s" if speed.size else ""
    times = f"median {1000 * speed.median:.1f} ms, slowest of 100 {1000 * speed.slowest:.1f} ms"
    return f"{what}, {speed.parallel} at a time: {times}{rate} ({speed.count} requests)"
