"""This file knows the other end of a client's socket: how it is reached, who it is, and whether it is still
there."""

import ipaddress
import select
import socket
from dataclasses import dataclass

from nbdserver import unix_sockets

KEEPALIVE_IDLE_SECONDS = 10
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_COUNT = 3
"""A peer that vanished is noticed after 10 + 3 x 5 = 25 s: sooner than a client's time-out of 30 s, after
which it would send its requests again elsewhere."""

UNIX_SEND_BUFFER_BYTES = 512 << 10
"""What the kernel holds of replies on a Unix socket (it doubles the number; by default it is 208 KiB in all,
which makes client and server take turns: reading 256 KiB at a time is then half as fast)."""

STALL_SECONDS_MAX = 20.0
"""A TCP client that was not read for this long may have given up (time-outs of 30 s are usual), and the end
of its stream be out of sight behind what was not read. Nothing of it was acknowledged: dropping it is
safe."""

_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a socket."""

    name: str
    """For people: `10.0.0.5:41234`, `unix:pid=4321,uid=1000`."""
    address: str
    """What limits count by: the network address, of IPv6 its first 64 bits, since one customer has all behind them;
    on a Unix socket the user."""
    uid: int | None
    """The user on a Unix socket, as the kernel knows it (SO_PEERCRED); None over a network."""


NOBODY = Peer("unknown", "unknown", None)


class Presence:
    """Whether the peer of a socket is still there, asked of the kernel (1.6 us).

    The kernel knows it while bytes are unread, but the end of a TCP stream must have arrived: behind more bytes than
    the kernel takes in it is not seen. So a TCP client that was not read for STALL_SECONDS_MAX counts as gone.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.unread_since: float | None = None
        """The time of the loop since when what the peer sends is not taken, or None."""
        self._tcp = sock.family != socket.AF_UNIX
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLRDHUP)

    def stalled(self, now: float) -> bool:
        """Whether the peer was not read for so long that its end could be out of sight."""
        return self._tcp and self.unread_since is not None and now - self.unread_since > STALL_SECONDS_MAX

    def gone(self, now: float) -> bool:
        """Whether the peer has closed, reset or shut its sending side, or may have."""
        return self.stalled(now) or any(events & _GONE for _, events in self._poll.poll(0))


def prepare(sock: socket.socket) -> Peer:
    """Set a client's socket up and find out who is at its other end. OSError: it is gone already."""
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_SEND_BUFFER_BYTES)
        pid, uid = unix_sockets.peer(sock)
        return Peer(f"unix:pid={pid},uid={uid}", f"unix:uid={uid}", uid)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
    dead = KEEPALIVE_IDLE_SECONDS + KEEPALIVE_COUNT * KEEPALIVE_INTERVAL_SECONDS
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, dead * 1000)
    host, port = sock.getpeername()[:2]
    return over_network(host, port)


def over_network(host: str, port: int) -> Peer:
    """The peer at an address as the kernel writes it."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is not None:
        # A socket that listens to both families calls a client of IPv4 so.
        address = address.ipv4_mapped
    if address.version == 4:
        return Peer(f"{address}:{port}", str(address), None)
    # On one link all share the first 64 bits, and each is its own neighbour.
    network = host if address.is_link_local else str(ipaddress.ip_network((address, 64), strict=False))
    return Peer(f"[{host}]:{port}", network, None)
