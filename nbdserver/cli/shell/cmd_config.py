"""`nbdserver config`: what commands are told by the configuration file, and by what else."""

from __future__ import annotations

import os
from typing import Any

import click
from click.core import ParameterSource

from nbdserver.cli.shared import output
from nbdserver.cli.shared.config_file import ConfigFile, commands_under, options
from nbdserver.cli.shared.parameters import json_option
from nbdserver.cli.shell.config_schema import schema

PASSWORDS = ("NBDSERVER_PASSWORD", "NBDSERVER_PASSWORD_FILE", "NBDSERVER_PASSWORD_COMMAND")


@click.group()
def config() -> None:
    """See what the configuration file says, and whether it is right."""


@config.command()
@json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Say whether the configuration file is right. A wrong one ends every command with status 2."""
    file = ctx.find_root().obj
    path = None if file is None else str(file.path)
    if as_json:
        output.document({"file": path})
    else:
        output.line("there is no configuration file" if path is None else f"{path}: fine")


@config.command("schema")
@json_option
@click.pass_context
def show_schema(ctx: click.Context, as_json: bool) -> None:
    """Print the JSON Schema of the configuration file, for editors and programs.

    \b
    nbdserver config schema > ~/.config/nbdserver/schema.json
    """
    root = ctx.find_root().command
    if isinstance(root, click.Group):
        output.document(schema(root))


@config.command()
@click.argument("command", nargs=-1)
@json_option
@click.pass_context
def show(ctx: click.Context, command: tuple[str, ...], as_json: bool) -> None:
    """Show the options of a command (of serve, unless one is named), their values, and where each comes from.

    In a pipe: option, value, source, separated by tabs. Of a password only its source is shown.
    """
    root = ctx.find_root()
    table = command or ("serve",)
    found = dict(commands_under(root.command, ()))
    if table not in found:
        raise click.UsageError(f"there is no command {' '.join(table)}", ctx)
    inner = root
    for depth in range(len(table)):
        inner = click.Context(found[table[: depth + 1]], info_name=table[depth], parent=inner)
    rows = [_row(inner, each, root.obj, table) for each in options(found[table])]
    rows += [("password", "(not shown)", name) for name in PASSWORDS if os.environ.get(name)]
    if as_json:
        output.document([dict(zip(("option", "value", "source"), row, strict=True)) for row in rows])
    else:
        output.table(("OPTION", "VALUE", "SOURCE"), [[str(part) for part in row] for row in rows])


def _row(
    ctx: click.Context, option: click.Option, file: ConfigFile | None, table: tuple[str, ...]
) -> tuple[str, Any, str]:
    """Name, value as it was given, and source of an option."""
    name = next(each for each in option.opts if each.startswith("--"))[2:]
    value, source = option.consume_value(ctx, {})
    if source is ParameterSource.ENVIRONMENT:
        return name, value, str(option.envvar)
    if source is ParameterSource.DEFAULT_MAP and file is not None:
        line = file.line_of(table, name)
        return name, value, f"{file.path}:{line}" if line else str(file.path)
    default = option.get_default(ctx)
    return name, default if isinstance(default, str | int | float | tuple | list) else "", "default"
