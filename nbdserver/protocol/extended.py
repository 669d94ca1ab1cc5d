"""Requests with extended headers of 32 bytes (NBD_OPT_EXTENDED_HEADERS).

The length has 64 bits. What it counts, the flag PAYLOAD_LEN says: the bytes of a payload behind the header, or
else those of the export that the request is about. Only WRITE must have a payload, and only BLOCK_STATUS may:
to name the contexts it is about. A WRITE has its payload even where the flag is missing: so QEMU 10 sends it,
and its server takes it.

The reply repeats the offset behind the cookie, just as the request has them. So both are taken as one string
that stands for the cookie everywhere else; the offset is unpacked once more, as a number (0.09 us).
"""

import struct
from collections.abc import Collection

from nbdserver.protocol import wire
from nbdserver.protocol.commands import RequestRefusal, Rules
from nbdserver.protocol.transmission import ADOPT_BYTES_MIN, LATER, MORE, TAKEN, Bounds, Handler, Outcome, Transmission
from nbdserver.protocol.wire import ProtocolError

_EXTENDED_BYTES = wire.EXTENDED_REQUEST_BYTES
_EXTENDED_READ = wire.EXTENDED_REQUEST_MAGIC << 32 | wire.CMD_READ
_BARE_WRITE = wire.EXTENDED_REQUEST_MAGIC << 32 | wire.CMD_WRITE
_PLAIN_WRITES = (_BARE_WRITE | wire.CMD_FLAG_PAYLOAD_LEN << 16, _BARE_WRITE)

_CONTEXT_BYTES = 4
"""Of each context in the payload of a BLOCK_STATUS."""

_NOT_SELECTED = "the payload does not name contexts that were selected, each once"


class ExtendedTransmission(Transmission):
    """Requests whose payload is announced by a flag."""

    _header = _EXTENDED_BYTES
    _magic = wire.EXTENDED_REQUEST_MAGIC

    def __init__(self, handler: Handler, bounds: Bounds, *, read_only: bool, contexts: Collection[int]) -> None:
        """`contexts` are the numbers of those that were selected."""
        super().__init__(handler, bounds, Rules(read_only=read_only, structured=True, block_status=bool(contexts)))
        self._contexts = contexts
        self._plain_writes = () if read_only else _PLAIN_WRITES

    def resume(self) -> bool:
        if self._over or self._body is not None:
            outcome = self._clear()
            if outcome is not TAKEN:
                return outcome is MORE
        memory, view, start, end = self._memory, self._view, self._start, self._end
        handler, plain_writes, size = self.handler, self._plain_writes, self._bounds.size
        unpack, number = wire.EXTENDED_REQUEST.unpack_from, wire.COOKIE_OFFSET.unpack_from
        read, write = handler.read, handler.write
        requests, writes = self.requests, 0
        # The same loop as in `compact.py`: see there.
        while True:
            if end - start < _EXTENDED_BYTES:
                outcome = MORE
                break
            head, cookie, length = unpack(memory, start)
            (offset,) = number(cookie, 8)
            if head == _EXTENDED_READ and 0 < length <= wire.PAYLOAD_BYTES_MAX and offset + length <= size:
                if not read(cookie, offset, length):
                    outcome = LATER
                    break
                start += _EXTENDED_BYTES
                self._headers_only = False
            elif head in plain_writes and 0 < length < ADOPT_BYTES_MIN and offset + length <= size:
                behind = start + _EXTENDED_BYTES + length
                if behind > end:
                    outcome = MORE
                    break
                if not write(cookie, offset, bytes(view[start + _EXTENDED_BYTES : behind])):
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
        announced = bool(flags & wire.CMD_FLAG_PAYLOAD_LEN) or command == wire.CMD_WRITE
        flags &= ~wire.CMD_FLAG_PAYLOAD_LEN
        if announced and length > wire.PAYLOAD_BYTES_MAX:
            raise ProtocolError(f"a request announces a payload of {length} bytes")
        if announced and command == wire.CMD_BLOCK_STATUS:
            return self._status_of(flags, cookie, offset, length)
        refusal = self._judge(command, flags, offset, length)
        if refusal is None and announced and command != wire.CMD_WRITE:
            refusal = RequestRefusal(wire.EINVAL, f"command {command} takes no payload")
        if not announced or not length:
            return self._bare(command, flags, cookie, offset, length, refusal)
        if refusal is not None:
            return self._discard(cookie, length, refusal)
        return self._write(cookie, offset, length, flags)

    def _status_of(self, flags: int, cookie: bytes, offset: int, length: int) -> Outcome:
        """BLOCK_STATUS with a payload: 64 bits length of the range, 32 bits for each context that is wanted."""
        count, rest = divmod(length - wire.STATUS_FILTER.size, _CONTEXT_BYTES)
        # A longer list repeats one, or names what was not selected.
        if rest or not 0 < count <= max(len(self._contexts), 1):
            return self._discard(cookie, length, RequestRefusal(wire.EINVAL, _NOT_SELECTED))
        begin = self._start + _EXTENDED_BYTES
        if self._end - begin < length:
            return MORE
        (effect,) = wire.STATUS_FILTER.unpack_from(self._memory, begin)
        only = struct.unpack_from(f">{count}I", self._memory, begin + wire.STATUS_FILTER.size)
        refusal = self._judge(wire.CMD_BLOCK_STATUS, flags, offset, effect)
        if refusal is None and not (len(set(only)) == count and set(only) <= set(self._contexts)):
            refusal = RequestRefusal(wire.EINVAL, _NOT_SELECTED)
        self._only = only
        outcome = self._bare(wire.CMD_BLOCK_STATUS, flags, cookie, offset, effect, refusal)
        self._only = None
        if outcome is TAKEN:
            self._start += length
        return outcome
