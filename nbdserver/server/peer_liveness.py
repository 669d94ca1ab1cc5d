"""The liveness of a peer: whether it is there, as far as the kernel knows, and when it was last known for certain.

The kernel knows while bytes are unread that the peer has closed, reset or shut its sending side (1.6 us), but the end
of a TCP stream must have arrived for that. Behind more bytes than this kernel takes in it is out of sight, in the
sender's kernel. So while a client is not read, two signs count, looked for once a second:

- Our kernel had room all the time since the look before. Then all that the peer sent is here, its end too.
- The peer has acknowledged replies since the look before. One that has closed answers them with a reset.

Where neither was seen for Limits.unseen_seconds (the store did not answer, so there were no replies), the stream has to
be read until the kernel has room, or for more than what could have been under way: what comes then was written by a
client that is there. Time alone is no sign that anybody left.

A peer that vanished, with its kernel, closes nothing. Where something is on its way to it, this kernel sends that
again, or asks for a window where the peer had none left. A kernel that is there answers each of these, however long its
program does not read; so only one that left several unanswered, for Limits.vanished_seconds, counts as vanished.
"""

import array
import fcntl
import select
import socket
import struct
import termios

from storage.units import MIB

PEER_BUFFER_BYTES = 16 * MIB
"""More than the sender's kernel holds of what its program has sent (Linux: 4 MiB at most, net.ipv4.tcp_wmem)."""

SO_MEMINFO = 55
"""Linux 4.12: memory of a socket, of it what is unread and how much that may be at most."""

_ACKNOWLEDGED_AT = 120
"""Offset of tcpi_bytes_acked in struct tcp_info (linux/tcp.h, since 4.1)."""

_UNANSWERED = struct.Struct("=2xBB52xI")
"""Of struct tcp_info: tcpi_retransmits and tcpi_probes, which were sent without an answer, one after the other; and
tcpi_last_ack_recv, the milliseconds since the newest one."""

UNANSWERED_MIN = 3
"""Packets get lost, and where a client did not read for long, two minutes pass between one probe and the next."""

_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class PeerLiveness:
    """What is known of one peer. Times are those of the loop; a peer on a Unix socket is always in sight."""

    def __init__(self, sock: socket.socket, unseen_seconds: float, vanished_seconds: float) -> None:
        """One that was not seen for `unseen_seconds` may have left; one whose kernel did not answer for
        `vanished_seconds` has vanished."""
        self.unread_since: float | None = None
        """Since when some of what the peer sent may be out of sight, or None."""
        self._sock = sock
        self._unseen_seconds = unseen_seconds
        self._vanished_seconds = vanished_seconds
        self._unanswered_since: float | None = None
        """Since when its kernel has answered nothing that it was sent."""
        self.may_vanish = sock.family != socket.AF_UNIX
        """Its kernel is another one, as far as is known."""
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLRDHUP)
        self._seen = 0.0
        """When the peer was there for certain."""
        self._looked = 0.0
        self._had_room = False
        self._acknowledged = 0
        self._enough = 0
        """When so many bytes were received from it, it is there; 0: not known."""

    def gone(self) -> bool:
        """Whether the peer has closed, reset or shut its sending side, as far as that is in sight."""
        return any(events & _GONE for _, events in self._poll.poll(0))

    def owes_answers(self) -> bool:
        """Whether this kernel has something for the peer that the peer's has not acknowledged."""
        unsent = array.array("i", [0])
        fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, unsent)
        return unsent[0] > 0

    def vanished(self, now: float) -> bool:
        """Whether its kernel has long answered nothing; asked once a second while it owes answers."""
        if not self.may_vanish:
            return False
        info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNANSWERED.size)
        again, probes, silent = _UNANSWERED.unpack(info)
        unanswered, since = max(again, probes), self._unanswered_since
        if not unanswered:
            self._unanswered_since = None
            return False
        if since is None or silent < (now - since) * 1000:
            # It has answered since; what is unanswered now was sent later.
            self._unanswered_since = since = now
        return unanswered >= UNANSWERED_MIN and now - since >= self._vanished_seconds

    def unread(self, now: float) -> None:
        """From now on the peer is not read."""
        if self.may_vanish and self.unread_since is None:
            self.unread_since = self._seen = self._looked = now
            self._had_room = False
            self._enough = 0
            self._acknowledged = self._bytes_acknowledged()

    def look(self, now: float, received: int, *, reading: bool) -> None:
        """Look for signs; `received` bytes came from it so far, and it is read again or not."""
        if self.unread_since is None:
            return
        acknowledged, has_room = self._bytes_acknowledged(), self._has_room()
        if acknowledged > self._acknowledged or (has_room and self._had_room):
            self._seen = self._looked
        if self._enough and received >= self._enough:
            # It was there now, once: when it is out of sight again for long, its stream has to be read anew.
            self._seen, self._enough = now, 0
        if reading and has_room and self._had_room:
            self.unread_since = None
        self._acknowledged, self._had_room, self._looked = acknowledged, has_room, now

    def unseen(self, now: float) -> bool:
        """Whether it was not seen for so long that it may have left."""
        return self.unread_since is not None and now - self._seen > self._unseen_seconds

    def look_ahead(self, received: int) -> int:
        """How many bytes the end of its stream could lie behind: after those it counts as seen."""
        unread = array.array("i", [0])
        fcntl.ioctl(self._sock.fileno(), termios.FIONREAD, unread)
        ahead = unread[0] + PEER_BUFFER_BYTES
        self._enough = self._enough or received + ahead
        return ahead

    def _bytes_acknowledged(self) -> int:
        info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED_AT + 8)
        return int(struct.unpack_from("Q", info, _ACKNOWLEDGED_AT)[0])

    def _has_room(self) -> bool:
        """Whether the kernel takes more from the peer than is unread: half of its room is enough for a window."""
        used, room = struct.unpack("II", self._sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 8))
        return bool(2 * used < room)
