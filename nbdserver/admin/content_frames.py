"""The content of a device on its way over the admin socket: frames of data, without holes.

A frame is `offset u64 | length u32`, big-endian, and `length` bytes of data; offsets ascend, and what lies
between two frames is zeros, as is what lies behind them. The last frame has length 0 and the size of the
whole as its offset: a stream without it was cut off. A sender that fails on its way says why: a frame at
offset 2^64 - 1 holds its reason and is the last.
"""

import struct

from storage.units import MIB

FRAME_HEADER = struct.Struct(">QI")

DATA_BYTES_MAX = MIB
"""Of one frame, which both sides hold in memory."""

FAILURE_OFFSET = 2**64 - 1

Piece = tuple[int, bytes | bytearray | memoryview]
"""Where, and what; never empty."""


class Truncated(ValueError):
    """The stream ended early, or is no stream of frames."""


class TooLong(ValueError):
    """A piece ends behind the end of the device: the source is larger than that."""

    def __init__(self, size: int) -> None:
        super().__init__(f"there is more to write than the {size} bytes of the device: make it larger first")


class SenderFailed(Exception):
    """The sender could not go on; the argument is its reason, as it sent it."""


def encode(offset: int, data: bytes | bytearray | memoryview) -> bytes:
    """One frame. ValueError: no frame has so much data, or none."""
    if not 0 < len(data) <= DATA_BYTES_MAX:
        raise ValueError(f"a frame has 1 to {DATA_BYTES_MAX} bytes of data, not {len(data)}")
    return b"".join((FRAME_HEADER.pack(offset, len(data)), data))


def encode_end(size: int) -> bytes:
    """The last frame: the whole has `size` bytes, and all of its data was sent."""
    return FRAME_HEADER.pack(size, 0)


def encode_failure(reason: bytes) -> bytes:
    """The last frame of a sender that cannot go on."""
    return FRAME_HEADER.pack(FAILURE_OFFSET, len(reason)) + reason


class Decoder:
    """Frames for a device of `size` bytes, one header and one body at a time; does no reading itself.

    Invariant: `position` is the end of the last piece, and no piece begins before it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.position = 0

    def body_length(self, header: bytes) -> int:
        """How many bytes follow this header; 0 at the end. Truncated: it is no header that can come here. TooLong."""
        if len(header) != FRAME_HEADER.size:
            raise Truncated("the transfer was cut off before its end")
        offset, length = FRAME_HEADER.unpack(header)
        if length > DATA_BYTES_MAX:
            raise Truncated("the transfer is damaged: a piece has an impossible length")
        if offset != FAILURE_OFFSET and offset < self.position:
            raise Truncated("the transfer is damaged: a piece does not lie behind the one before it")
        if offset != FAILURE_OFFSET and offset + length > self.size:
            raise TooLong(self.size)
        return int(length)

    def piece(self, header: bytes, body: bytes) -> Piece:
        """The piece of a header and its body. SenderFailed: it holds a reason instead."""
        offset, length = FRAME_HEADER.unpack(header)
        if len(body) != length:
            raise Truncated("the transfer was cut off before its end")
        if offset == FAILURE_OFFSET:
            raise SenderFailed(body)
        self.position = offset + length
        return offset, body
