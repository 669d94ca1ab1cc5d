"""Results of commands: tables on a terminal, plain lines in a pipe, JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime

import click

from nbdserver.config import format_size
from nbdserver.printable import printable


def document(answer: Mapping[str, object] | Sequence[object]) -> None:
    """One JSON document on standard output."""
    click.echo(as_json(answer, indent=2 if sys.stdout.isatty() else None))


def as_json(value: object, *, indent: int | None = None) -> str:
    """A value as JSON that every program takes: null for a number that is none, or has no end, as the server has it."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def said(answer: Mapping[str, object], sentence: str, *, as_json: bool) -> None:
    """What a command has done: its answer for programs, or the sentence for people."""
    if as_json:
        document(answer)
    else:
        line(sentence)


def line(sentence: str, *, err: bool = False) -> None:
    """A sentence, which may hold names from elsewhere."""
    click.echo(printable(sentence), err=err)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; in a pipe one line a row, fields separated by tabs, without a head."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(map(printable, row)))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        drawn.add_row(*(Text(printable(field)) for field in row))
    Console().print(drawn)


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one a line; aligned on a terminal, separated by a tab in a pipe."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        gap = " " * (width - len(name) + 2) if sys.stdout.isatty() else "\t"
        click.echo(f"{name}{gap}{printable(value)}")


def size(count: int) -> str:
    """A number of bytes: for people on a terminal, exact in a pipe."""
    return format_size(count) if sys.stdout.isatty() else str(count)


def rotation(found: Mapping[str, object]) -> str:
    """How far a rotation of the data key is, for people."""
    objects, count = found["left_objects"], found["left_bytes"]
    if not objects:
        return f"to key {found['key']}: waits for {found['waits_for'] or 'its last steps'}"
    return f"to key {found['key']}: {objects} objects are left, {format_size(int(str(count)))} in all"


def time(seconds: float) -> str:
    """A time in the local zone, to the second."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def today() -> str:
    """The day, in the local zone."""
    return datetime.now().astimezone().date().isoformat()
