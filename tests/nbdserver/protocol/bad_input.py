"""This file knows what a row of the table of bad inputs says (see test_bad_input)."""

from dataclasses import dataclass

from tests.support import messages as m

MIB = 1 << 20
SIZE = MIB
PAYLOAD = 32 * MIB

LIST = m.option(m.LIST)
LISTED = ["LIST: SERVER disk", "LIST: SERVER huge", "LIST: SERVER locked", "LIST: ACK"]
GONE = ["GO: INFO_EXPORT", "GO: ACK"]
READ = m.request(m.READ, 0, 4096, cookie=7)
READ_BACK = ["7: data 4096@0"]
BIT15 = 1 << 15


@dataclass(frozen=True)
class Case:
    """`say` after `before`, and the lines answered to it; `open`: whether the connection goes on
    afterwards."""

    name: str
    say: bytes
    expect: list[str]
    open: bool = True
    before: bytes = m.FIXED_FLAGS
    reads: tuple[tuple[int, int], ...] = ()
    large: bool = False
    """Too long to be fed byte by byte."""


def closed(name: str, say: bytes, *expect: str, before: bytes = m.FIXED_FLAGS, large: bool = False) -> Case:
    return Case(name, say, list(expect), open=False, before=before, large=large)


def goes_on(name: str, say: bytes, *expect: str) -> Case:
    """An option that is answered, and LIST behind it is answered too."""
    return Case(name, say + LIST, [*expect, *LISTED])


def request(name: str, say: bytes, *expect: str, export: str = "disk", large: bool = False) -> Case:
    """Requests with structured replies, and a READ behind them is answered too."""
    behind = m.request(m.READ, 0, 4096, cookie=7)
    last = ["7: hole 4096@0"] if export == "huge" else READ_BACK
    return Case(name, say + behind, [*expect, *last], before=m.structured(export), large=large)
