"""Every row of the table, against a server in another process, with a good client beside it.

A row runs four times: whole, over TCP; byte by byte, over TCP; in one segment with what comes before and a
valid message behind it, over a Unix socket; and whole, inside TLS. Only what is said before TLS can begin, or
is about its beginning, does not run inside it.
"""

import contextlib
import dataclasses
import socket
import ssl

import pytest

from tests.nbdserver.cases import encrypted, extended, haggling, requests
from tests.nbdserver.cases.case import SIZE, Case, Then, farewell, matches
from tests.nbdserver.cases.conftest import Good, Servers
from tests.support import messages as m
from tests.support.answers import Answers

CASES = (*haggling.CASES, *requests.CASES, *extended.CASES, *encrypted.CASES)

SEGMENTS_MAX = 3000
"""A case that is longer in bytes is sent in segments of more than one."""


def listen(sock: socket.socket, answers: Answers, count: int | None) -> bool:
    """Read until `count` answers are there (None: to the end of the stream); True: the stream has ended."""
    while count is None or len(answers.lines) < count:
        try:
            data = sock.recv(1 << 20)
        except (ConnectionError, ssl.SSLError):
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
    except (ConnectionError, ssl.SSLError):
        pass


def upgraded(servers: Servers, sock: socket.socket, said: bytes = b"", *, answers: int = 0) -> ssl.SSLSocket:
    """The socket inside TLS; before STARTTLS this was said in clear, which has so many answers."""
    sock.sendall(m.FIXED_ZEROLESS_FLAGS + said)
    clear = Answers()
    assert not listen(sock, clear, answers)
    sock.sendall(m.option(m.STARTTLS))
    assert not listen(sock, clear, answers + 1)
    assert clear.lines[-1] == "STARTTLS ACK"
    return servers.tls.wrap_socket(sock, server_hostname="localhost")


def inside_tls(case: Case) -> Case | None:
    """The case as it is run inside TLS, on servers that offer and that require it by turns; None: it cannot."""
    if case.encrypted:
        return case
    fixed = case.start.say.startswith((m.FIXED_FLAGS, m.FIXED_ZEROLESS_FLAGS))
    if case.server != "plain" or not fixed or m.option(m.STARTTLS)[:12] in case.say:
        return None
    server = ("tls", "required")[len(case.name) % 2]
    return dataclasses.replace(case, server=server, encrypted=True, padding=0)


def ways(case: Case) -> list[tuple[Case, str]]:
    """What of a row is run, and how."""
    in_clear = [] if case.encrypted else [(case, how) for how in ("whole", "bytes", "coalesced")]
    inside = inside_tls(case)
    return in_clear + ([(inside, "encrypted")] if inside else [])


def row(case: Case, how: str) -> object:
    """Before a commit only what `test_in_pieces` cannot say, and one way of that."""
    quick = how == "whole" and case.server != "plain"
    return pytest.param(case, how, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(
    ("case", "how"),
    [row(*way) for case in CASES for way in ways(case)],
    ids=lambda value: value if isinstance(value, str) else value.title,
)
def test_answer(servers: Servers, good: Good, case: Case, how: str) -> None:
    good.work()
    before = good.contents(0, SIZE)
    with contextlib.ExitStack() as stack:
        sock: socket.socket = stack.enter_context(servers.connect(case.server, unix=how == "coalesced"))
        if case.encrypted:
            sock = stack.enter_context(upgraded(servers, sock))
        lines, expected = converse(sock, good, case, how)
    assert matches(lines, expected), f"\n{lines}\nis not\n{list(expected)}"
    good.work()
    if case.after is None:
        assert good.contents(0, SIZE) == before
    else:
        for offset, data in case.after:
            assert good.contents(offset, len(data)) == data
    assert "Traceback" not in servers.said()


def converse(sock: socket.socket, good: Good, case: Case, how: str) -> tuple[list[str], tuple[str, ...]]:
    """Say the case, and what shows where the connection is then; the answers, and what they must be."""
    answers = Answers(padding=case.padding, lengths=case.lengths, greeted=case.encrypted)
    start = case.start.say
    if case.encrypted:
        start = start[len(m.FIXED_FLAGS) :]
    expected = (*case.start.expect, *case.expect)
    behind = goodbye = b""
    answer: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    if case.then is not Then.CLOSED:
        behind, answer, goodbye, last = farewell(case)
    elif how == "coalesced" and case.server == "plain":
        behind = m.option(m.LIST)
    if how == "coalesced":
        say(sock, start + case.say + behind)
    else:
        say(sock, start)
        assert not listen(sock, answers, len(case.start.expect)), "the server closed the connection at the start"
        say(sock, case.say, step=1 + len(case.say) // SEGMENTS_MAX if how == "bytes" else None)
    if case.then is Then.CLOSED:
        good.work()
        assert listen(sock, answers, None), "the connection goes on"
    else:
        if how != "coalesced":
            assert not listen(sock, answers, len(expected)), f"the server closed the connection after {answers.lines}"
            say(sock, behind)
        good.work()
        ended = listen(sock, answers, len(expected) + len(answer))
        assert not ended, f"the server closed the connection after {answers.lines}"
        say(sock, goodbye)
        assert listen(sock, answers, None), "the connection goes on after its end"
    answers.finish()
    return answers.lines, (*expected, *answer, *last)
