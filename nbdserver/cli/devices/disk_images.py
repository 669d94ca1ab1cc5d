"""Files that hold the content of a disk: how to read one without its holes, and to write
one with them.

Regular files, block devices, and pipes (which have no holes). Every error of the operating system comes out
as a CommandFailed that names the file.
"""

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from nbdserver.cli.devices.image_formats import HEAD_BYTES, TAIL_BYTES, is_no_raw_disk
from nbdserver.cli.shared.exit_status import EXISTS, CommandFailed
from storage.trusted_files import create_new, trusted_users
from storage.units import KIB, MIB

PIECE_BYTES = 256 * KIB
"""Read at once: as much as a block of the store has, since writing whole ones costs the least."""

HOLE_BYTES = 4 * KIB
"""The smallest hole that filesystems keep."""

_ZEROS = bytes(MIB)

Piece = tuple[int, bytes]
Advance = Callable[[int], None]


class ImageReader:
    """A file to import; `-` is standard input.

    `size` in bytes is None where only reading it to the end can tell.
    """

    def __init__(self, name: str, *, insist: bool = False) -> None:
        """CommandFailed: it cannot be read, or (unless `insist`) holds a disk in another format than raw."""
        self.name = name
        self._insist = insist
        self._ahead = b""
        """What was read of a pipe and not given yet."""
        with _named(name):
            self._file: BinaryIO = sys.stdin.buffer if name == "-" else open(name, "rb", buffering=0)  # noqa: SIM115
            self.size: int | None = None
            self._begin = 0
            """Where in the file the disk begins: of standard input, what was read before is none of it."""
            mode = os.fstat(self._file.fileno()).st_mode
            if stat.S_ISDIR(mode):
                raise CommandFailed(f"{name} is a directory")
            if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
                self._begin = os.lseek(self._file.fileno(), 0, os.SEEK_CUR)
                self.size = max(0, os.lseek(self._file.fileno(), 0, os.SEEK_END) - self._begin)
                end = max(0, self.size - TAIL_BYTES)
                self._check_format(self._read_at(0, min(HEAD_BYTES, self.size)), self._read_at(end, self.size - end))

    def head(self) -> bytes:
        """How it begins: `HEAD_BYTES`, or fewer where it is shorter."""
        with _named(self.name):
            if self.size is not None:
                return self._read_at(0, min(HEAD_BYTES, self.size))
            self._ahead = self._read_block()
            return self._ahead[:HEAD_BYTES]

    def raw(self, advance: Advance) -> Iterator[bytes]:
        """All of its bytes, as they are; `advance` is told how far it is."""
        position = 0
        with _named(self.name):
            while self.size is None or position < self.size:
                step = 0 if self.size is None else min(PIECE_BYTES, self.size - position)
                data = self._read_block() if self.size is None else self._read_at(position, step)
                if not data:
                    return
                position += len(data)
                yield data
                advance(position)

    def _check_format(self, head: bytes, tail: bytes = b"") -> None:
        refusal = is_no_raw_disk("what comes in" if self.name == "-" else self.name, head, tail)
        if refusal is not None and not self._insist:
            raise CommandFailed(refusal)

    def pieces(self, advance: Advance) -> Iterator[Piece]:
        """Where there is data, and the data; `advance` is told how far it is."""
        with _named(self.name):
            if self.size is None:
                yield from self._read_stream(advance)
            else:
                yield from self._read_file(self.size, advance)

    def _read_file(self, size: int, advance: Advance) -> Iterator[Piece]:
        position = 0
        while position < size:
            start = self._next_data(position)
            if start is None:
                break
            start -= start % PIECE_BYTES
            data = self._read_at(start, min(PIECE_BYTES, size - start))
            if data != _ZEROS[: len(data)]:
                yield start, data
            position = start + PIECE_BYTES
            advance(min(position, size))
        advance(size)

    def _next_data(self, position: int) -> int | None:
        """Where the next data begins; None if only a hole follows."""
        try:
            return max(position, os.lseek(self._file.fileno(), self._begin + position, os.SEEK_DATA) - self._begin)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            return position  # this kind of file does not tell

    def _read_at(self, offset: int, length: int) -> bytes:
        offset += self._begin
        data = os.pread(self._file.fileno(), length, offset)
        while len(data) < length:
            more = os.pread(self._file.fileno(), length - len(data), offset + len(data))
            if not more:
                raise CommandFailed(f"{self.name} became shorter while it was read")
            data += more
        return data

    def _read_stream(self, advance: Advance) -> Iterator[Piece]:
        position = 0
        while data := self._read_block():
            if position == 0:
                self._check_format(data)
            if data != _ZEROS[: len(data)]:
                yield position, data
            position += len(data)
            advance(position)

    def _read_block(self) -> bytes:
        """The next block of a pipe; less of it only at the end."""
        data, self._ahead = self._ahead, b""
        while len(data) < PIECE_BYTES and (more := self._file.read(PIECE_BYTES - len(data))):
            data += more
        return data

    def close(self) -> None:
        if self.name != "-":
            self._file.close()


class ImageWriter:
    """A file to export to; `-` is standard output.

    A file that is not there is made, for this user alone. One that is there must be this user's and have no other
    name, so that nobody gets the data by having been first; it must be empty, which a block device never is: else
    `overwrite` is needed. What it holds stays until there is something to put in its place. A file that was made here
    is removed again unless `finish` was reached.
    """

    def __init__(self, name: str, *, overwrite: bool) -> None:
        self.name = name
        self._position = 0
        self._begun = False
        self._made: os.stat_result | None = None
        with _named(name):
            if name == "-" and sys.stdout.isatty():
                raise CommandFailed("a disk is not for a terminal: send it to a file or a pipe")
            self._descriptor = sys.stdout.fileno() if name == "-" else self._open(overwrite=overwrite)
            mode = os.fstat(self._descriptor).st_mode
            self._sparse = stat.S_ISREG(mode) and name != "-"
            self._seekable = self._sparse or stat.S_ISBLK(mode)
            self.is_standard_output = os.path.sameopenfile(self._descriptor, sys.stdout.fileno())
            """Whatever it is called: what else is printed there would be taken for a part of the disk."""

    def _open(self, *, overwrite: bool) -> int:
        try:
            descriptor = create_new(Path(self.name), 0o600)
            self._made = os.fstat(descriptor)
        except FileExistsError:
            descriptor = _open_existing(self.name)
        found = os.fstat(descriptor)
        disk = stat.S_ISBLK(found.st_mode)
        if (disk or found.st_size) and not overwrite:
            os.close(descriptor)
            sentence = f"{self.name} is there already: give --overwrite to replace what it holds"
            raise CommandFailed(sentence, status=EXISTS)
        return descriptor

    def begin(self) -> None:
        """Empty a file that is there. Not before the first piece, or the end of a disk without any: until then the
        store may turn out to be away, or the password wrong, and what is there be the last copy of a disk.
        """
        if self._sparse and not self._begun:
            with _named(self.name):
                os.ftruncate(self._descriptor, 0)
        self._begun = True

    def write(self, offset: int, data: bytes) -> None:
        """Write a piece; offsets ascend, and what lies between two pieces is zeros."""
        self.begin()
        with _named(self.name):
            self._skip_to(offset)
            if not self._sparse:
                self._write_all(data)
                return
            for start, end in data_runs(data):
                self._position = offset + start
                self._write_all(data[start:end])
            self._position = offset + len(data)

    def finish(self, size: int) -> None:
        """The whole has `size` bytes; durable on return."""
        self.begin()
        with _named(self.name):
            if self._sparse:
                os.ftruncate(self._descriptor, size)
            else:
                self._skip_to(size)
            if self._seekable:
                os.fsync(self._descriptor)
        self._made = None

    def close(self) -> None:
        if self.name != "-":
            os.close(self._descriptor)
        if self._made is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.lstat(self.name), self._made):
                    os.unlink(self.name)

    def _skip_to(self, offset: int) -> None:
        if self._sparse:
            self._position = offset
            return
        while self._position < offset:
            self._write_all(_ZEROS[: min(len(_ZEROS), offset - self._position)])

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._seekable:
                count = os.pwrite(self._descriptor, view, self._position)
            else:
                count = os.write(self._descriptor, view)
            self._position += count
            view = view[count:]


def _open_existing(name: str) -> int:
    """A descriptor to write to what is there. CommandFailed: somebody else put it there, and would get the data."""
    entry = os.lstat(name)
    link = stat.S_ISLNK(entry.st_mode)
    if (link or stat.S_ISFIFO(entry.st_mode)) and entry.st_uid not in trusted_users():
        kind = "link" if link else "pipe"
        raise CommandFailed(f"{name} is a {kind} of user {entry.st_uid}, who would get the data: choose another name")
    descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | (0 if link else os.O_NOFOLLOW))
    found = os.fstat(descriptor)
    why = None
    if stat.S_ISREG(found.st_mode) and found.st_uid != os.geteuid():
        why = f"belongs to user {found.st_uid}, who would get the data"
    elif stat.S_ISREG(found.st_mode) and found.st_nlink != 1:
        why = "has another name, under which others may have it"
    if why is not None:
        os.close(descriptor)
        raise CommandFailed(f"{name} {why}: remove it or choose another name")
    return descriptor


def data_runs(data: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of the stretches of `data` that are not zeros, in whole sectors as far as `data` goes."""
    start = None
    for position in range(0, len(data), HOLE_BYTES):
        sector = data[position : position + HOLE_BYTES]
        if sector == _ZEROS[: len(sector)]:
            if start is not None:
                yield start, position
                start = None
        elif start is None:
            start = position
    if start is not None:
        yield start, len(data)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = {"-": "the pipe"}.get(name, name)
        raise CommandFailed(f"{where}: {error.strerror or error}") from error
