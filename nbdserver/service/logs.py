"""Log records: how they look, and where they go.

All code logs with `logging.getLogger("nbdserver")`: an event has a name in `snake_case` that never varies, and its
facts are fields (`extra=`). Records go to standard error, to a file, or to the system's log (/dev/log). Whatever went
wrong, no record shows the values of variables or the arguments of a call: there are passwords, keys and the content of
disks among them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import sys
from collections.abc import MutableMapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nbdserver.printable import printable, printable_lines
from nbdserver.service.log_flood import FloodFilter
from nbdserver.service.log_outlets import Lines, StandardError, SystemLog
from storage.errors import AccessDenied, Invalid, StorageError

if TYPE_CHECKING:
    import structlog

logger = logging.getLogger("nbdserver")

Format = Literal["console", "json", "plain"]
"""`plain`: what `console` says, without colours, for a process that is to be small; the library for the other two takes
20 MB."""

SYSLOG = Path("/dev/log")

_NOWHERE = -1
"""The descriptor of a file that is closed: no number that the system could give to another."""


class LogFile(logging.Handler):
    """A file to append to, readable by its owner only; `reopen` goes on in a new one when it was moved away.

    Lines that its disk does not take are counted, and told of once it takes some again.
    """

    def __init__(self, path: Path) -> None:
        """Invalid, AccessDenied: it cannot be written."""
        super().__init__()
        self._path = path
        self._lines = Lines(0.0)
        self._descriptor = _append_to(path)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.add(record, self.format, self._descriptor, partial(os.write, self._descriptor))
        except Exception:
            self.handleError(record)

    def reopen(self) -> None:
        """Open the path again, for logrotate. Invalid, AccessDenied: it cannot be opened; the old file stays."""
        self._go_on_in(_append_to(self._path))

    def close(self) -> None:
        self._go_on_in(_NOWHERE)
        super().close()

    def _go_on_in(self, descriptor: int) -> None:
        """Nothing is left to write to the old file, so a full disk does not keep it open."""
        self.acquire()  # of the handler: a thread may be in the middle of a line
        try:
            old, self._descriptor = self._descriptor, descriptor
            self._lines.begin_anew()
        finally:
            self.release()
        if old != _NOWHERE:
            with contextlib.suppress(OSError):
                os.close(old)


def standard_error(level: int) -> logging.Handler:
    """Lines on standard error, from `level` on."""
    handler: logging.Handler = StandardError()
    handler.setLevel(level)
    return handler


def system_log() -> logging.Handler | None:
    """The system's log; None where nothing listens on /dev/log."""
    if not any(_is_listened_on(SYSLOG, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)):
        return None  # the handler itself would wait for somebody in silence
    return SystemLog(str(SYSLOG))


def reopen_files() -> None:
    """Go on in new files where the old ones were moved away. One that cannot be opened is logged, in the old one."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            try:
                handler.reopen()
                logger.info("log_reopened")
            except StorageError as error:
                logger.error("log_not_reopened", extra={"error": str(error)})


def _is_listened_on(path: Path, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def set_up(form: Format, level: int, handlers: Sequence[logging.Handler]) -> None:
    """Render all records from `level` on, ours and those of libraries, to these handlers."""
    for handler in handlers:
        handler.addFilter(FloodFilter())
        handler.setFormatter(PlainFormatter() if form == "plain" else _formatter(form, handler))
    # A log that cannot be written has nowhere to say so, and must not print tracebacks into what is left.
    logging.raiseExceptions = False
    root = logging.getLogger()
    for old in root.handlers:
        if old not in handlers and isinstance(old, StandardError | SystemLog):
            old.close()
    root.handlers = list(handlers)
    root.setLevel(level)
    # Libraries below warnings are noise to an operator: a line per request, a line per connection.
    for name in ("aiohttp", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # its warnings quote the arguments of callbacks


class PlainFormatter(logging.Formatter):
    """A record as one line: when, how grave, the event, and its facts."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        facts = [
            f"{name}={printable(value if isinstance(value, str) else repr(value))}"
            for name, value in sorted(vars(record).items())
            if name not in _OF_EVERY_RECORD
        ]
        line = " ".join([when, record.levelname.lower(), printable(record.getMessage()), *facts])
        if record.exc_info:
            return f"{line}\n{printable_lines(self.formatException(record.exc_info))}"
        return line


_OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message"}


def _formatter(form: Format, handler: logging.Handler) -> logging.Formatter:
    import structlog

    shared: list[structlog.types.Processor] = [
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_text(form),
            _renderer(form, handler),
        ],
    )


def on_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What an event loop says of an exception nobody took. asyncio's own handler prints callbacks with their arguments.

    Give it to `set_exception_handler`.
    """
    in_callback = "handle" in context  # then the message quotes it
    message = "an exception in a callback" if in_callback else context.get("message", "an exception")
    logger.error("callback_crashed", extra={"error": message}, exc_info=context.get("exception"))


def _renderer(form: Format, handler: logging.Handler) -> structlog.types.Processor:
    import structlog

    if form == "json":
        return structlog.processors.JSONRenderer()
    on_terminal = getattr(handler, "stream", None) is sys.stderr and os.isatty(2)
    return structlog.dev.ConsoleRenderer(
        colors=on_terminal and not os.environ.get("NO_COLOR"), exception_formatter=structlog.dev.plain_traceback
    )


def _text(form: Format) -> list[structlog.types.Processor]:
    """Tracebacks are plain text, without the values of variables; what is not JSON is made fit for a terminal."""
    import structlog

    plain: list[structlog.types.Processor] = [structlog.processors.format_exc_info]
    return plain if form == "json" else [*plain, _shown]


def _shown(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A line for people holds nothing that a terminal would act on, whoever's words are in it."""
    for key, value in event.items():
        if key in ("exception", "stack"):
            event[key] = printable_lines(str(value))
        else:
            event[key] = printable(value if isinstance(value, str) else str(value))
    return event


def _append_to(path: Path) -> int:
    """Open a log file. A link in its place is not followed: who may write the folder could turn it anywhere."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except PermissionError as error:
        raise AccessDenied(f"the log file {path} may not be written by this user") from error
    except OSError as error:
        reason = "it is a link, and links are not followed" if path.is_symlink() else error.strerror
        raise Invalid(f"the log file {path} cannot be opened: {reason}") from error
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Invalid(f"the log file {path} is not a file")
        undo.pop_all()
    return descriptor
