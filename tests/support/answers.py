"""What a server answers, read strictly, in short lines.

One line an option: `LIST ACK beside disk`, `GO ACK EXPORT BLOCK_SIZE`, `GO ERR_UNKNOWN`; `export 1048576` for
EXPORT_NAME. One line a request, with its cookie: `1 ok` by simple reply, `1: ok` by structured, `1@0: ok` by
extended ones (with the offset in the header); further `1: EINVAL`, `1: status 1 4096/0`, and for a READ its
start, length, content and kinds of chunks: `1: read 0+8192 d*4096 0*4096 (data hole)`. Where a part of it could not
be read, what was, and where it could not: `1: read 0+4096 d*4096 (data) EIO@4096`.

What the specification says a server MUST (NOT) put into a reply is checked here; AssertionError says what was
wrong.
"""

import itertools
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support import messages as m

TLS_ALERT = b"\x15\x03"
"""What may come where TLS was to begin and did not: two bytes of version, of length, and of alert."""

RUN = re.compile(rb"(.)\1*", re.DOTALL)
"""As many of one byte as follow each other."""

MESSAGE_BYTES_MAX = 4096
REFLECTED_BYTES_MAX = 200
"""A message may quote a name, but not send back whatever a client sent."""


@dataclass(slots=True)
class _Reply:
    """Chunks of one request so far."""

    pieces: dict[int, bytes] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    """What could not be read, and from where on."""
    error: str = ""


def read_answers(
    output: bytes | bytearray, lengths: Mapping[int, int] | None = None, *, padding: int = 0, greeted: bool = False
) -> list[str]:
    """All that a server said, as lines; nothing may be half said."""
    answers = Answers(padding=padding, lengths=lengths, greeted=greeted)
    answers.feed(output)
    answers.finish()
    return answers.lines


class Answers:
    """Reads a server's output as it comes; `lines` grows by complete answers.

    `padding`: the zeros expected behind the answer to EXPORT_NAME. `lengths`: of READs answered by simple
    replies, by cookie; it may grow later.
    """

    def __init__(self, *, padding: int = 0, lengths: Mapping[int, int] | None = None, greeted: bool = False) -> None:
        self.lines: list[str] = []
        self._rest = bytearray()
        self._padding = padding
        self._lengths: Mapping[int, int] = {} if lengths is None else lengths
        self._greeted = greeted
        self._details: list[str] = []
        self._replies: dict[tuple[int, str], _Reply] = {}

    def feed(self, data: bytes | bytearray) -> None:
        self._rest += data
        while self._rest and (taken := self._step()):
            del self._rest[:taken]

    def finish(self) -> None:
        """The connection has ended: nothing may be half said."""
        assert not self._rest, f"the output ends with {len(self._rest)} bytes that are no answer: {self._rest[:40]!r}"
        assert not self._details, f"an option was answered in part: {self._details}"
        assert not self._replies, f"requests were answered in part: {list(self._replies)}"

    def _step(self) -> int:
        """Read one message off the front; 0: it is not complete."""
        rest = bytes(self._rest[:64])
        if not self._greeted:
            assert m.GREETING.startswith(rest[:18]), f"no greeting: {rest!r}"
            self._greeted = len(rest) >= 18
            return 18 if self._greeted else 0
        if m.OPTION_REPLY_MAGIC.startswith(rest[:8]):
            return self._option(rest) if len(rest) >= 20 else 0
        if m.SIMPLE_MAGIC.startswith(rest[:4]):
            return self._simple(rest) if len(rest) >= 16 else 0
        if m.STRUCTURED_MAGIC.startswith(rest[:4]):
            return self._chunk(rest, extended=False) if len(rest) >= 20 else 0
        if m.EXTENDED_MAGIC.startswith(rest[:4]):
            return self._chunk(rest, extended=True) if len(rest) >= 32 else 0
        if self.lines[-1:] == ["STARTTLS ACK"] and TLS_ALERT.startswith(rest[:2]):
            return 7 if len(rest) >= 7 else 0
        return self._export()

    def _export(self) -> int:
        length = 10 + self._padding
        if len(self._rest) < length:
            return 0
        size, flags = struct.unpack_from(">QH", self._rest)
        assert flags & 1, "HAS_FLAGS must be set"
        assert self._rest[10:length] == bytes(self._padding), f"not an answer: {bytes(self._rest[:length])!r}"
        self.lines.append(f"export {size}")
        return length

    def _option(self, head: bytes) -> int:
        number, kind = struct.unpack_from(">II", head, 8)
        length = int.from_bytes(head[16:20], "big")
        if len(self._rest) < 20 + length:
            return 0
        data = bytes(self._rest[20 : 20 + length])
        name = m.OPTIONS[number] if number < len(m.OPTIONS) else str(number)
        if kind == 1:
            assert not data, "ACK carries no data"
            self._say(name, "ACK")
        elif kind == 2:
            (size,) = struct.unpack_from(">I", data)
            assert size <= length - 4
            self._details.append(data[4 : 4 + size].decode())
        elif kind == 3:
            self._info(int.from_bytes(data[:2], "big"), data[2:])
        elif kind == 4:
            self._details.append(data[4:].decode())
            assert name != "LIST_META_CONTEXT" or data[:4] == bytes(4), "the context id of a listing SHOULD be 0"
        else:
            assert kind >> 31, f"unknown reply type {kind}"
            message = data.decode()
            assert len(data) <= REFLECTED_BYTES_MAX, f"{len(data)} bytes in an error"
            assert message.isprintable(), message
            self._say(name, f"ERR_{m.OPTION_ERRORS[kind & 0xFFFF]}")
        return 20 + length

    def _info(self, number: int, data: bytes) -> None:
        self._details.append(m.INFOS[number])
        if number == 0:
            _, flags = struct.unpack(">QH", data)
            assert flags & 1, "HAS_FLAGS must be set"
            assert flags & (1 << 6) or not flags & (1 << 11), "FAST_ZERO without WRITE_ZEROES"
            assert not flags & (1 << 9), "SEND_RESIZE is only a draft"
        elif number == 3:
            least, preferred, most = struct.unpack(">III", data)
            assert 1 <= least <= preferred <= most
            assert preferred >= 512
            assert most >= 1 << 20
        else:
            assert data.decode().isprintable()

    def _say(self, name: str, kind: str) -> None:
        self.lines.append(" ".join([name, kind, *self._details]))
        self._details = []

    def _simple(self, head: bytes) -> int:
        error, cookie = struct.unpack_from(">IQ", head, 4)
        length = 0 if error else self._lengths.get(cookie, 0)
        if len(self._rest) < 16 + length:
            return 0
        line = f"{cookie} {m.ERRORS[error] if error else 'ok'}"
        if length:
            line = f"{cookie} read {length} {runs(bytes(self._rest[16 : 16 + length]))}"
        self.lines.append(line)
        return 16 + length

    def _chunk(self, head: bytes, *, extended: bool) -> int:
        flags, kind, cookie = struct.unpack_from(">HHQ", head, 4)
        if extended:
            (offset,) = struct.unpack_from(">Q", head, 16)
            size, length, who = 32, int.from_bytes(head[24:32], "big"), (cookie, f"{cookie}@{offset}:")
        else:
            size, length, who = 20, int.from_bytes(head[16:20], "big"), (cookie, f"{cookie}:")
        assert not flags & ~1, "a reply flag that was not negotiated"
        if len(self._rest) < size + length:
            return 0
        reply = self._replies.setdefault(who, _Reply())
        _add(reply, kind, bytes(self._rest[size : size + length]), done=bool(flags & 1), extended=extended)
        if flags & 1:
            del self._replies[who]
            self.lines.append(f"{who[1]} {_summary(reply)}")
        return size + length


def _add(reply: _Reply, kind: int, data: bytes, *, done: bool, extended: bool) -> None:
    """Take one chunk ("Structured reply types")."""
    if kind == 0:
        assert done, "NONE must be the last chunk"
        assert not data, "NONE has no data"
    elif kind == 1:
        assert len(data) >= 9, "a data chunk without data"
        _place(reply, struct.unpack_from(">Q", data)[0], data[8:])
        reply.kinds.append("data")
    elif kind == 2:
        offset, length = struct.unpack(">QI", data)
        assert length, "an empty hole"
        _place(reply, offset, bytes(length))
        reply.kinds.append("hole")
    elif kind in (5, 6):
        assert extended == (kind == 6), "the wrong type of block status"
        reply.status.append(_status(data, extended=extended))
    else:
        assert kind in (0x8001, 0x8002), f"unknown chunk type {kind}"
        error, length = struct.unpack_from(">IH", data)
        assert length <= min(MESSAGE_BYTES_MAX, len(data) - 6)
        assert data[6 : 6 + length].decode().isprintable()
        if kind == m.CHUNK_ERROR_OFFSET:
            assert len(data) == 14 + length
            reply.unread.append(f"{m.ERRORS[error]}@{struct.unpack_from('>Q', data, 6 + length)[0]}")
        else:
            assert len(data) == 6 + length
            reply.error = m.ERRORS[error]


def _place(reply: _Reply, offset: int, data: bytes) -> None:
    for start, other in reply.pieces.items():
        assert offset + len(data) <= start or start + len(other) <= offset, "chunks overlap"
    reply.pieces[offset] = data


def _status(data: bytes, *, extended: bool) -> str:
    if extended:
        context, count = struct.unpack_from(">II", data)
        numbers = list(struct.unpack_from(f">{count * 2}Q", data, 8))
        assert len(data) == 8 + 16 * count
    else:
        context, *numbers = struct.unpack(f">{len(data) // 4}I", data)
    assert numbers, "a block status without extents"
    assert 0 not in numbers[::2], "an empty extent"
    return f"{context} " + " ".join(f"{size}/{flag}" for size, flag in zip(numbers[::2], numbers[1::2], strict=True))


def _summary(reply: _Reply) -> str:
    if reply.error:
        return reply.error
    if reply.status:
        return "status " + ", ".join(reply.status)
    if not reply.pieces:
        return " ".join(reply.unread) or "ok"
    read = [f"{start}+{len(data)} {runs(data)}" for start, data in _joined(reply.pieces)]
    assert len(read) == 1 or reply.unread, f"a part is missing without a word: {read}"
    return " ".join(["read", ", ".join(read), f"({' '.join(reply.kinds)})", *reply.unread])


def _joined(pieces: Mapping[int, bytes]) -> list[tuple[int, bytes]]:
    """Pieces that lie side by side as one."""
    found: list[tuple[int, bytes]] = []
    for start, data in sorted(pieces.items()):
        if found and found[-1][0] + len(found[-1][1]) == start:
            found[-1] = (found[-1][0], found[-1][1] + data)
        else:
            found.append((start, data))
    return found


def runs(data: bytes) -> str:
    """The content as runs of one byte each, the zero byte as 0; `mixed` if there are more than eight."""
    if data.count(data[0]) == len(data):
        found = [(data[0], len(data))]
    else:
        found = [(run[0][0], len(run[0])) for run in itertools.islice(RUN.finditer(data), 9)]
    if len(found) > 8:
        return "mixed"
    return " ".join(f"{chr(byte) if byte else '0'}*{count}" for byte, count in found)
