"""Every row of the table, against a server in another process, with a good client beside it.

A row runs three times: whole, over TCP; byte by byte, over TCP; and in one segment with what comes before and
a valid message behind it, over a Unix socket.
"""

import re
import socket
from collections import Counter

import pytest

from tests.nbdserver.cases import extended, haggling, requests
from tests.nbdserver.cases import messages as m
from tests.nbdserver.cases.answers import Answers
from tests.nbdserver.cases.case import NAMES, SIZE, Case, Then
from tests.nbdserver.cases.conftest import Good, Servers

CASES = (*haggling.CASES, *requests.CASES, *extended.CASES)

SEGMENTS_MAX = 3000
"""A case that is longer in bytes is sent in segments of more than one."""

EXPECTED_OF = {"disk": "d", "locked": "d", "huge": "0"}


def farewell(case: Case) -> tuple[bytes, tuple[str, ...], bytes, tuple[str, ...]]:
    """A valid message and its answer, and what ends the connection well and its answer."""
    if case.then is Then.HANDSHAKE:
        return m.option(m.LIST), (f"LIST ACK {NAMES}",), m.option(m.ABORT), ("ABORT ACK",)
    byte = EXPECTED_OF[case.export]
    make = m.extended if case.extended else m.request
    last = make(m.READ, 0, 4096, cookie=99)
    where = "99@0:" if case.extended else "99:"
    answer = rf"{where} read 0\+4096 .\*.*" if case.after else rf"{where} read 0\+4096 {byte}\*4096 .*"
    if case.simple:
        answer = rf"99 read 4096 {byte}\*4096"
    return last, (answer,), make(m.DISC), ()


def listen(sock: socket.socket, answers: Answers, count: int | None) -> bool:
    """Read until `count` answers are there (None: to the end of the stream); True: the stream has ended."""
    while count is None or len(answers.lines) < count:
        try:
            data = sock.recv(1 << 20)
        except ConnectionError:
            return True
        if not data:
            return True
        answers.feed(data)
    return False


def say(sock: socket.socket, data: bytes, *, step: int | None = None) -> None:
    """Send; a server that has closed the connection meanwhile is no failure here."""
    step = step or max(1, len(data))
    try:
        for place in range(0, len(data), step):
            sock.sendall(data[place : place + step])
    except ConnectionError:
        pass


def matches(lines: list[str], expected: tuple[str, ...]) -> bool:
    """Whether there is an answer for each, in order, or for requests in any order."""
    if len(lines) != len(expected):
        return False
    return all(re.fullmatch(want, line) for want, line in zip(expected, lines, strict=True))


@pytest.mark.parametrize("how", ["whole", "bytes", "coalesced"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row} {case.name}")
def test_answer(servers: Servers, good: Good, case: Case, how: str) -> None:
    good.work()
    before = good.contents(0, SIZE)
    answers = Answers(padding=case.padding, lengths=case.lengths)
    with servers.connect(case.server, unix=how == "coalesced") as sock:
        expected = (*case.start.expect, *case.expect)
        if case.then is Then.CLOSED:
            behind = m.option(m.LIST) if how == "coalesced" and case.server == "plain" else b""
            converse(sock, answers, case, how, behind)
            good.work()
            assert listen(sock, answers, None), "the connection goes on"
        else:
            behind, answer, goodbye, last = farewell(case)
            converse(sock, answers, case, how, behind)
            if how != "coalesced":
                ended = listen(sock, answers, len(expected))
                assert not ended, f"the server closed the connection after {answers.lines}"
                say(sock, behind)
            good.work()
            ended = listen(sock, answers, len(expected) + 1)
            assert not ended, f"the server closed the connection after {answers.lines}"
            say(sock, goodbye)
            assert listen(sock, answers, None), "the connection goes on after its end"
            expected = (*expected, *answer, *last)
    answers.finish()
    assert matches(answers.lines, expected), f"\n{answers.lines}\nis not\n{list(expected)}"
    good.work()
    if case.after is None:
        assert good.contents(0, SIZE) == before
    else:
        for offset, data in case.after:
            assert good.contents(offset, len(data)) == data
    assert "Traceback" not in servers.said()


def converse(sock: socket.socket, answers: Answers, case: Case, how: str, behind: bytes) -> None:
    """Bring the connection to where the case begins, and say it."""
    if how == "coalesced":
        say(sock, case.start.say + case.say + behind)
        return
    say(sock, case.start.say)
    assert not listen(sock, answers, len(case.start.expect)), "the server closed the connection at the start"
    say(sock, case.say, step=1 + len(case.say) // SEGMENTS_MAX if how == "bytes" else None)


def test_rows_are_told_apart_by_their_names() -> None:
    names = Counter((case.row, case.name) for case in CASES)
    assert [name for name, count in names.items() if count > 1] == []
