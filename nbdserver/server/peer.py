"""The other end of a client's socket: how it is reached, and who it is."""

import contextlib
import ipaddress
import socket
import struct
from dataclasses import dataclass, replace

from nbdserver import unix_sockets
from nbdserver.attachments import HERE
from storage.units import KIB

KEEPALIVE_IDLE_SECONDS = 10
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_COUNT = 3
"""A peer that vanished while nothing was on its way to it is noticed after 10 + 3 x 5 = 25 s: sooner than a client's
time-out of 30 s, after which it would send its requests again elsewhere. While something is, `peer_liveness` looks.
TCP_USER_TIMEOUT is not for that: it also ends a client that only does not read, though its kernel answers."""

UNIX_SEND_BUFFER_BYTES = 512 * KIB
"""What the kernel holds of replies on a Unix socket (it doubles the number; by default it is 208 KiB in all,
which makes client and server take turns: reading 256 KiB at a time is then half as fast)."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a socket."""

    name: str
    """For people: `10.0.0.5:41234`, `unix:pid=4321,uid=1000`."""
    address: str
    """What limits count by: the network address, of IPv6 its first 64 bits, since one customer has all behind them; of
    this host the user, on a Unix socket and on loopback, where each has 16 million addresses."""
    uid: int | None
    """The user on a Unix socket, as the kernel knows it (SO_PEERCRED); None over a network."""

    @property
    def place(self) -> str:
        """What it is remembered by: the address, or that it is of this machine."""
        return HERE if self.address.startswith(("unix:", LOOPBACK)) else self.address


LOOPBACK = "loopback"
"""What the addresses 127.0.0.0/8 and ::1 count as."""

NETLINK_SOCK_DIAG = 4
NETLINK_HEADER_BYTES = 16
NLM_F_REQUEST = 1
SOCK_DIAG_BY_FAMILY = 20
ALL_STATES = 0xFFFFFFFF
NO_COOKIE = (0xFFFFFFFF, 0xFFFFFFFF)
TCP_LISTEN = 10
"""Of linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h."""

_DIAG_STATE_AND_USER = "=xB2x48x12xI"
"""Of struct inet_diag_msg: behind the state two bytes, the pair of addresses, and three numbers."""

UNKNOWN_PEER = Peer("unknown", "unknown", None)


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
    peer_end, own_end = sock.getpeername()[:2], sock.getsockname()[:2]
    peer = over_network(*peer_end)
    if peer_end[0] == own_end[0]:
        peer = replace(peer, address=LOOPBACK)
    if peer.address != LOOPBACK:
        return peer
    user = user_on_loopback(peer_end, own_end)
    return peer if user is None else replace(peer, address=f"{LOOPBACK}:uid={user}")


def over_network(host: str, port: int) -> Peer:
    """The peer at an address as the kernel writes it."""
    address = _address(host)
    if address.is_loopback:
        return Peer(f"{address}:{port}" if address.version == 4 else f"[{host}]:{port}", LOOPBACK, None)
    if address.version == 4:
        return Peer(f"{address}:{port}", str(address), None)
    # On one link all share the first 64 bits, and each is its own neighbour.
    network = host if address.is_link_local else str(ipaddress.ip_network((address, 64), strict=False))
    return Peer(f"[{host}]:{port}", network, None)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is not None:
        # A socket that listens to both families calls a client of IPv4 so.
        return address.ipv4_mapped
    return address


def user_on_loopback(peer_end: tuple[str, int], own_end: tuple[str, int]) -> int | None:
    """Whose the socket is at the other end of a connection within this host (sock_diag(7)), or None: not known.

    The kernel is asked for this one, in 0.1 ms. Its table of all would take 5 us a line, of which a neighbour can make
    30,000, for each connection that is taken.
    """
    family = socket.AF_INET6 if ":" in peer_end[0] else socket.AF_INET
    ends = peer_end, own_end
    pair = b"".join(socket.inet_pton(family, host.partition("%")[0]).ljust(16, b"\0") for host, _ in ends)
    request = struct.pack("=BBxxI", family, socket.IPPROTO_TCP, ALL_STATES)
    request += struct.pack("!HH", peer_end[1], own_end[1]) + pair + struct.pack("=III", 0, *NO_COOKIE)
    header = struct.pack("=IHHII", NETLINK_HEADER_BYTES + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0)
    with (
        contextlib.suppress(OSError, struct.error),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_SOCK_DIAG) as kernel,
    ):
        kernel.send(header + request)  # carried out in this very call
        answer = kernel.recv(4096)
        (kind,) = struct.unpack_from("=H", answer, 4)
        state, uid = struct.unpack_from(_DIAG_STATE_AND_USER, answer, NETLINK_HEADER_BYTES)
        # Where there is no such connection, it names whoever listens on that port.
        return int(uid) if kind == SOCK_DIAG_BY_FAMILY and state != TCP_LISTEN else None
    return None
