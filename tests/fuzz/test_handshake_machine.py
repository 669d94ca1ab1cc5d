"""Options in any order, against a model of what the specification says a server remembers of them."""

import re
import struct

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nbdserver.protocol.handshake import Handshake
from nbdserver.protocol.option_answers import TlsMode
from nbdserver.protocol.states import HandshakeState
from tests.fuzz.target import CATALOGUE, Export
from tests.nbdserver.cases.case import HUGE, SIZE
from tests.support import messages as m
from tests.support.answers import Answers

NAMES = st.sampled_from(["disk", "locked", "huge", "no", "", "disk\n"])
QUERIES = st.lists(st.sampled_from([m.BASE, "base:", "base:other", "x-no:y", "x:"]), max_size=4)
SIZES = {"disk": SIZE, "locked": SIZE, "huge": HUGE}
INFOS = {0: "EXPORT", 1: "NAME", 2: "DESCRIPTION", 3: "BLOCK_SIZE"}

SECURITY = st.sampled_from([TlsMode.OFF, TlsMode.OFFERED, TlsMode.REQUIRED])
STEPS = st.sampled_from([0, 1, 3, 20])
"""Lengths of the segments in which a client's bytes come; 0: an option each."""

SEND_DF, READ_ONLY = 1 << 7, 1 << 1


class HandshakeMachine(RuleBasedStateMachine):
    """What a server must remember is three facts, and TLS forgets them."""

    @initialize(security=SECURITY, step=STEPS)
    def connect(self, security: TlsMode, step: int) -> None:
        self.answers = Answers()
        self.structured = self.extended = self.encrypted = self.over = False
        self.selected: str | None = None
        """The export for which base:allocation is selected."""
        self.security = security
        self.step = step
        self.handshake: Handshake[Export] = Handshake(CATALOGUE, security=security)
        self.send(m.FIXED_ZEROLESS_FLAGS)

    @precondition(lambda self: self.over)
    @rule(security=SECURITY, step=STEPS)
    def connect_again(self, security: TlsMode, step: int) -> None:
        self.connect(security, step)

    def send(self, data: bytes) -> None:
        step = self.step or len(data)
        for place in range(0, len(data), step):
            piece = data[place : place + step]
            while not self.handshake.received(piece):
                piece = b""
        self.output = b"".join(self.handshake.take_output())
        self.answers.feed(self.output)

    def say(self, data: bytes, expected: str) -> None:
        """Send an option, which must be answered like this, unless TLS must come first."""
        if self.security is TlsMode.REQUIRED and not self.encrypted:
            expected = f"{expected.split()[0]} ERR_TLS_REQD"
        before = len(self.answers.lines)
        self.send(data)
        (line,) = self.answers.lines[before:]
        assert re.fullmatch(expected, line), f"{line} is not {expected}"

    def hidden(self) -> bool:
        """Whether nothing counts because TLS is required first."""
        return self.security is TlsMode.REQUIRED and not self.encrypted

    @precondition(lambda self: not self.over)
    @rule()
    def list_exports(self) -> None:
        self.say(m.option(m.LIST), "LIST ACK disk locked huge")

    @precondition(lambda self: not self.over)
    @rule(number=st.sampled_from([0, 4, 12, 99, 0xFFFFFFFF]), data=st.binary(max_size=40))
    def unknown_option(self, number: int, data: bytes) -> None:
        self.say(m.option(number, data), r"\S+ ERR_(UNSUP|TLS_REQD)")

    @precondition(lambda self: not self.over)
    @rule(number=st.sampled_from([m.LIST, m.STARTTLS, m.STRUCTURED_REPLY, m.EXTENDED_HEADERS]))
    def data_where_none_belongs(self, number: int) -> None:
        before = len(self.answers.lines)
        self.send(m.option(number, b"x"))
        (line,) = self.answers.lines[before:]
        assert re.fullmatch(r"\S+ ERR_(INVALID|TLS_REQD|UNSUP|POLICY)", line), line

    @precondition(lambda self: not self.over)
    @rule()
    def structured_reply(self) -> None:
        if self.extended:
            self.say(m.option(m.STRUCTURED_REPLY), "STRUCTURED_REPLY ERR_EXT_HEADER_REQD")
        else:
            self.say(m.option(m.STRUCTURED_REPLY), "STRUCTURED_REPLY ACK")
            self.structured = not self.hidden()

    @precondition(lambda self: not self.over)
    @rule()
    def extended_headers(self) -> None:
        self.say(m.option(m.EXTENDED_HEADERS), "EXTENDED_HEADERS ACK")
        self.extended = not self.hidden()

    @precondition(lambda self: not self.over)
    @rule(name=NAMES, queries=QUERIES)
    def set_contexts(self, name: str, queries: list[str]) -> None:
        if self.hidden():
            expected = "SET_META_CONTEXT"
        elif not self.structured and not self.extended:
            expected = "SET_META_CONTEXT ERR_INVALID"
        elif name not in SIZES:
            expected = "SET_META_CONTEXT ERR_UNKNOWN"
        else:
            expected = "SET_META_CONTEXT ACK" + (" base:allocation" if m.BASE in queries else "")
        self.say(m.set_contexts(name, *queries), expected)
        self.selected = name if expected.endswith(m.BASE) else None

    @precondition(lambda self: not self.over)
    @rule(name=NAMES, queries=QUERIES)
    def list_contexts(self, name: str, queries: list[str]) -> None:
        if not self.structured and not self.extended:
            expected = "LIST_META_CONTEXT ERR_INVALID"
        elif name not in SIZES:
            expected = "LIST_META_CONTEXT ERR_UNKNOWN"
        else:
            shown = not queries or {m.BASE, "base:"} & set(queries)
            expected = "LIST_META_CONTEXT ACK" + (" base:allocation" if shown else "")
        self.say(m.list_contexts(name, *queries), expected)

    @precondition(lambda self: not self.over)
    @rule(data=st.binary(max_size=30))
    def broken_set(self, data: bytes) -> None:
        """A selection that fails for its form clears what was selected before."""
        self.say(m.option(m.SET_META_CONTEXT, b"\xff" + data), "SET_META_CONTEXT ERR_INVALID")
        self.selected = None

    @precondition(lambda self: not self.over)
    @rule(name=NAMES, wanted=st.lists(st.sampled_from([0, 1, 2, 3, 77]), max_size=5))
    def info(self, name: str, wanted: list[int]) -> None:
        if name not in SIZES:
            self.say(m.info(name, *wanted), "INFO ERR_UNKNOWN")
            return
        shown = ["EXPORT", *(INFOS[number] for number in sorted(set(wanted) & {1, 2, 3}))]
        self.say(m.info(name, *wanted), " ".join(["INFO ACK", *shown]))

    @precondition(lambda self: not self.over)
    @rule()
    def go_that_fails(self) -> None:
        self.say(m.go("no"), "GO ERR_UNKNOWN")

    @precondition(lambda self: not self.over)
    @rule()
    def starttls(self) -> None:
        before = len(self.answers.lines)
        self.send(m.option(m.STARTTLS))
        (line,) = self.answers.lines[before:]
        if self.security is TlsMode.OFF:
            assert line in ("STARTTLS ERR_UNSUP", "STARTTLS ERR_POLICY")
        elif self.encrypted:
            assert line == "STARTTLS ERR_INVALID"
        else:
            assert line == "STARTTLS ACK"
            self.handshake.secured(CATALOGUE)
            self.encrypted = True
            self.structured = self.extended = False
            self.selected = None

    @precondition(lambda self: not self.over and not self.hidden())
    @rule(name=st.sampled_from(sorted(SIZES)))
    def go(self, name: str) -> None:
        before = len(self.answers.lines)
        self.send(m.go(name))
        assert self.answers.lines[before:] == ["GO ACK EXPORT"]
        size, flags = struct.unpack_from(">QH", self.output, self.output.index(b"\0\0\0\x0c") + 6)
        assert size == SIZES[name]
        assert bool(flags & READ_ONLY) == (name == "locked")
        assert bool(flags & SEND_DF) == (self.structured or self.extended)
        agreement = self.handshake.agreement
        assert agreement is not None
        assert agreement.export.name == name
        assert bool(agreement.contexts) == (self.selected == name)
        self.over = True

    @precondition(lambda self: not self.over)
    @rule()
    def abort(self) -> None:
        before = len(self.answers.lines)
        self.send(m.option(m.ABORT))
        assert self.answers.lines[before:] == ["ABORT ACK"]
        assert self.handshake.state is HandshakeState.CLOSED
        self.over = True

    @invariant()
    def nothing_is_half_said(self) -> None:
        self.answers.finish()


TestHandshake = HandshakeMachine.TestCase
