"""Requests with compact headers of 28 bytes: those of simple and of structured replies."""

from nbdserver.protocol import wire
from nbdserver.protocol.commands import Rules
from nbdserver.protocol.transmission import ADOPT_BYTES_MIN, LATER, MORE, TAKEN, Bounds, Handler, Outcome, Transmission

_COMPACT_BYTES = wire.REQUEST_BYTES
_COMPACT_READ = wire.REQUEST_MAGIC << 32 | wire.CMD_READ
_PLAIN_WRITE = wire.REQUEST_MAGIC << 32 | wire.CMD_WRITE
_NO_HEAD = -1
"""What no header begins with, not even one of zeros."""


class CompactTransmission(Transmission):
    """Requests of which only WRITE has a payload, as long as its length says."""

    _header = _COMPACT_BYTES
    _magic = wire.REQUEST_MAGIC

    def __init__(
        self, handler: Handler, bounds: Bounds, *, read_only: bool, structured: bool, block_status: bool
    ) -> None:
        super().__init__(handler, bounds, Rules(read_only=read_only, structured=structured, block_status=block_status))
        self._plain_write = _NO_HEAD if read_only else _PLAIN_WRITE

    def resume(self) -> bool:
        if self._over or self._body is not None:
            outcome = self._clear()
            if outcome is not TAKEN:
                return outcome is MORE
        memory, view, start, end = self._memory, self._view, self._start, self._end
        handler, plain_write, size = self.handler, self._plain_write, self._bounds.size
        unpack, read, write = wire.REQUEST.unpack_from, handler.read, handler.write
        requests, writes = self.requests, 0
        # The same loop stands in `extended.py`, but for how a header is read and what a plain write is: what both could
        # share would be called for each request. Whoever mends one mends both, which a test compares.
        while True:
            if end - start < _COMPACT_BYTES:
                outcome = MORE
                break
            head, cookie, offset, length = unpack(memory, start)
            if head == _COMPACT_READ and 0 < length <= wire.PAYLOAD_BYTES_MAX and offset + length <= size:
                if not read(cookie, offset, length):
                    outcome = LATER
                    break
                start += _COMPACT_BYTES
                self._headers_only = False
            elif head == plain_write and 0 < length < ADOPT_BYTES_MIN and offset + length <= size:
                behind = start + _COMPACT_BYTES + length
                if behind > end:
                    outcome = MORE
                    break
                if not write(cookie, offset, bytes(view[start + _COMPACT_BYTES : behind])):
                    outcome = LATER
                    break
                start = behind
                self._headers_only = False
                writes += 1
            else:
                self._start = start
                outcome = self._general(head, cookie, offset, length)
                start, end = self._start, self._end
                if outcome is not TAKEN:
                    break
            requests += 1
        self.requests = requests
        self._others[wire.CMD_WRITE] += writes
        self._keep(start, end, need_data=outcome is MORE)
        return outcome is MORE

    def _request(self, command: int, flags: int, cookie: bytes, offset: int, length: int) -> Outcome:
        refusal = self._judge(command, flags, offset, length)
        if command != wire.CMD_WRITE or not length:
            return self._bare(command, flags, cookie, offset, length, refusal)
        if refusal is not None:
            return self._discard(cookie, length, refusal)
        return self._write(cookie, offset, length, flags)
