"""The mapfile of GNU ddrescue: which parts of an image were read, and which could not be."""

from collections.abc import Iterable

FINISHED, BAD = "+", "-"


def mapfile(size: int, bad: Iterable[tuple[int, int]]) -> str:
    """The map of an image of `size` bytes; `bad` are the ranges (offset, length) that could not be read, ascending.

    As its manual says ("Mapfile structure"): a line of the status, then one for each range, which together cover the
    image without gaps.
    """
    lines = [
        "# Mapfile. Created by nbdserver device salvage",
        "# current_pos  current_status  current_pass",
        f"0x{0:08X}     {FINISHED}               1",
        "#      pos        size  status",
    ]
    position = 0
    for offset, length in _joined(bad):
        if offset > position:
            lines.append(_line(position, offset - position, FINISHED))
        lines.append(_line(offset, length, BAD))
        position = offset + length
    if position < size:
        lines.append(_line(position, size - position, FINISHED))
    return "\n".join(lines) + "\n"


def _line(offset: int, length: int, status: str) -> str:
    return f"0x{offset:08X}  0x{length:08X}  {status}"


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for offset, length in ranges:
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((offset, length))
    return found
