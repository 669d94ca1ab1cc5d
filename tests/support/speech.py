"""What a server said, as short lines.

`read_answers` turns the server's whole output into lines such as `GO: INFO_EXPORT`, `GO: ERR_UNKNOWN`,
`export 1048576`, `1: ok`, `1: error EINVAL`, `1: data 4096@0`, and `1@0: data 4096@0` with the offset that an extended
header repeats: what a table of expectations can be compared with. What a client says is in `messages`.
"""

import struct

from tests.support import messages as m


def read_answers(output: bytes, reads: dict[int, int] | None = None) -> list[str]:
    """The server's output as lines; `reads` gives the length of the data behind a simple reply, by cookie."""
    lines: list[str] = []
    place = 0
    if output:
        assert output.startswith(m.GREETING), "the greeting is wrong"
        place = len(m.GREETING)
    while place < len(output):
        head = output[place : place + 8]
        if head == m.OPTION_REPLY_MAGIC:
            place = _option_reply(output, place, lines)
        elif head.startswith(m.SIMPLE_MAGIC):
            place = _simple_reply(output, place, lines, reads or {})
        elif head.startswith(m.STRUCTURED_MAGIC):
            _, flags, kind, cookie, length = struct.unpack_from(">IHHQI", output, place)
            place = _chunk(output, place + 20, length, lines, f"{cookie}", kind, flags)
        elif head.startswith(m.EXTENDED_MAGIC):
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
    what = m.REPLIES[kind]
    if what == "INFO":
        what = f"INFO_{m.INFOS[struct.unpack_from('>H', data)[0]]}"
    elif what == "SERVER":
        what += " " + data[4:].decode()
        assert struct.unpack_from(">I", data)[0] == length - 4
    elif what == "META_CONTEXT":
        what += f" {struct.unpack_from('>I', data)[0]} {data[4:].decode()}"
    elif kind >> 31:
        assert data.decode().isprintable()
        assert len(data) <= 200, "an error reflects too much"
    lines.append(f"{m.OPTIONS[option] if 0 < option < len(m.OPTIONS) else option}: {what}")
    return place + 20 + len(data)


def _simple_reply(output: bytes, place: int, lines: list[str], reads: dict[int, int]) -> int:
    _, error, cookie = struct.unpack_from(">IIQ", output, place)
    place += 16
    if error:
        lines.append(f"{cookie}: error {m.ERRORS[error]}")
        return place
    length = reads.get(cookie, 0)
    assert len(output) >= place + length, "the data of a simple reply is cut short"
    lines.append(f"{cookie}: ok" + (f" {length} bytes" if length else ""))
    return place + length


def _chunk(output: bytes, place: int, length: int, lines: list[str], who: str, kind: int, flags: int) -> int:
    data = output[place : place + length]
    assert len(data) == length, "a chunk is cut short"
    if kind == m.CHUNK_NONE:
        what = "none"
    elif kind == m.CHUNK_DATA:
        what = f"data {length - 8}@{struct.unpack_from('>Q', data)[0]}"
    elif kind == m.CHUNK_HOLE:
        offset, hole = struct.unpack(">QI", data)
        what = f"hole {hole}@{offset}"
    elif kind == m.CHUNK_STATUS:
        numbers = struct.unpack(f">{length // 4}I", data)
        extents = zip(numbers[1::2], numbers[2::2], strict=True)
        what = f"status {numbers[0]} " + " ".join(f"{size}/{flag}" for size, flag in extents)
    elif kind == m.CHUNK_STATUS_EXT:
        context, count = struct.unpack_from(">II", data)
        assert length == 8 + 16 * count
        descriptors = [struct.unpack_from(">QQ", data, 8 + 16 * index) for index in range(count)]
        what = f"status {context} " + " ".join(f"{size}/{flag}" for size, flag in descriptors)
    elif kind == m.CHUNK_ERROR_OFFSET:
        error, message = struct.unpack_from(">IH", data)
        assert length == 14 + message
        what = f"chunk error {m.ERRORS[error]}@{struct.unpack_from('>Q', data, 6 + message)[0]}"
    else:
        assert kind == m.CHUNK_ERROR
        error, message = struct.unpack_from(">IH", data)
        assert length == 6 + message
        what = f"chunk error {m.ERRORS[error]}"
    lines.append(f"{who}: {what}" + ("" if flags & m.CHUNK_DONE else " more"))
    return place + len(data)
