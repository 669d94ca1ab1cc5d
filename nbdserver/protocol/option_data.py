"""The layouts of the data that options and their replies carry.

Decoders raise OptionRefused for data that does not fit its own lengths (NBD protocol, "Option types").
"""

import struct
from dataclasses import dataclass

from nbdserver.protocol import wire
from nbdserver.protocol.wire import OptionRefused


@dataclass(frozen=True, slots=True)
class InfoRequest:
    """What INFO and GO ask: the name of an export and which information about it."""

    name: str
    wanted: frozenset[int]


@dataclass(frozen=True, slots=True)
class ContextRequest:
    """What LIST_META_CONTEXT and SET_META_CONTEXT ask: the name of an export and queries for its contexts."""

    name: str
    queries: tuple[str, ...]


class _Fields:
    """The data of one option, taken field by field from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def number(self, layout: struct.Struct) -> int:
        """The next big-endian number."""
        if self._place + layout.size > len(self._data):
            raise OptionRefused(wire.REP_ERR_INVALID, "the option's data ends too early")
        value: int = layout.unpack_from(self._data, self._place)[0]
        self._place += layout.size
        return value

    def short_numbers(self, count: int) -> tuple[int, ...]:
        """The next so many big-endian numbers of 16 bits, in one step."""
        if self._place + 2 * count > len(self._data):
            raise OptionRefused(wire.REP_ERR_INVALID, "the option's data ends too early")
        values = struct.unpack_from(f">{count}H", self._data, self._place)
        self._place += 2 * count
        return values

    def string(self) -> str:
        """The next string: 32 bits length, then UTF-8."""
        length = self.number(_U32)
        if length > len(self._data) - self._place:
            raise OptionRefused(wire.REP_ERR_INVALID, "a string reaches past the end of the option's data")
        text = self._data[self._place : self._place + length]
        self._place += length
        return decode_string(text)

    def finish(self) -> None:
        """Nothing may be left over."""
        if self._place != len(self._data):
            raise OptionRefused(wire.REP_ERR_INVALID, "the option's data is longer than what it says")


QUERIES_MAX = 64
"""Of one LIST_META_CONTEXT or SET_META_CONTEXT: four times what a client may select. Each is compared with all that a
store has been through, and others wait for that."""

INFO_REQUESTS_MAX = 64
"""Of one INFO or GO: there are four kinds, and none may be asked for twice."""

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")


def decode_string(text: bytes) -> str:
    """A string of the protocol: UTF-8, no NUL, at most 4096 bytes ("Conventions")."""
    if len(text) > wire.STRING_BYTES_MAX:
        raise OptionRefused(wire.REP_ERR_INVALID, f"a string is longer than {wire.STRING_BYTES_MAX} bytes")
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        raise OptionRefused(wire.REP_ERR_INVALID, "a string is not valid UTF-8") from None
    if "\0" in decoded:
        raise OptionRefused(wire.REP_ERR_INVALID, "a string contains a NUL character")
    return decoded


def decode_info(data: bytes) -> InfoRequest:
    """32 bits length of name, name, 16 bits number of requests, that many times 16 bits information type; more than
    INFO_REQUESTS_MAX are refused."""
    fields = _Fields(data)
    name = fields.string()
    wanted = fields.short_numbers(fields.number(_U16))
    fields.finish()
    if len(wanted) > INFO_REQUESTS_MAX:
        raise OptionRefused(
            wire.REP_ERR_TOO_BIG, f"at most {INFO_REQUESTS_MAX} information requests are answered at once"
        )
    return InfoRequest(name, frozenset(wanted))


def decode_contexts(data: bytes) -> ContextRequest:
    """32 bits length of name, name, 32 bits number of queries, each 32 bits length and the query.

    A query without a namespace (no colon) is refused, and so is one beyond QUERIES_MAX. Each is read before the next
    is expected, so a number of queries that the data cannot hold costs nothing.
    """
    fields = _Fields(data)
    name = fields.string()
    queries: list[str] = []
    for number in range(fields.number(_U32)):
        if number == QUERIES_MAX:
            raise OptionRefused(wire.REP_ERR_TOO_BIG, f"at most {QUERIES_MAX} queries are answered at once")
        query = fields.string()
        if ":" not in query:
            raise OptionRefused(wire.REP_ERR_INVALID, f"the query {wire.quoted(query)} has no namespace")
        queries.append(query)
    fields.finish()
    return ContextRequest(name, tuple(queries))


def encode_reply(option: int, reply: int, data: bytes = b"") -> bytes:
    """One reply to an option."""
    return wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, reply, len(data)) + data


def encode_server(name: str) -> bytes:
    """Data of REP_SERVER: 32 bits length of name, name."""
    text = name.encode()
    return _U32.pack(len(text)) + text


def encode_info_export(size: int, flags: int) -> bytes:
    """Data of REP_INFO: 16 bits INFO_EXPORT, 64 bits size in bytes, 16 bits transmission flags."""
    return _U16.pack(wire.INFO_EXPORT) + wire.EXPORT.pack(size, flags)


def encode_info_text(kind: int, text: str) -> bytes:
    """Data of REP_INFO: 16 bits INFO_NAME or INFO_DESCRIPTION, the text."""
    return _U16.pack(kind) + text.encode()


def encode_info_block_size() -> bytes:
    """Data of REP_INFO: 16 bits INFO_BLOCK_SIZE, 32 bits each of minimum, preferred block and maximum
    payload."""
    return struct.pack(
        ">HIII",
        wire.INFO_BLOCK_SIZE,
        wire.BLOCK_BYTES_MIN,
        wire.BLOCK_BYTES_PREFERRED,
        wire.PAYLOAD_BYTES_MAX,
    )


def encode_context(number: int, name: str) -> bytes:
    """Data of REP_META_CONTEXT: 32 bits id of the context, its name."""
    return _U32.pack(number) + name.encode()
