"""This file knows the other end of a client's socket: how it is reached, and who it is."""

import contextlib
import ipaddress
import socket
import struct
from dataclasses import dataclass, replace

from nbdserver import unix_sockets

KEEPALIVE_IDLE_SECONDS = 10
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_COUNT = 3
"""A peer that vanished is noticed after 10 + 3 x 5 = 25 s: sooner than a client's time-out of 30 s, after
which it would send its requests again elsewhere."""

UNIX_SEND_BUFFER_BYTES = 512 << 10
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


LOOPBACK = "loopback"
"""What the addresses 127.0.0.0/8 and ::1 count as."""

NOBODY = Peer("unknown", "unknown", None)


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
    theirs, ours = sock.getpeername()[:2], sock.getsockname()[:2]
    peer = over_network(*theirs)
    if peer.address != LOOPBACK:
        return peer
    user = _user_on_loopback(theirs, ours)
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


def _user_on_loopback(theirs: tuple[str, int], ours: tuple[str, int]) -> int | None:
    """Whose the socket is at the other end of a connection within this host (proc_pid_net(5)), or None: not known."""
    end, other_end = f":{theirs[1]:04X}", f":{ours[1]:04X}"
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with contextlib.suppress(OSError, ValueError), open(table) as lines:
            next(lines)
            for line in lines:
                _, local, remote, _, _, _, _, uid, *_ = line.split()
                if not (local.endswith(end) and remote.endswith(other_end)):
                    continue  # the rest takes 5 us
                if _endpoint(local) == (_address(theirs[0]), theirs[1]):
                    return int(uid)
    return None


def _endpoint(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """An address as the kernel's tables have it: words of 32 bits in the byte order of the machine, in hex."""
    words, port = text.split(":")
    packed = b"".join(struct.pack("=I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
    return _address(str(ipaddress.ip_address(packed))), int(port, 16)
