"""The end of a command: the exit status of every kind of error, and its one sentence."""

import contextlib
import os
import sys

import click

from nbdserver.printable import printable, printable_lines

FAILED = 1
USAGE = 2
PROBLEMS = 3
"""What was asked for is done, and something is wrong."""
EXISTS = 15
CONFLICT = 16
"""Not possible as things are."""
DAMAGED = 20
"""Data is damaged, lost or rolled back."""
INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""

STATUS_OF_KIND = {
    "Unfinished": 3,
    "NotFound": 10,
    "NoBucket": 10,
    "Fenced": 11,
    "WrongPassword": 12,
    "AccessDenied": 13,
    "Unsupported": 14,
    "AlreadyExists": EXISTS,
    "Conflict": CONFLICT,
    "Corrupt": DAMAGED,
    "KeyChanged": CONFLICT,
    "RolledBack": DAMAGED,
    "Unavailable": 21,
    "Unreadable": 21,
    "Untrusted": 21,
    "OutOfSpace": 22,
    "Invalid": USAGE,
}
"""By the name of a class of `storage.errors`, which a light command never imports.

What is not here is FAILED.
"""


class CommandFailed(click.ClickException):
    """A command cannot do what it was asked; `status` is how the process ends."""

    def __init__(self, message: str, *, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


def status_of(error: BaseException) -> int:
    """The exit status for an error of the storage package, or of a command."""
    if isinstance(error, CommandFailed):
        return error.status
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if _is_for_want_of_threads(error):
        return CONFLICT
    return STATUS_OF_KIND.get(type(error).__name__, FAILED)


def sentence_of(error: BaseException) -> str:
    """What to tell a person about an error."""
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if _is_for_want_of_threads(error):
        return (
            "this process may start no further thread: raise what limits them (TasksMax= of its unit, the limit of its "
            "container, ulimit -u), or end others"
        )
    return str(error) or type(error).__name__


def is_expected(error: BaseException) -> bool:
    """Whether the world caused it; anything else is a mistake in this program."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    expected = {"StorageError", "ClickException", "OSError", "KeyboardInterrupt"} & kinds
    return bool(expected) or _is_for_want_of_threads(error)


def _is_for_want_of_threads(error: BaseException) -> bool:
    """Python has no kind of its own for it, whoever starts one: a command, the event loop, a library."""
    return isinstance(error, RuntimeError) and str(error) == "can't start new thread"


def report(error: BaseException, *, as_json: bool) -> int:
    """Say on standard error how a command failed, and give its exit status."""
    if isinstance(error, BrokenPipeError):
        return FAILED  # whoever read our output has gone: there is nobody to tell
    status = status_of(error)
    message = sentence_of(error)
    if not is_expected(error):
        message = f"a mistake in this program: {type(error).__name__}: {message}; NBDSERVER_DEBUG=1 shows where"
    if os.environ.get("NBDSERVER_DEBUG"):
        import traceback

        traceback.print_exception(error)
    # The usage of a command has lines of its own; what a store, a server or a file says has none.
    shown = printable_lines(message) if isinstance(error, click.UsageError) else printable(message)
    lines = [f"nbdserver: {shown}"]
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        lines = [message]  # the page of help, which begins with the usage
    elif isinstance(error, click.UsageError) and error.ctx is not None and not as_json:
        lines.insert(0, error.ctx.get_usage())
    if as_json:
        import json

        lines.append(json.dumps({"message_type": "exit_error", "code": status, "message": message}))
    with contextlib.suppress(OSError):  # nobody listens, and the status says it too
        click.echo("\n".join(lines), err=True)
        sys.stderr.flush()
    return status
