"""This file knows how to write down what a client says and how to read what a server answers, as short lines.

`opt`, `req` and friends build bytes. `read_answers` turns the server's whole output into lines such as
`GO: INFO_EXPORT`, `GO: ERR_UNKNOWN`, `export 1048576`, `1: ok`, `1: error EINVAL`, `1: data 4096@0`, and
`1@0: data 4096@0` with the offset that an extended header repeats: what a table of expectations can be compared
with.
"""

import struct

from nbdserver.protocol import wire

IHAVEOPT = struct.pack(">Q", 0x49484156454F5054)
FIXED = struct.pack(">I", 1)
FIXED_NO_ZEROES = struct.pack(">I", 3)
PLAIN = struct.pack(">I", 0)

OPTIONS = {number: name.removeprefix("OPT_") for name, number in vars(wire).items() if name.startswith("OPT_")}
REPLIES = {
    number: name.removeprefix("REP_")
    for name, number in vars(wire).items()
    if name.startswith("REP_") and isinstance(number, int)
}
INFOS = {number: name for name, number in vars(wire).items() if name.startswith("INFO_")}
ERRORS = {
    number: name
    for name, number in vars(wire).items()
    if name.startswith("E") and name.isupper() and isinstance(number, int)
}

BASE = "base:allocation"


def opt(option: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    """One option; `length` lies about the data."""
    return IHAVEOPT + struct.pack(">II", option, len(data) if length is None else length) + data


def info(option: int, name: str | bytes, *wanted: int) -> bytes:
    """INFO or GO."""
    text = name.encode() if isinstance(name, str) else name
    return opt(
        option,
        struct.pack(f">I{len(text)}sH{len(wanted)}H", len(text), text, len(wanted), *wanted),
    )


def go(name: str | bytes = "disk", *wanted: int) -> bytes:
    return info(wire.OPT_GO, name, *wanted)


def contexts(option: int, name: str, *queries: str) -> bytes:
    """LIST_META_CONTEXT or SET_META_CONTEXT."""
    data = struct.pack(">I", len(name)) + name.encode() + struct.pack(">I", len(queries))
    for query in queries:
        data += struct.pack(">I", len(query)) + query.encode()
    return opt(option, data)


def req(
    command: int,
    offset: int = 0,
    length: int | None = None,
    data: bytes = b"",
    *,
    flags: int = 0,
    cookie: int = 1,
) -> bytes:
    """One request; the length is that of the data unless given."""
    size = len(data) if length is None else length
    return struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, size) + data


def write(offset: int, data: bytes = b"s" * 4096, *, cookie: int = 1, fua: bool = False) -> bytes:
    """One WRITE; its cookie, and those of `read` and `flush`, differ, so that their answers can be told apart."""
    return req(wire.CMD_WRITE, offset, data=data, cookie=cookie, flags=int(fua))


def read(offset: int = 0, length: int = 4096, *, cookie: int = 2) -> bytes:
    return req(wire.CMD_READ, offset, length, cookie=cookie)


def flush(cookie: int = 3) -> bytes:
    return req(wire.CMD_FLUSH, cookie=cookie)


DISC = req(wire.CMD_DISC)


def ext(
    command: int,
    offset: int = 0,
    length: int | None = None,
    data: bytes = b"",
    *,
    flags: int = 0,
    cookie: int = 1,
) -> bytes:
    """One request with an extended header; data brings the flag PAYLOAD_LEN along."""
    size = len(data) if length is None else length
    flags |= wire.CMD_FLAG_PAYLOAD_LEN if data else 0
    return struct.pack(">IHHQQQ", 0x21E41C71, flags, command, cookie, offset, size) + data


def structured(name: str = "disk") -> bytes:
    """A handshake up to the transmission phase with structured replies and base:allocation."""
    return FIXED_NO_ZEROES + opt(wire.OPT_STRUCTURED_REPLY) + contexts(wire.OPT_SET_META_CONTEXT, name, BASE) + go(name)


def extended(name: str = "disk") -> bytes:
    """The same with extended headers."""
    return structured(name).replace(opt(wire.OPT_STRUCTURED_REPLY), opt(wire.OPT_EXTENDED_HEADERS))


def simple(name: str = "disk") -> bytes:
    """A handshake up to the transmission phase with simple replies."""
    return FIXED_NO_ZEROES + go(name)


def read_answers(output: bytes, reads: dict[int, int] | None = None) -> list[str]:
    """The server's output as lines; `reads` gives the length of the data behind a simple reply, by cookie."""
    lines: list[str] = []
    place = 0
    if output:
        magic, options, flags = struct.unpack_from(">QQH", output)
        assert (magic, options, flags) == (wire.NBDMAGIC, wire.IHAVEOPT, 3), "the greeting is wrong"
        place = 18
    while place < len(output):
        head = int.from_bytes(output[place : place + 8], "big")
        if head == wire.OPTION_REPLY_MAGIC:
            place = _option_reply(output, place, lines)
        elif head >> 32 == wire.SIMPLE_REPLY_MAGIC:
            place = _simple_reply(output, place, lines, reads or {})
        elif head >> 32 == wire.STRUCTURED_REPLY_MAGIC:
            _, flags, kind, cookie, length = struct.unpack_from(">IHHQI", output, place)
            place = _chunk(output, place + 20, length, lines, f"{cookie}", kind, flags)
        elif head >> 32 == wire.EXTENDED_REPLY_MAGIC:
            _, flags, kind, cookie, offset, length = struct.unpack_from(">IHHQQQ", output, place)
            place = _chunk(output, place + 32, length, lines, f"{cookie}@{offset}", kind, flags)
        else:
            size, _ = struct.unpack_from(">QH", output, place)
            place += 10
            padding = output[place : place + 124] == bytes(124)
            place += 124 if padding else 0
            lines.append(f"export {size}" + (" padded" if padding else ""))
    assert place == len(output), "the last answer is cut short"
    return lines


def _option_reply(output: bytes, place: int, lines: list[str]) -> int:
    _, option, kind, length = struct.unpack_from(">QIII", output, place)
    data = output[place + 20 : place + 20 + length]
    assert len(data) == length, "an option reply is cut short"
    what = REPLIES[kind]
    if kind == wire.REP_INFO:
        what = INFOS[struct.unpack_from(">H", data)[0]]
    elif kind == wire.REP_SERVER:
        what += " " + data[4:].decode()
        assert struct.unpack_from(">I", data)[0] == length - 4
    elif kind == wire.REP_META_CONTEXT:
        what += f" {struct.unpack_from('>I', data)[0]} {data[4:].decode()}"
    elif kind >> 31:
        assert data.decode().isprintable()
        assert len(data) <= 200, "an error reflects too much"
    lines.append(f"{OPTIONS.get(option, option)}: {what}")
    return place + 20 + len(data)


def _simple_reply(output: bytes, place: int, lines: list[str], reads: dict[int, int]) -> int:
    _, error, cookie = struct.unpack_from(">IIQ", output, place)
    place += 16
    if error:
        lines.append(f"{cookie}: error {ERRORS[error]}")
        return place
    length = reads.get(cookie, 0)
    assert len(output) >= place + length, "the data of a simple reply is cut short"
    lines.append(f"{cookie}: ok" + (f" {length} bytes" if length else ""))
    return place + length


def _chunk(output: bytes, place: int, length: int, lines: list[str], who: str, kind: int, flags: int) -> int:
    data = output[place : place + length]
    assert len(data) == length, "a chunk is cut short"
    if kind == wire.REPLY_TYPE_NONE:
        what = "none"
    elif kind == wire.REPLY_TYPE_OFFSET_DATA:
        what = f"data {length - 8}@{struct.unpack_from('>Q', data)[0]}"
    elif kind == wire.REPLY_TYPE_OFFSET_HOLE:
        offset, hole = struct.unpack(">QI", data)
        what = f"hole {hole}@{offset}"
    elif kind == wire.REPLY_TYPE_BLOCK_STATUS:
        numbers = struct.unpack(f">{length // 4}I", data)
        extents = zip(numbers[1::2], numbers[2::2], strict=True)
        what = f"status {numbers[0]} " + " ".join(f"{size}/{flag}" for size, flag in extents)
    elif kind == wire.REPLY_TYPE_BLOCK_STATUS_EXT:
        context, count = struct.unpack_from(">II", data)
        assert length == 8 + 16 * count
        descriptors = [struct.unpack_from(">QQ", data, 8 + 16 * index) for index in range(count)]
        what = f"status {context} " + " ".join(f"{size}/{flag}" for size, flag in descriptors)
    elif kind == wire.REPLY_TYPE_ERROR_OFFSET:
        error, message = struct.unpack_from(">IH", data)
        assert length == 14 + message
        what = f"chunk error {ERRORS[error]}@{struct.unpack_from('>Q', data, 6 + message)[0]}"
    else:
        assert kind == wire.REPLY_TYPE_ERROR
        error, message = struct.unpack_from(">IH", data)
        assert length == 6 + message
        what = f"chunk error {ERRORS[error]}"
    lines.append(f"{who}: {what}" + ("" if flags & wire.REPLY_FLAG_DONE else " more"))
    return place + len(data)
