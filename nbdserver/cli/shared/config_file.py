"""The configuration file: options of commands, written down once.

One TOML file: the first of `nbdserver.toml` in the working folder, the user's and the system's, or the one that
`--config` names. A key is an option without its dashes; at the top it is for every command that has the option, in a
table named like a command (`[serve]`, `[device.import]`) for that one. The command line and the environment weigh more.

Nothing in it is passed over: what is no option, or no value for it, is an error that says where and what was expected.
What one command is told once (`--yes`), or would be dangerous as a habit (`--take-over`), has no place in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from nbdserver.cli.shared.exit_status import USAGE, CommandFailed

NEVER = {"accept_rollback", "replace", "take_over"}
"""Options that have a file go on doing what somebody wanted done once."""

CONFIG_BYTES_MAX = 1 << 20

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file that was read and found right; `defaults` is what click takes for the command tree."""

    path: Path
    text: str
    defaults: dict[str, Any]

    def line_of(self, table: tuple[str, ...], key: str) -> int | None:
        """The line where a key stands, in its table or, failing that, at the top."""
        return _line(self.text, table, key) or _line(self.text, (), key)


class BadConfig(CommandFailed):
    """A sentence with the place in the file and what was expected there."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=USAGE)


def read(path: Path, tree: click.Group) -> ConfigFile:
    """The file at `path`. BadConfig: it is not right. AccessDenied: others can write to it. OSError."""
    import tomllib

    from storage.errors import AccessDenied
    from storage.trusted_files import open_own, trusted_folder

    path = path.absolute()
    try:
        # Whoever can exchange the file says which store is served, to whom, and what is run.
        trusted_folder(path.parent)
        with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
            data = file.read(CONFIG_BYTES_MAX)
    except AccessDenied as error:
        raise AccessDenied(f"the configuration file {path} would not be safe: {error}") from None
    try:
        text = data.decode()
        values = tomllib.loads(text)
    except ValueError as error:  # of the encoding too
        raise BadConfig(f"{path}: {error}") from None
    defaults: dict[str, Any] = {}
    for table, key, value in _entries(values, tree):
        _put(defaults, tree, table, key, value, _SettingPlace(path, text, table, key))
    return ConfigFile(path, text, defaults)


@dataclass(frozen=True, slots=True)
class _SettingPlace:
    path: Path
    text: str
    table: tuple[str, ...]
    key: str

    def error(self, sentence: str) -> BadConfig:
        line = _line(self.text, self.table, self.key)
        where = f"{self.path}, line {line}" if line else str(self.path)
        return BadConfig(f"{where}: {'.'.join((*self.table, self.key))}: {sentence}")


def _entries(
    values: Values, group: click.Command, table: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Table, key and value of every entry, tables of commands followed; first those at the top."""
    commands = group.commands if isinstance(group, click.Group) else {}
    for key, value in values.items():
        if not (isinstance(value, dict) and key in commands):
            yield table, key, value
    for key, value in values.items():
        if isinstance(value, dict) and key in commands:
            yield from _entries(value, commands[key], (*table, key))


def _put(
    defaults: dict[str, Any], tree: click.Group, table: tuple[str, ...], key: str, value: Any, place: _SettingPlace
) -> None:
    """Put one entry where the commands of its table find it."""
    found = False
    for path, command in commands_under(tree, table):
        option = next((each for each in options(command) if f"--{key}" in each.opts), None)
        if option is None or option.name is None:
            continue
        found = True
        as_given = _checked(option, value, place)
        inner = defaults
        for name in path:
            inner = inner.setdefault(name, {})
        inner[option.name] = as_given
    if not found:
        what = f"nbdserver {' '.join(table)}" if table else "any command"
        raise place.error(f"this is no option of {what} that can stand in a file")


def commands_under(tree: click.Command, table: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The command of a table, and all below it if it is a group."""
    command: click.Command = tree
    for name in table:
        command = command.commands[name] if isinstance(command, click.Group) else command
    yield table, command
    if isinstance(command, click.Group):
        for name in command.commands:
            yield from commands_under(tree, (*table, name))


def options(command: click.Command) -> Iterator[click.Option]:
    """The options that can stand in a file."""
    for each in command.params:
        if isinstance(each, click.Option) and each.expose_value and each.envvar is not None and each.name not in NEVER:
            yield each


def _checked(option: click.Option, value: Any, place: _SettingPlace) -> bool | str | list[str]:
    """The value as the command line would give it: an option takes its text, and no number of TOML. BadConfig: the
    option cannot have it."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise place.error("true or false is expected")
        return value
    if option.multiple != isinstance(value, list):
        raise place.error("a list is expected" if option.multiple else "one value is expected, no list")
    texts = []
    for each in value if option.multiple else [value]:
        if isinstance(each, bool) or not isinstance(each, str | int | float):
            raise place.error("a text or a number is expected")
        try:
            option.type(str(each), param=option)
        except click.BadParameter as error:
            raise place.error(error.message.rstrip(".")) from None
        texts.append(str(each))
    return texts if option.multiple else texts[0]


def _line(text: str, table: tuple[str, ...], key: str) -> int | None:
    """Where a key of a table stands, for people: tables and keys are taken to be written plainly."""
    inside: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if head := re.match(r"\s*\[([^\[\]]+)\]", line):
            inside = tuple(part.strip().strip("\"'") for part in head[1].split("."))
        elif inside == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return None
