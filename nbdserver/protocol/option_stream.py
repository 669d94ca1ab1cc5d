"""The bytes of a handshake, taken apart: the client's flags, then one option after the other. No I/O.

Promises: how the bytes were cut into segments makes no difference; the data of an option is limited before it is
stored. What leaves no way to go on raises ProtocolError.
"""

from nbdserver.protocol import wire
from nbdserver.protocol.wire import ProtocolError

OPTION_BYTES_MAX = 64 << 10
"""Data of one option: a name and some queries, each at most 4 KiB, have ample room."""

OPTION_BYTES_DISCARDED_MAX = 1 << 20
"""Longer option data than OPTION_BYTES_MAX is read to its end and refused; beyond this the connection
ends."""


class OptionStream:
    """What a client has said and nobody has answered yet."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._discard = 0
        self._discarded_option = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """These bytes came."""
        self._pending += data

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left."""
        return not self._pending

    def take_rest(self) -> bytes:
        """All that is left."""
        rest = bytes(self._pending)
        self._pending.clear()
        return rest

    def client_flags(self) -> int | None:
        """The 32 bits a client begins with; None: they are not all there."""
        if len(self._pending) < wire.CLIENT_FLAGS.size:
            return None
        (flags,) = wire.CLIENT_FLAGS.unpack_from(self._pending)
        del self._pending[: wire.CLIENT_FLAGS.size]
        return int(flags)

    def option(self) -> tuple[int, bytes | None] | None:
        """The next option and its data, which are None if there were more of them than OPTION_BYTES_MAX and they are
        gone; None: it is not all there."""
        pending = self._pending
        if not self._discard:
            if len(pending) < wire.OPTION.size:
                return None
            magic, option, length = wire.OPTION.unpack_from(pending)
            _check_header(magic, option, length)
            behind = wire.OPTION.size + length
            if length <= OPTION_BYTES_MAX:
                if len(pending) < behind:
                    return None
                data = bytes(pending[wire.OPTION.size : behind])
                del pending[:behind]
                return option, data
            del pending[: wire.OPTION.size]
            self._discard, self._discarded_option = length, option
        gone = min(self._discard, len(pending))
        del pending[:gone]
        self._discard -= gone
        return None if self._discard else (self._discarded_option, None)


def _check_header(magic: int, option: int, length: int) -> None:
    """End the connection if this option cannot be answered at all, before any of its data is stored."""
    if magic != wire.IHAVEOPT:
        raise ProtocolError("an option does not begin with the magic number")
    if length > OPTION_BYTES_DISCARDED_MAX:
        raise ProtocolError(f"option {option} announces {length} bytes of data")
    if option == wire.OPT_EXPORT_NAME and length > wire.STRING_BYTES_MAX:
        raise ProtocolError(f"the name of an export has {length} bytes")
