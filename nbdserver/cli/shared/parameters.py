"""The options that many commands share; every option is an environment variable
too.
"""

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from nbdserver.config import DEFAULT_BIND, locate, parse_duration, parse_keep, parse_request_budget, parse_size
from nbdserver.price_lists import parse_prices

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is, as `config.locate` writes it, where this host remembers stores, and where it keeps journals of
    them (`nbdserver.journal_folder`).
    """

    store: str
    state_folder: Path | None
    journal: str | None


def option(*names: str, **settings: Any) -> Callable[[Command], Command]:
    """`click.option`, whose `--pid-file` is NBDSERVER_PID_FILE too."""
    long_name = next(name for name in names if name.startswith("--"))
    settings.setdefault("envvar", "NBDSERVER_" + long_name.removeprefix("--").replace("-", "_").upper())
    return click.option(*names, **settings)


class SizeType(click.ParamType[int]):
    """`10GiB`, `10G` or plain bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SIZE = SizeType()


class DurationType(click.ParamType[float]):
    """`30m`, `12h`, `7d` or `4w`, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = DurationType()


class SecondsRange(click.FloatRange):
    """A number of seconds between two bounds, which alone would let pass what is no number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{seconds} is no number of seconds", param, ctx)
        return seconds


class KeepType(click.ParamType[dict[str, int]]):
    """`hourly=24,daily=7`: how many of each period."""

    name = "keep"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int]:
        try:
            return value if isinstance(value, dict) else parse_keep(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


KEEP = KeepType()


class PricesType(click.ParamType[dict[str, float | str]]):
    """`aws-s3-standard`, or prices by class with their units."""

    name = "prices"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float | str]:
        try:
            return value if isinstance(value, dict) else parse_prices(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


PRICES = PricesType()


class RequestsType(click.ParamType[int]):
    """`5M/month`: requests of a month."""

    name = "requests"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else parse_request_budget(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


REQUESTS = RequestsType()


class AddressType(click.ParamType[tuple[str, int]]):
    """`[ADDRESS:]PORT`; the address of this machine alone if there is none."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = value.rpartition(":")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
            self.fail(f"{value!r} is not [ADDRESS:]PORT, such as 9100 or 127.0.0.1:9100", param, ctx)
        return host.strip("[]") or DEFAULT_BIND, int(port)


ADDRESS = AddressType()


class NameType(click.ParamType[str]):
    """The name of a device: text, as the protocol and the store have it."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:  # bytes of another encoding come as surrogates, which nothing can send on
            self.fail(f"{value!a} is not UTF-8", param, ctx)
        return str(value)


NAME = NameType()


class PathType(NameType):
    """An absolute path in the tree of names."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        path = super().convert(value, param, ctx)
        if not path.startswith("/"):
            self.fail(f"{path!r} is not an absolute path, such as /.nbd/vol1", param, ctx)
        return path


PATH = PathType()


class SnapshotType(click.ParamType[tuple[str, str]]):
    """`DEVICE@SNAPSHOT`: the names of both."""

    name = "device@snapshot"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        device, _, snapshot = NAME.convert(value, param, ctx).partition("@")
        if not device or not snapshot:
            self.fail(f"{value!r} is not DEVICE@SNAPSHOT, such as vol1@monday", param, ctx)
        return device, snapshot


SNAPSHOT = SnapshotType()


class AbsolutePath(click.Path):
    """A path, also for a process that has gone to another folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return Path(os.fsdecode(super().convert(value, param, ctx))).absolute()


FILE = AbsolutePath(dir_okay=False)
FOLDER_PATH = AbsolutePath(file_okay=False)


def store_option(command: Command) -> Command:
    """`--store`, `--state-folder` and `--journal`; the command gets them as `place`."""
    return _with_place(command, needed=True)


def optional_store_option(command: Command) -> Command:
    """The same, and `place` may be None."""
    return _with_place(command, needed=False)


def _with_place(command: Command, *, needed: bool) -> Command:
    @option("--store", metavar="STORE", help="Where the store is: s3://BUCKET/PREFIX, file:///FOLDER or a path.")
    @option(
        "--state-folder",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where this host remembers the stores it has written.",
    )
    @option(
        "--journal",
        metavar="FOLDER|off",
        help="Folder in memory that keeps what was answered when the server is killed.  [default: the runtime folder]",
    )
    @functools.wraps(command)
    def with_place(*args: Any, store: str | None, state_folder: Path | None, journal: str | None, **rest: Any) -> Any:
        ctx = click.get_current_context()
        said = [rest.pop("store_argument", None), ctx.find_root().params.get("store")]
        if ctx.get_parameter_source("store") is ParameterSource.COMMANDLINE:
            said.append(store)
        given = {each for each in said if each}
        if len(given) > 1:
            raise click.UsageError("two different stores are given", ctx)
        store = given.pop() if given else store
        if not store and not needed:
            return command(*args, place=None, **rest)
        if not store:
            raise click.UsageError(
                "which store? Give --store (s3://BUCKET/PREFIX, file:///FOLDER or a path), or set NBDSERVER_STORE",
                ctx,
            )
        _check(store, ctx)
        place = Place(locate(store, os.environ), state_folder and state_folder.absolute(), journal)
        return command(*args, place=place, **rest)

    return with_place


def second_place(store: str, first: Place) -> Place:
    """Where another store is, of which this host keeps the same things at the same places. UsageError."""
    _check(store, click.get_current_context())
    return Place(locate(store, os.environ), first.state_folder, first.journal)


def _check(store: str, ctx: click.Context) -> None:
    """UsageError: it names no store. Before anything is asked for, such as a password."""
    from storage.errors import Invalid
    from storage.objects.addresses import check_address

    try:
        check_address(store)
    except Invalid as error:
        raise click.UsageError(str(error), ctx) from error


def store_argument(command: Command) -> Command:
    """Like `store_option`, and the store may also be an argument."""
    return click.argument("store_argument", metavar="[STORE]", required=False)(store_option(command))


def rollback_option(command: Command) -> Command:
    """`--accept-rollback`; the command gets `accept_rollback`."""
    return option(
        "--accept-rollback",
        is_flag=True,
        help="Accept a store that is older than this host remembers, another one, or gone.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`; the command gets `as_json`."""
    return option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)
