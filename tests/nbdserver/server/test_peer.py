"""The other end of a socket: its name, and what limits count it by."""

import ctypes
import os
import socket
import struct
from typing import NoReturn

import pytest

from nbdserver.server.peer import Peer, over_network, prepare, user_on_loopback

SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27

Pair = tuple[socket.socket, socket.socket]


def tcp_pair(host: str = "127.0.0.1") -> Pair:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        theirs = socket.create_connection(listener.getsockname()[:2])
        return listener.accept()[0], theirs


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def vanish(sock: socket.socket) -> None:
    """The kernel drops unanswered, as with a machine without power, what comes for it (socket(7), a filter of one
    instruction that returns 0)."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0), 8)
    filtering = struct.pack("@HP", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filtering)


@pytest.mark.parametrize(
    ("host", "name", "address"),
    [
        ("10.0.0.5", "10.0.0.5:9", "10.0.0.5"),
        ("::ffff:10.0.0.5", "10.0.0.5:9", "10.0.0.5"),
        ("2001:db8:1:2:3::5", "[2001:db8:1:2:3::5]:9", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:4::6", "[2001:db8:1:2:4::6]:9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "[fe80::1%eth0]:9", "fe80::1%eth0"),
        ("127.0.0.1", "127.0.0.1:9", "loopback"),
        ("127.3.2.1", "127.3.2.1:9", "loopback"),
        ("::ffff:127.3.2.1", "127.3.2.1:9", "loopback"),
        ("::1", "[::1]:9", "loopback"),
    ],
)
def test_what_limits_count_by(host: str, name: str, address: str) -> None:
    """One who has a network of IPv6 has as many addresses as it takes to get past a limit by address."""
    assert over_network(host, 9) == Peer(name, address, None)


def test_who_it_is() -> None:
    uid = os.geteuid()
    for host, name in (("127.0.0.1", "127.0.0.1:{}"), ("127.9.8.7", "127.0.0.1:{}"), ("::1", "[::1]:{}")):
        ours, theirs = tcp_pair(host)
        with ours, theirs:
            peer = prepare(ours)
            port = theirs.getsockname()[1]
            assert (peer.name, peer.address, peer.uid) == (name.format(port), f"loopback:uid={uid}", None)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = prepare(ours)
        uid = os.geteuid()
        assert (peer.name, peer.address, peer.uid) == (f"unix:pid={os.getpid()},uid={uid}", f"unix:uid={uid}", uid)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_users_on_loopback_are_told_apart() -> None:
    """Each has 16 million addresses there: one user took every place by them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.seteuid(65534)
        try:
            theirs = socket.create_connection(listener.getsockname(), source_address=("127.0.9.9", 0))
        finally:
            os.seteuid(0)
        ours, _ = listener.accept()
        with ours, theirs:
            assert prepare(ours).address == "loopback:uid=65534"


def test_a_neighbour_with_many_sockets_does_not_delay_who_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: with 12,000 sockets on the host, each connection stopped all others for 57 ms. Their table is not read."""

    def refuse(path: str, *_: object) -> NoReturn:
        raise AssertionError(path)

    ours, theirs = tcp_pair()
    with ours, theirs:
        monkeypatch.setattr("builtins.open", refuse)
        assert prepare(ours).address == f"loopback:uid={os.geteuid()}"


def test_a_listener_is_not_taken_for_who_connected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        assert user_on_loopback(address, ("127.0.0.1", 9)) is None
        assert user_on_loopback(("127.0.0.1", 9), address) is None


def test_a_client_of_ipv4_on_a_socket_of_ipv6() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        theirs = socket.create_connection(("127.0.0.1", listener.getsockname()[1]))
        ours, _ = listener.accept()
        with ours, theirs:
            assert prepare(ours).address == f"loopback:uid={os.geteuid()}"


def test_who_is_gone_already() -> None:
    ours, theirs = tcp_pair()
    with ours:
        reset(theirs)
        with pytest.raises(OSError):  # noqa: PT011 - which one is the kernel's affair
            prepare(ours)
