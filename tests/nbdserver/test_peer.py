"""The other end of a socket: its name, and whether the kernel says it is there."""

import os
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from nbdserver.peer import Peer, Presence, over_network, prepare

Pair = tuple[socket.socket, socket.socket]


def tcp_pair(host: str = "127.0.0.1") -> Pair:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        theirs = socket.create_connection(listener.getsockname()[:2])
        return listener.accept()[0], theirs


@pytest.fixture(params=[tcp_pair, socket.socketpair], ids=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = request.param()
    yield made
    for sock in made:
        sock.close()


def shut(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("leave", [shut, socket.socket.close, reset])
def test_the_kernel_knows_although_bytes_are_unread(pair: Pair, leave: Callable[[socket.socket], None]) -> None:
    ours, theirs = pair
    presence = Presence(ours)
    theirs.sendall(b"x" * 10_000)
    assert not presence.gone(0.0)
    leave(theirs)
    assert presence.gone(0.0)


@pytest.mark.parametrize(
    ("host", "name", "address"),
    [
        ("10.0.0.5", "10.0.0.5:9", "10.0.0.5"),
        ("::ffff:10.0.0.5", "10.0.0.5:9", "10.0.0.5"),
        ("2001:db8:1:2:3::5", "[2001:db8:1:2:3::5]:9", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:4::6", "[2001:db8:1:2:4::6]:9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "[fe80::1%eth0]:9", "fe80::1%eth0"),
    ],
)
def test_what_limits_count_by(host: str, name: str, address: str) -> None:
    """One who has a network of IPv6 has as many addresses as it takes to get past a limit by address."""
    assert over_network(host, 9) == Peer(name, address, None)


def test_who_it_is() -> None:
    for host, name, address in (("127.0.0.1", "127.0.0.1:{}", "127.0.0.1"), ("::1", "[::1]:{}", "::/64")):
        ours, theirs = tcp_pair(host)
        with ours, theirs:
            peer = prepare(ours)
            assert (peer.name, peer.address, peer.uid) == (name.format(theirs.getsockname()[1]), address, None)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = prepare(ours)
        uid = os.geteuid()
        assert (peer.name, peer.address, peer.uid) == (f"unix:pid={os.getpid()},uid={uid}", f"unix:uid={uid}", uid)


def test_who_is_gone_already() -> None:
    ours, theirs = tcp_pair()
    with ours:
        reset(theirs)
        with pytest.raises(OSError):  # noqa: PT011 - which one is the kernel's affair
            prepare(ours)
