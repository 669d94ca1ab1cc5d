"""The standard streams of a command: there is something behind each, and what becomes of a result nobody takes.

A stream that was closed (`>&-`) is opened on nothing, so that no file, socket or disk gets its number and is written
over. A result that cannot be written is an error with a sentence, as in any command of the system; that whoever reads
has gone (`| head`) is none to speak of.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from nbdserver.cli.shared.exit_status import FAILED

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

INPUT, OUTPUT, ERROR = 0, 1, 2

# Of the direction that does not work: reading, or writing, such a stream says "Bad file descriptor".
_ON_NOTHING = {INPUT: os.O_WRONLY, OUTPUT: os.O_RDONLY, ERROR: os.O_RDWR}


class _Output(io.FileIO):
    """Standard output, which says so where it cannot be written."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, "standard output") from None


def open_standard() -> None:
    """Open what was closed, and let what is printed be printable. Before anything else is opened."""
    for descriptor, flags in _ON_NOTHING.items():
        try:
            os.fstat(descriptor)
        except OSError:
            nothing = os.open(os.devnull, flags)
            if nothing != descriptor:
                os.dup2(nothing, descriptor)
                os.close(nothing)
            os.set_inheritable(descriptor, True)
    sys.stdin = sys.stdin or os.fdopen(INPUT, closefd=False)
    sys.stderr = sys.stderr or os.fdopen(ERROR, "w", closefd=False, errors="backslashreplace")
    # A path may be no text at all, and a terminal may not know all letters.
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(OUTPUT, "w", closefd=False)),
        encoding=None if sys.stdout is None else sys.stdout.encoding,
        errors="backslashreplace",
        line_buffering=os.isatty(OUTPUT),
    )


def write_out(status: int) -> int:
    """Write out what is left; the exit status, which is FAILED if somebody did not get a result."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if status == 0 and error.errno != errno.EPIPE:
            complain(f"{error.filename}: {error.strerror}")
        status = status or FAILED
        _give_up(sys.stdout, OUTPUT)
    try:
        sys.stderr.flush()
    except OSError:
        _give_up(sys.stderr, ERROR)
    return status


@contextlib.contextmanager
def of_use() -> Iterator[None]:
    """What is printed here is of use, and nothing fails for want of it: a process that stays goes on without a reader,
    and its end is told by what it did. What could not be written is not tried again then.
    """
    with contextlib.suppress(OSError):
        yield
    try:
        sys.stdout.flush()
    except OSError:
        _give_up(sys.stdout, OUTPUT)


def complain(sentence: str) -> None:
    """A line on standard error, for whoever is there to read it."""
    with contextlib.suppress(OSError):
        print(f"nbdserver: {sentence}", file=sys.stderr, flush=True)


def _give_up(stream: IO[str], descriptor: int) -> None:
    """Have Python try no more at its end: what was to be written goes nowhere."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
