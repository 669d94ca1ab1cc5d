"""A stand-in for the kernel's NBD client, for tests of who keeps a device.

It does what is seen of Linux: a socket that it takes has a send time-out of its own from then on.
"""

import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from nbdserver.kernel_client import nbd_family, netlink
from nbdserver.kernel_client.kernel_device import KernelDevice
from nbdserver.kernel_client.nbd_family import Timeouts
from storage.errors import Conflict, Invalid


class Kernel:
    """The kernel's client, with one device that is attached."""

    def __init__(self, sys: Path) -> None:
        self.device = KernelDevice(0, sys)
        self.taken: list[socket.socket] = []
        self.asked: list[tuple[int, int]] = []
        """Sizes, and how many sockets came with each."""
        self.takes = True
        self.detached = False
        """By somebody else, while it is open: sysfs shows it as it was, and nothing can be asked of it any more."""
        self._pid = sys / "nbd0" / "pid"
        self._pid.parent.mkdir(parents=True)
        self._pid.write_text("1\n")

    def dead_links(self) -> socket.socket:
        listener, self._told = socket.socketpair()
        listener.setblocking(False)
        return listener

    def reconfigure(self, index: int, size: int, sockets: Sequence[int], waits: Timeouts, backend: str) -> None:
        self.asked.append((size, len(sockets)))
        if self.detached:
            raise Conflict(f"/dev/nbd{index} is not attached to {backend} any more")
        for descriptor in sockets if self.takes else ():
            sock = socket.socket(fileno=socket.dup(descriptor))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", waits.request, 0))
            self.taken.append(sock)

    def disconnect(self, index: int) -> None:
        if self.detached:
            raise Invalid(f"the kernel refuses /dev/nbd{index}")
        self._pid.unlink(missing_ok=True)

    def tell_of_a_dead_link(self) -> None:
        """As the kernel does, to whoever listens."""
        self._told.send(netlink.request(30, nbd_family.CMD_LINK_DEAD, 1, 0, netlink.u32(nbd_family.ATTR_INDEX, 0)))

    def forget(self) -> None:
        """The connections are dead."""
        for sock in self.taken:
            sock.close()
        self.taken.clear()

    def close(self) -> None:
        self.forget()
        self._told.close()
