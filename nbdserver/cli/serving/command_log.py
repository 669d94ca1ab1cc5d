"""Where a command that stays logs: in the foreground on standard error, in the background to a file or the system."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nbdserver.service.logs import Format


def check_system_log() -> None:
    """UsageError: a process in the background would log to nobody."""
    from nbdserver.service import logs

    handler = logs.system_log()
    if handler is None:
        raise click.UsageError(
            f"--fork needs a place for the log, and nothing listens on {logs.SYSLOG}: give --log-file"
        )
    handler.close()


class CommandLog:
    """Where a process logs, and how much: while it starts, while it serves, and of its end.

    Who waits for it to start is told why on standard error; a script gets the one sentence with which it does not.
    """

    def __init__(self, form: Format, file: Path | None, level: int, *, detached: bool) -> None:
        """Invalid, AccessDenied: the file cannot be written."""
        from nbdserver.service import logs

        self._form = form
        self._level = level
        self._own: list[logging.Handler] = [] if file is None else [logs.LogFile(file)]
        """What is read by nobody who also reads standard error."""
        self._detached = detached

    def start(self, *, verbose: bool) -> None:
        """The command begins: say on standard error what goes wrong before its own log is there."""
        from nbdserver.service import logs

        early = self._level if verbose or sys.stderr.isatty() else logging.ERROR
        self._use([*self._own, logs.standard_error(early)])

    def serve(self) -> None:
        """It serves now, and if it is detached standard error leads nowhere."""
        from nbdserver.service import logs

        if self._detached:
            self._own = self._own or [logs.system_log() or logging.NullHandler()]
            self._use(self._own)
        else:
            self._use([*self._own, logs.standard_error(logging.WARNING if self._own else self._level)])

    def end(self, reason: str, status: int) -> None:
        """It failed, and standard error was told."""
        if not self._own:
            return
        self._use(self._own)
        logging.getLogger("nbdserver").critical("ended", extra={"reason": reason, "status": status})

    def _use(self, handlers: Sequence[logging.Handler]) -> None:
        from nbdserver.service import logs

        logs.set_up(self._form, self._level, handlers)
