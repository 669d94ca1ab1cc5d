"""What of docs/bad-inputs.md is no row of bytes and answers, and that all of the list is somewhere."""

import socket
from collections import Counter

import pytest

from tests.docs.references import rows_of_bad_inputs
from tests.nbdserver.cases.case import SIZE, STRUCTURED, in_extended
from tests.nbdserver.cases.conftest import Good, Servers
from tests.nbdserver.cases.served import CROWD
from tests.nbdserver.cases.test_cases import CASES, listen, upgraded
from tests.support import messages as m
from tests.support.answers import Answers

ELSEWHERE = {
    22: "tests/storage/fs/metadata/test_namespace.py::test_loops_of_links_end",
    26: "tests/nbdserver/cases/test_rows.py::test_listings_that_nobody_reads",
    31: "tests/nbdserver/cases/test_rows.py::test_what_was_negotiated_in_clear_does_not_count",
    50: "tests/nbdserver/server/test_connection.py::test_a_read_that_fails_is_an_error_of_that_request",
    54: "tests/integration/test_hostile.py::test_a_client_that_dies_at_each_byte_of_a_write",
    64: "tests/integration/test_hostile.py::test_writes_behind_which_the_client_left",
    65: "tests/nbdserver/server/test_draining.py::test_draining_finishes_what_is_under_way",
    70: "tests/integration/test_hostile.py::test_a_thousand_sockets_opened_and_left",
    71: "tests/integration/test_hostile.py::test_sixteen_clients_that_never_read",
    72: "tests/integration/test_hostile.py::test_many_announcements_of_32_mib",
    73: "tests/integration/test_hostile.py::test_connecting_and_leaving_again_and_again",
}
"""Rows that are stories rather than bytes, and the tests that tell them; tests/docs looks for them."""

UNREAD_BYTES_MAX = 32 << 20
"""What the server and the kernel together may have ready for a client that does not read."""


def test_rows_are_told_apart_by_their_names() -> None:
    names = Counter((case.row, case.name, case.extended) for case in CASES)
    assert [name for name, count in names.items() if count > 1] == []


def test_the_whole_list_is_covered() -> None:
    assert {case.row for case in CASES} - {0} | ELSEWHERE.keys() == set(rows_of_bad_inputs())


@pytest.mark.parametrize("server", ["tls", "required"])
def test_what_was_negotiated_in_clear_does_not_count(servers: Servers, good: Good, server: str) -> None:
    """31: behind STARTTLS a client that asks for nothing gets simple replies, and no context is selected."""
    said = m.option(m.STRUCTURED_REPLY) + m.set_contexts("disk", m.BASE) + m.option(m.EXTENDED_HEADERS)
    with servers.connect(server) as clear, upgraded(servers, clear, said, answers=3) as sock:
        sock.sendall(m.go() + m.request(m.READ, 0, 4096) + m.request(m.BLOCK_STATUS, 0, 4096, cookie=2))
        answers = Answers(greeted=True, lengths={1: 4096})
        assert not listen(sock, answers, 3)
    assert answers.lines == ["GO ACK EXPORT", "1 read 4096 d*4096", "2 EINVAL"]
    good.work()


def test_a_context_selected_in_clear_is_forgotten(servers: Servers, good: Good) -> None:
    """31: also where structured replies are asked for again."""
    said = STRUCTURED.say[len(m.FIXED_FLAGS) :] + m.set_contexts("disk", m.BASE)
    with servers.connect("tls") as clear, upgraded(servers, clear, said, answers=2) as sock:
        sock.sendall(m.option(m.STRUCTURED_REPLY) + m.go() + m.request(m.BLOCK_STATUS, 0, 4096))
        answers = Answers(greeted=True)
        assert not listen(sock, answers, 3)
    assert answers.lines == ["STRUCTURED_REPLY ACK", "GO ACK EXPORT", "1: EINVAL"]
    good.work()


def test_listings_that_nobody_reads(servers: Servers, good: Good) -> None:
    """26: 1,000 LISTs of 10,000 exports each would be 300 MB; what is not read is not made."""
    before = servers.resident()
    with servers.connect("crowd", unix=True) as sock:
        sock.sendall(m.FIXED_FLAGS + m.option(m.LIST) * 1000)
        for _ in range(5):
            good.work()
        assert servers.resident() < before + UNREAD_BYTES_MAX
        answers = Answers()
        while not answers.lines:
            answers.feed(sock.recv(1 << 20))
        assert answers.lines[0].count("export-") == CROWD
        good.work()


def test_block_status_for_the_contexts_of_a_payload(servers: Servers, good: Good) -> None:
    """69: the form that is right. The id of a context is known from the answer that gave it."""
    start = in_extended().say
    with servers.connect() as sock:
        sock.sendall(start)
        raw = _until(sock, b"base:allocation")
        place = raw.index(b"base:allocation")
        number = int.from_bytes(raw[place - 4 : place], "big")
        answers = Answers()
        answers.feed(raw)
        sock.sendall(
            m.extended(m.BLOCK_STATUS, 0, data=m.status_payload(SIZE, number))
            + m.extended(m.BLOCK_STATUS, 4096, data=m.status_payload(512, number), flags=m.REQ_ONE, cookie=2)
        )
        assert not listen(sock, answers, 5)
    assert answers.lines[3:] == [
        f"1@0: status {number} 65536/0 {SIZE - 65536}/3",
        f"2@4096: status {number} 512/0",
    ]
    good.work()


def _until(sock: socket.socket, word: bytes) -> bytes:
    raw = b""
    while word not in raw:
        raw += sock.recv(4096)
    return raw
