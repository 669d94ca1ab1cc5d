"""Whose process is at the other end of a connection to a server of this machine.

While a server is away any user may listen on its port, or at its place in a folder such as /tmp, and say what it said:
the kernel tells whose a process is, and nobody can say that for another. Of a server of another machine nothing is
known, nor where the kernel does not tell (another network namespace, a kernel without sock_diag).
"""

import socket
from dataclasses import dataclass

from nbdserver import unix_sockets
from nbdserver.server.peer import LOOPBACK, over_network, user_on_loopback
from storage.trusted_files import trusted_users, user_name

TCP_ESTABLISHED = 1
"""Of net/tcp_states.h."""


@dataclass(frozen=True, slots=True)
class ServerUser:
    """`here`: the server is on this machine. `uid`: its user; None: not known."""

    here: bool
    uid: int | None


ELSEWHERE = ServerUser(False, None)


def user_of(sock: socket.socket) -> ServerUser:
    """Of the server at the other end, which must have said something: a connection that nobody has accepted yet, or
    that was closed, is root's to the kernel. Once it is known the connection may end: nobody else gets it."""
    if sock.family == socket.AF_UNIX:
        return ServerUser(True, unix_sockets.peer(sock)[1])
    try:
        peer_end, own_end = sock.getpeername()[:2], sock.getsockname()[:2]
        if over_network(*peer_end).address != LOOPBACK and peer_end[0] != own_end[0]:
            return ELSEWHERE
        uid = user_on_loopback(peer_end, own_end)
        # Looked at last: what was closed before the kernel was asked is not established now.
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return ServerUser(True, None)
    return ServerUser(True, uid if state == TCP_ESTABLISHED else None)


def stranger(known: int | None, now: ServerUser) -> str | None:
    """Why a server must not have the disk of a device that was attached to one of the user `known`, as a sentence;
    None: it may. This user and root can do everything here anyway."""
    if known is None or not now.here or now.uid in {known, *trusted_users()}:
        return None
    if now.uid is None:
        return (
            f"the kernel does not say whose process answers, and the device was attached to one of {user_name(known)}"
        )
    return (
        f"a process of {user_name(now.uid)} answers there, and the device was attached to one of {user_name(known)}: "
        "it gets nothing"
    )
