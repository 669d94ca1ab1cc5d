"""The options of a running command in the configuration file, which is read again when that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from nbdserver.cli.shared.config_file import BadConfig, ConfigFile, options, read
from nbdserver.service.rereading import Change

FROM_FILE = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
"""Where the value of an option came from that the file can change."""


class FileOptions:
    """Those that neither the command line nor a variable has set. A file that was not there when the command began is
    not looked for.
    """

    def __init__(self, ctx: click.Context) -> None:
        root = ctx.find_root()
        self._file: ConfigFile | None = root.obj
        self._root = root.command
        self._name = ctx.info_name or ""
        self._command = ctx.command
        self._options = [
            each for each in options(ctx.command) if each.name and ctx.get_parameter_source(each.name) in FROM_FILE
        ]
        self._values = dict(ctx.default_map or {})
        """As they stood in the file, of those that the command runs by."""
        self._read_last: dict[str, Any] = {}

    def changes(self) -> Sequence[Change]:
        from storage.errors import Invalid

        now = self._read_last = self._read()
        # Parsed by the same rules as when the command began, so that what is not in the file any more has its default.
        above = click.Context(self._root, default_map={self._name: now})
        try:
            values = self._command.make_context(self._name, [], parent=above).params
        except click.ClickException as error:
            raise Invalid(error.format_message()) from None
        return [
            Change(name, _long(each), values[name])
            for each in self._options
            if (name := each.name or "") and now.get(name) != self._values.get(name)
        ]

    def accept(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._values[change.field] = self._read_last.get(change.field)

    def _read(self) -> dict[str, Any]:
        from storage.errors import Invalid

        if self._file is None or not isinstance(self._root, click.Group):
            return self._values
        path = self._file.path
        try:
            found: dict[str, Any] = read(path, self._root).defaults.get(self._name, {})
        except BadConfig as error:
            raise Invalid(str(error)) from None
        except OSError as error:
            raise Invalid(f"the configuration file {path} cannot be read: {error.strerror}") from error
        return found


def _long(option: click.Option) -> str:
    return next(name for name in option.opts if name.startswith("--"))
