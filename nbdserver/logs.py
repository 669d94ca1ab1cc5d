"""This file knows how log records look.

Code logs with `logging.getLogger(__name__)` and facts in `extra=`.
"""

import logging
import logging.handlers
import sys
from pathlib import Path
from typing import Literal

import structlog

Format = Literal["console", "json"]

SYSLOG = Path("/dev/log")


def set_up(form: Format, level: int, *, to_system: bool = False) -> None:
    """Render all records, ours and those of libraries, to standard error, or to the system's log."""
    renderer: structlog.types.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty() and not to_system)
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler: logging.Handler
    if not to_system:
        handler = logging.StreamHandler(sys.stderr)
    elif SYSLOG.exists():
        handler = logging.handlers.SysLogHandler(str(SYSLOG), logging.handlers.SysLogHandler.LOG_DAEMON)
        handler.ident = "nbdserver: "
    else:
        handler = logging.NullHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_tracebacks(form), renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Libraries below warnings are noise to an operator: a line per request, a line per connection.
    for name in ("aiohttp", "asyncio", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _tracebacks(form: Format) -> list[structlog.types.Processor]:
    """JSON lines carry a traceback as one string; the console renderer prints it below the line by itself."""
    return [structlog.processors.format_exc_info] if form == "json" else []
