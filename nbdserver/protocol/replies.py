"""Replies as they look on the wire.

One encoder per dialect: `SimpleReplies`, or `ChunkedReplies` in the layout of structured or of extended replies.
An encoder appends buffers to a list that the caller hands to one `writelines`, so that data goes from the cache
to the socket as it lies there.

What it costs: one `pack` (0.2 us) and two buffers in the transport's list (0.3 us) for a READ that one piece
answers. Copying even 4 KiB behind its header costs more than the second buffer (measured: 0.45 against 0.3
us), so data is never copied. Runs of zeros are a hole chunk in structured and extended replies, and slices of one
constant buffer in simple ones.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nbdserver.protocol import wire

Piece = bytes | bytearray | memoryview | int
"""What a device hands out for a range: data, or the length of a run of zeros."""

EXTENTS_MAX = 128 << 10
"""Descriptors in one block status chunk; the specification's limit is 2^20."""

_ZERO_CHUNK = memoryview(bytes(1 << 20))

_SIMPLE = struct.Struct(">II8s")
"""32 bits SIMPLE_REPLY_MAGIC, 32 bits error, 64 bits cookie; the data of a successful READ follows."""

_SIMPLE_DONE = struct.pack(">II", wire.SIMPLE_REPLY_MAGIC, 0)

Parts = list[bytes | bytearray | memoryview]
"""Buffers that go out one after the other."""


class Replies(Protocol):
    """The replies of one connection, as negotiated."""

    def done(self, cookie: bytes) -> bytes:
        """Success of a request that has no data to send back."""

    def error(self, cookie: bytes, error: int, message: str) -> bytes:
        """Failure of any request; `error` is a number of the protocol, `message` for a person."""

    def data(
        self,
        parts: Parts,
        cookie: bytes,
        offset: int,
        length: int,
        pieces: Sequence[Piece],
        *,
        dont_fragment: bool = False,
    ) -> None:
        """Append the answer to a READ of [offset, offset + length), which `pieces` make up exactly.

        `dont_fragment`: the client forbade fragments (DF), so there is at most one content chunk.
        """


class SimpleReplies:
    """Simple replies: success or one error number, with bare data behind a READ."""

    def done(self, cookie: bytes) -> bytes:
        return _SIMPLE_DONE + cookie

    def error(self, cookie: bytes, error: int, message: str) -> bytes:
        return _SIMPLE.pack(wire.SIMPLE_REPLY_MAGIC, error, cookie)

    def data(
        self,
        parts: Parts,
        cookie: bytes,
        offset: int,
        length: int,
        pieces: Sequence[Piece],
        *,
        dont_fragment: bool = False,
    ) -> None:
        parts.append(_SIMPLE_DONE + cookie)
        _append_bare(parts, pieces)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the chunks of one dialect look.

    A chunk is 32 bits `magic`, 16 bits flags and 16 bits type (one number here), the cookie, the length of what
    follows. `data` has 64 bits offset behind that, `hole` another 32 bits length of the hole. What a request
    without data to send back is answered if it succeeds, is `done` around its cookie. `status` is the type of a
    block status, which begins with the id of the context and, if `counted`, the number of descriptors; each is
    two numbers of the format `descriptor`, length and flags.
    """

    magic: int
    chunk: struct.Struct
    data: struct.Struct
    hole: struct.Struct
    done: tuple[bytes, bytes]
    status: int
    counted: bool
    descriptor: str

    def head(self, kind: int, *, last: bool) -> int:
        """Magic, flags and type of a chunk."""
        return self.magic << 32 | (wire.REPLY_FLAG_DONE << 16 if last else 0) | kind


# Structured replies: 64 bits cookie, 32 bits length. To everything but READ the specification allows a simple
# reply while it carries no data: four bytes less.
STRUCTURED = Layout(
    magic=wire.STRUCTURED_REPLY_MAGIC,
    chunk=struct.Struct(">Q8sI"),
    data=struct.Struct(">Q8sIQ"),
    hole=struct.Struct(">Q8sIQI"),
    done=(_SIMPLE_DONE, b""),
    status=wire.REPLY_TYPE_BLOCK_STATUS,
    counted=False,
    descriptor="I",
)

# Extended replies: 64 bits cookie and 64 bits offset as in the request, 64 bits length; never a simple reply.
EXTENDED = Layout(
    magic=wire.EXTENDED_REPLY_MAGIC,
    chunk=struct.Struct(">Q16sQ"),
    data=struct.Struct(">Q16sQQ"),
    hole=struct.Struct(">Q16sQQI"),
    done=(struct.pack(">IHH", wire.EXTENDED_REPLY_MAGIC, wire.REPLY_FLAG_DONE, wire.REPLY_TYPE_NONE), bytes(8)),
    status=wire.REPLY_TYPE_BLOCK_STATUS_EXT,
    counted=True,
    descriptor="Q",
)


class ChunkedReplies:
    """Replies in chunks that name their offset, with holes, and errors with a message."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._done_before, self._done_behind = layout.done
        self._data = layout.data.pack
        self._data_last = layout.head(wire.REPLY_TYPE_OFFSET_DATA, last=True)

    def done(self, cookie: bytes) -> bytes:
        return self._done_before + cookie + self._done_behind

    def error(self, cookie: bytes, error: int, message: str) -> bytes:
        """32 bits error, 16 bits length of the message, the message (REPLY_TYPE_ERROR)."""
        return self._chunk(wire.REPLY_TYPE_ERROR, cookie, _error(error, message), last=True)

    def data(
        self,
        parts: Parts,
        cookie: bytes,
        offset: int,
        length: int,
        pieces: Sequence[Piece],
        *,
        dont_fragment: bool = False,
    ) -> None:
        # Of one piece as a rule. `isinstance` and `+=` for two appends would cost 60 ns more.
        if len(pieces) == 1 and type(piece := pieces[0]) is not int:
            parts.append(self._data(self._data_last, cookie, length + 8, offset))
            parts.append(piece)  # type: ignore[arg-type]
        elif not pieces:
            parts.append(self.end(cookie))
        elif dont_fragment and len(pieces) > 1:
            parts.append(self._data(self._data_last, cookie, length + 8, offset))
            _append_bare(parts, pieces)
        else:
            self._chunks(parts, cookie, offset, pieces, last=True)

    def part(self, parts: Parts, cookie: bytes, offset: int, pieces: Sequence[Piece]) -> None:
        """Append a part of the answer to a READ, which begins at `offset`. Further parts, errors, `end` follow."""
        self._chunks(parts, cookie, offset, pieces, last=False)

    def error_at(self, cookie: bytes, error: int, message: str, offset: int) -> bytes:
        """What begins at `offset` could not be read, other parts were: as in `error`, then 64 bits offset
        (REPLY_TYPE_ERROR_OFFSET). Further parts, errors, `end` follow."""
        body = _error(error, message) + struct.pack(">Q", offset)
        return self._chunk(wire.REPLY_TYPE_ERROR_OFFSET, cookie, body, last=False)

    def end(self, cookie: bytes) -> bytes:
        """The end of an answer in parts (REPLY_TYPE_NONE)."""
        return self._chunk(wire.REPLY_TYPE_NONE, cookie, b"", last=True)

    def status(
        self,
        cookie: bytes,
        context: int,
        extents: Sequence[tuple[int, int]],
        length: int,
        *,
        one: bool,
        last: bool = True,
    ) -> bytes:
        """The answer to BLOCK_STATUS for one context, the `last` or not: for each extent its length and flags.

        Neighbours of equal flags become one descriptor. Nothing beyond `length` is described, at most
        EXTENTS_MAX descriptors, with `one` (REQ_ONE) only the first.
        """
        numbers: list[int] = []
        left = length
        for size, flags in extents:
            size = min(size, left)
            if numbers and numbers[-1] == flags:
                numbers[-2] += size
            elif (one and numbers) or len(numbers) == 2 * EXTENTS_MAX:
                break
            else:
                numbers += (size, flags)
            left -= size
            if not left:
                break
        layout = self._layout
        body = struct.pack(">I", context)
        if layout.counted:
            body += struct.pack(">I", len(numbers) // 2)
        body += struct.pack(f">{len(numbers)}{layout.descriptor}", *numbers)
        return self._chunk(layout.status, cookie, body, last=last)

    def _chunk(self, kind: int, cookie: bytes, body: bytes, *, last: bool) -> bytes:
        layout = self._layout
        return layout.chunk.pack(layout.head(kind, last=last), cookie, len(body)) + body

    def _chunks(self, parts: Parts, cookie: bytes, offset: int, pieces: Sequence[Piece], *, last: bool) -> None:
        """One chunk for each run of data and of zeros."""
        layout = self._layout
        count = len(pieces)
        index = 0
        while index < count:
            first, run = index, 0
            if isinstance(piece := pieces[index], int):
                run = piece
                index += 1
                head = layout.head(wire.REPLY_TYPE_OFFSET_HOLE, last=last and index == count)
                parts.append(layout.hole.pack(head, cookie, 12, offset, run))
            else:
                while index < count and not isinstance(piece := pieces[index], int):
                    run += len(piece)
                    index += 1
                head = layout.head(wire.REPLY_TYPE_OFFSET_DATA, last=last and index == count)
                parts.append(layout.data.pack(head, cookie, run + 8, offset))
                _append_bare(parts, pieces[first:index])
            offset += run


def _error(error: int, message: str) -> bytes:
    text = message.encode()[: wire.STRING_BYTES_MAX]
    return struct.pack(">IH", error, len(text)) + text


def _append_bare(parts: Parts, pieces: Sequence[Piece]) -> None:
    """Append data as it is; zeros as slices of one constant buffer."""
    for piece in pieces:
        if not isinstance(piece, int):
            parts.append(piece)
            continue
        while piece > 0:
            parts.append(_ZERO_CHUNK[:piece])
            piece -= len(_ZERO_CHUNK)
