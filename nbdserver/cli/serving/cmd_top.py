"""`nbdserver top`: what a server does now, again and again."""

from __future__ import annotations

import itertools
import math
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.parameters import Place, SecondsRange, json_option, option, store_argument
from nbdserver.config import format_size

if TYPE_CHECKING:
    from nbdserver.admin.interval import Interval, RequestTimes

SECONDS_BETWEEN = 2.0

SMALL_RATE = 10.0
"""Below it a tenth counts."""

Row = tuple[str, ...]


@click.command()
@option("--seconds", type=SecondsRange(0.2, 3600), default=SECONDS_BETWEEN, show_default=True, help="Between looks.")
@option("--count", type=click.IntRange(1), help="End after so many.  [default: at Ctrl-C]")
@json_option
@store_argument
def top(place: Place, seconds: float, count: int | None, as_json: bool) -> None:
    """Show what the server of a store does now: each disk, what clients wait for, and requests to the store.

    \b
    nbdserver top /srv/disks
    nbdserver top /srv/disks --seconds 10 --count 6 > minute.tsv

    Rates are those since the last look. Times are those within which half and 99 of 100 requests were done. In a pipe
    each row is a line: the kind of row, its name, and its figures in bytes and seconds, separated by tabs. The figures
    are those of the metrics (serve --metrics). In JSON a time is null where there was none, or it is above 100 s.
    """
    from nbdserver.admin.client import find_server
    from nbdserver.admin.interval import Interval, parse
    from nbdserver.service.condition import problems
    from storage.errors import NotFound

    server = find_server(place.store, os.environ)
    if server is None:
        raise NotFound(f"no server of {place.store} runs on this host: nbdserver status shows a store at rest")

    def looks() -> Iterator[tuple[Interval, list[str]]]:
        before = parse(server.metrics())
        for _ in range(count) if count is not None else itertools.count():
            time.sleep(seconds)
            after = parse(server.metrics())
            yield Interval(before, after), problems(server.status()["store"])
            before = after

    try:
        _show(looks(), place.store, as_json=as_json)
    except KeyboardInterrupt:
        click.echo("", err=True)  # behind the ^C of the terminal; it is how one leaves


def _show(looks: Iterator[tuple[Interval, list[str]]], store: str, *, as_json: bool) -> None:
    if as_json:
        for interval, wrong in looks:
            click.echo(output.as_json(_document(interval, wrong)))
            sys.stdout.flush()
    elif sys.stdout.isatty():
        _live(looks, store)
    else:
        for interval, wrong in looks:
            output.table((), [*_rows(interval, plain=True), *(("problem", each) for each in wrong)])
            sys.stdout.flush()


def _document(interval: Interval, wrong: list[str]) -> dict[str, Any]:
    rows = [row for row in _rows(interval, plain=True) if row[0] in ("disk", "wait", "store")]
    found: dict[str, Any] = {"problems": wrong, "disk": {}, "wait": {}, "store": {}}
    for kind, name, *figures in rows:
        found[kind][name] = dict(zip(FIGURES[kind], map(float, figures), strict=True))
    return found


FIGURES = {
    "disk": ("clients", "reads", "writes", "other", "received", "sent"),
    "wait": ("rate", "median", "p99"),
    "store": ("rate", "failed", "median", "p99"),
    "bytes": ("bytes",),
}
"""The figures of a row by its kind: rates a second, bytes, seconds."""


def _rows(interval: Interval, *, plain: bool) -> Iterator[Row]:
    """Kind, name, and figures: as they are (`plain`), or for people."""

    def size(value: float) -> str:
        return f"{value:.0f}" if plain else format_size(int(value))

    def rate(value: float) -> str:
        return f"{value:.2f}" if plain else f"{value:,.0f}" if value >= SMALL_RATE else f"{value:.1f}"

    for device in interval.devices():
        requests = dict(device.requests)
        reads, writes = requests.pop("read", 0.0), requests.pop("write", 0.0)
        figures = map(rate, (reads, writes, sum(requests.values())))
        yield "disk", device.name, str(device.clients), *figures, size(device.received), size(device.sent)
    for times in interval.waits():
        yield "wait", times.kind, rate(times.rate), *_times(times, plain=plain)
    for times in interval.store_requests():
        yield "store", times.kind, rate(times.rate), rate(times.failed), *_times(times, plain=plain)
    for name in ("unlogged", "memtable", "journal", "cached", "stored", "live"):
        yield "bytes", name, size(interval.value(f"nbdserver_{name}_bytes"))


def _times(times: RequestTimes, *, plain: bool) -> Row:
    def shown(seconds: float) -> str:
        if plain:
            return f"{seconds:.6f}"
        return "" if math.isnan(seconds) else "> 100 s" if math.isinf(seconds) else f"{1000 * seconds:.1f} ms"

    return shown(times.median), shown(times.p99)


def _live(looks: Iterator[tuple[Interval, list[str]]], store: str) -> None:
    """On a terminal, over what it showed before."""
    from rich import box
    from rich.console import Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from nbdserver.printable import printable

    names = {"disk": "DISK", "wait": "CLIENTS WAIT FOR", "store": "STORE", "bytes": "BYTES"}

    def drawn(interval: Interval, wrong: list[str]) -> Group:
        parts: list[Any] = [Text(printable(store), style="bold")]
        parts += [Text(printable(each), style="bold red") for each in wrong]
        rows = list(_rows(interval, plain=False))
        for kind, heads in FIGURES.items():
            table = Table(names[kind], box=box.SIMPLE_HEAD)
            for head in heads:
                table.add_column(
                    f"{head}/s" if head in ("reads", "writes", "other", "received", "sent", "rate") else head,
                    justify="right",
                )
            for row in rows:
                if row[0] == kind:
                    table.add_row(*(Text(printable(field)) for field in row[1:]))
            parts.append(table)
        return Group(*parts)

    with Live(Text("looking ..."), auto_refresh=False) as live:
        for interval, wrong in looks:
            live.update(drawn(interval, wrong), refresh=True)
