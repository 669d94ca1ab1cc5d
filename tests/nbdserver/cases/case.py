"""A row of the table of bad inputs: what is said, and what this server answers, of what the specification allows.

A connection is first brought somewhere by a `Start`, which is right and answered. Then the case is said. It
is answered by lines that match `expect` (regular expressions), and afterwards the connection is in the `Then` that is
given: there a valid message is answered, or it is closed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from tests.support import messages as m

MIB = 1 << 20
SIZE = MIB
"""Of the exports `disk` and `locked`; `disk` begins with DATA bytes of `d`, the rest is a hole."""

DATA = 64 << 10
HUGE = 1 << 50
"""Size of the export `huge`, which is one hole."""

PAYLOAD_MAX = 32 * MIB

NAMES = "beside disk huge locked"
"""What LIST shows."""


class Then(Enum):
    """Where a connection is after a case, and what shows it."""

    HANDSHAKE = "LIST is answered"
    TRANSMISSION = "a READ is answered"
    CLOSED = "the server has closed it, and nothing more is answered"


@dataclass(frozen=True, slots=True)
class Start:
    """What brings a connection to where a case begins, and what that is answered."""

    say: bytes
    expect: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One row. `row` is its number in docs/bad-inputs.md, or 0; `section` that of the specification."""

    name: str
    row: int
    section: str
    start: Start
    say: bytes
    expect: tuple[str, ...]
    then: Then
    server: str = "plain"
    """Which of the servers of `served` it is about."""
    export: str = "disk"
    """Which export a READ afterwards reads."""
    extended: bool = False
    """Whether that READ has an extended header."""
    lengths: Mapping[int, int] = field(default_factory=dict)
    """Of READs answered by simple replies, by cookie."""
    padding: int = 0
    """Zeros behind the answer to EXPORT_NAME."""
    after: tuple[tuple[int, bytes], ...] | None = None
    """What `disk` then holds at these offsets; None: what it held before, all of it."""
    simple: bool = False
    """Whether that READ is answered by a simple reply."""
    encrypted: bool = False
    """Whether it is only about what is said inside TLS."""

    @property
    def title(self) -> str:
        """How a test of it is called."""
        return f"{self.row} {self.name}"


NOWHERE = Start(b"")
PLAIN = Start(m.PLAIN_FLAGS)
FIXED = Start(m.FIXED_FLAGS)
FIXED_ZEROLESS = Start(m.FIXED_ZEROLESS_FLAGS)
STRUCTURED = Start(m.FIXED_ZEROLESS_FLAGS + m.option(m.STRUCTURED_REPLY), ("STRUCTURED_REPLY ACK",))
EXTENDED = Start(m.FIXED_ZEROLESS_FLAGS + m.option(m.EXTENDED_HEADERS), ("EXTENDED_HEADERS ACK",))


def in_simple(export: str = "disk") -> Start:
    """Transmission with simple replies."""
    return Start(m.FIXED_ZEROLESS_FLAGS + m.go(export), ("GO ACK EXPORT",))


def in_structured(export: str = "disk") -> Start:
    """Transmission with structured replies and base:allocation."""
    said = STRUCTURED.say + m.set_contexts(export, m.BASE) + m.go(export)
    return Start(said, (*STRUCTURED.expect, "SET_META_CONTEXT ACK base:allocation", "GO ACK EXPORT"))


def in_extended(export: str = "disk") -> Start:
    """Transmission with extended headers and base:allocation."""
    said = EXTENDED.say + m.set_contexts(export, m.BASE) + m.go(export)
    return Start(said, (*EXTENDED.expect, "SET_META_CONTEXT ACK base:allocation", "GO ACK EXPORT"))


EXPECTED_OF = {"disk": "d", "locked": "d", "huge": "0"}


def farewell(case: Case) -> tuple[bytes, tuple[str, ...], bytes, tuple[str, ...]]:
    """A valid message and its answer, and what ends the connection well and its answer."""
    if case.then is Then.HANDSHAKE:
        hidden = case.server == "required" and not case.encrypted
        answer = "LIST ERR_TLS_REQD" if hidden else f"LIST ACK {NAMES}"
        return m.option(m.LIST), (answer,), m.option(m.ABORT), ("ABORT ACK",)
    byte = EXPECTED_OF[case.export]
    make = m.extended if case.extended else m.request
    last = make(m.READ, 0, 4096, cookie=99)
    where = "99@0:" if case.extended else "99:"
    answer = rf"{where} read 0\+4096 .\*.*" if case.after else rf"{where} read 0\+4096 {byte}\*4096 .*"
    if case.simple:
        answer = rf"99 read 4096 {byte}\*4096"
    return last, (answer,), make(m.DISC), ()


def matches(lines: list[str], expected: tuple[str, ...]) -> bool:
    """Whether the answers are these, in order; one whose expectation begins with "?" need not have come."""
    left = list(lines)
    for want in expected:
        if left and re.fullmatch(want.removeprefix("?"), left[0]):
            del left[0]
        elif not want.startswith("?"):
            return False
    return not left
