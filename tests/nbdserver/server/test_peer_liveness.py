"""What the kernel knows of a peer that is not read: whether it has left, and when it was there for certain."""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from nbdserver.server.peer_liveness import PEER_BUFFER_BYTES, PeerLiveness
from tests.nbdserver.server.test_peer import SO_DETACH_FILTER, Pair, reset, tcp_pair, vanish

UNSEEN_SECONDS = 20.0
VANISHED_SECONDS = 25.0
LONG = UNSEEN_SECONDS + 1


@pytest.fixture(params=[tcp_pair, socket.socketpair], ids=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = request.param()
    yield made
    for sock in made:
        sock.close()


@pytest.fixture
def tcp() -> Iterator[Pair]:
    made = tcp_pair()
    yield made
    for sock in made:
        sock.close()


def shut(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


def give_up(sock: socket.socket) -> None:
    """What Linux' client does with a connection that takes too long."""
    sock.shutdown(socket.SHUT_RDWR)


def fill(sock: socket.socket) -> None:
    """Send until neither kernel takes any more."""
    sock.setblocking(False)
    while select.select([], [sock], [], 0.2)[1]:
        with contextlib.suppress(BlockingIOError):
            sock.send(bytes(1 << 20))


def wait_for(condition: Callable[[], bool]) -> bool:
    limit = time.monotonic() + 10
    while not condition() and time.monotonic() < limit:
        time.sleep(0.005)
    return condition()


@pytest.mark.parametrize("leave", [shut, give_up, socket.socket.close, reset])
def test_the_kernel_knows_although_bytes_are_unread(pair: Pair, leave: Callable[[socket.socket], None]) -> None:
    ours, theirs = pair
    presence = PeerLiveness(ours, UNSEEN_SECONDS, VANISHED_SECONDS)
    theirs.sendall(b"x" * 10_000)
    assert not presence.gone()
    leave(theirs)
    assert presence.gone()


@pytest.mark.parametrize("leave", [give_up, socket.socket.close])
def test_behind_more_than_the_kernel_takes_an_end_is_out_of_sight(
    tcp: Pair, leave: Callable[[socket.socket], None]
) -> None:
    """The state in which time alone proves nothing: what all the rest is for. A reply brings it to light."""
    ours, theirs = tcp
    presence = PeerLiveness(ours, UNSEEN_SECONDS, VANISHED_SECONDS)
    fill(theirs)
    presence.unread(0.0)
    leave(theirs)
    presence.look(LONG, 0, reading=False)
    presence.look(LONG + 1, 0, reading=False)
    assert not presence.gone()
    assert presence.unseen(LONG + 1)
    ours.send(b"a reply")
    assert wait_for(presence.gone)


def test_replies_that_were_acknowledged_are_a_sign(tcp: Pair) -> None:
    ours, theirs = tcp
    presence = PeerLiveness(ours, UNSEEN_SECONDS, VANISHED_SECONDS)
    fill(theirs)
    presence.unread(0.0)
    now = 0.0
    for _ in range(5):
        ours.send(b"a reply")
        theirs.setblocking(True)
        theirs.recv(100)
        now += LONG / 2
        presence.look(now, 0, reading=False)
        assert not presence.unseen(now + LONG / 2 - 2)
    presence.look(now + LONG, 0, reading=False)
    assert presence.unseen(now + LONG), "no reply since"


def test_room_in_the_kernel_is_a_sign(tcp: Pair) -> None:
    """With room all the time, all that was sent is here, its end too."""
    ours, theirs = tcp
    presence = PeerLiveness(ours, UNSEEN_SECONDS, VANISHED_SECONDS)
    theirs.sendall(b"x" * 1000)
    presence.unread(0.0)
    presence.look(LONG, 0, reading=False)
    presence.look(LONG + 1, 0, reading=False)
    assert not presence.unseen(LONG + 1)
    assert presence.unread_since is not None, "it is still not read"
    presence.look(LONG + 2, 0, reading=True)
    assert presence.unread_since is None


def test_enough_read_is_a_sign(tcp: Pair) -> None:
    ours, theirs = tcp
    presence = PeerLiveness(ours, UNSEEN_SECONDS, VANISHED_SECONDS)
    fill(theirs)
    presence.unread(0.0)
    assert presence.unseen(LONG)
    ahead = presence.look_ahead(1000)
    assert ahead > PEER_BUFFER_BYTES
    presence.look(LONG, 1000 + ahead - 1, reading=True)
    assert presence.unseen(LONG)
    presence.look(LONG + 1, 1000 + ahead, reading=True)
    assert not presence.unseen(LONG + 1)


def test_what_was_read_once_proves_nothing_later(tcp: Pair) -> None:
    """The next outage, of a client that never let the kernel have room between the two."""
    ours, theirs = tcp
    presence = PeerLiveness(ours, UNSEEN_SECONDS, VANISHED_SECONDS)
    fill(theirs)
    presence.unread(0.0)
    assert presence.unseen(LONG)
    received = presence.look_ahead(0)
    presence.look(LONG, received, reading=True)
    assert not presence.unseen(LONG)
    presence.look(3 * LONG, received, reading=False)
    assert presence.unseen(3 * LONG)
    assert presence.look_ahead(received) > PEER_BUFFER_BYTES
    presence.look(3 * LONG, received + 1, reading=True)
    assert presence.unseen(3 * LONG), "it has to be read on, from here"


def test_a_kernel_that_answers_nothing_has_vanished_until_it_answers(tcp: Pair) -> None:
    """One packet without an answer may be lost."""
    ours, theirs = tcp
    presence = PeerLiveness(ours, UNSEEN_SECONDS, 0.0)
    vanish(theirs)
    assert not presence.owes_answers()
    ours.send(b"a reply")
    assert presence.owes_answers()
    assert wait_for(lambda: presence.vanished(0.0))
    assert unanswered(ours) >= 3
    theirs.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    assert wait_for(lambda: not presence.vanished(0.0))
    assert wait_for(lambda: not presence.owes_answers())


def test_an_answer_since_the_first_look_begins_the_wait_anew(tcp: Pair) -> None:
    ours, theirs = tcp
    presence = PeerLiveness(ours, UNSEEN_SECONDS, 100.0)
    vanish(theirs)
    ours.send(b"a reply")
    assert wait_for(lambda: unanswered(ours) >= 3)
    assert not presence.vanished(0.0)
    assert not presence.vanished(1000.0), "its newest answer is younger than the look before"


def unanswered(sock: socket.socket) -> int:
    return max(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[2:4])


def test_on_a_unix_socket_the_end_is_always_in_sight() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        presence = PeerLiveness(ours, UNSEEN_SECONDS, VANISHED_SECONDS)
        fill(theirs)
        presence.unread(0.0)
        assert not presence.unseen(LONG)
        theirs.close()
        assert presence.gone()
