"""TCP sockets to listen on: an address as a person writes it, bound.

Conflict, AccessDenied and Invalid each say in one sentence what to do.
"""

import asyncio
import contextlib
import errno
import os
import socket

from nbdserver import unix_sockets
from nbdserver.listen_errors import listening_failed
from storage.errors import Invalid


async def bind(host: str, port: int) -> list[socket.socket]:
    """A socket for each address that `host` stands for, bound and not listening yet; port 0 takes a free one."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return _bind_all([(family, address) for family, _, _, _, address in dict.fromkeys(found)])
    except UnicodeError:
        raise Invalid(f"{host!a} is no address that can be listened on") from None
    except OSError as error:
        raise listening_failed(error, f"port {port} on {host}") from error


async def listen(host: str, port: int) -> list[socket.socket]:
    """The same, listening and not blocking."""
    bound = await bind(host, port)
    try:
        for sock in bound:
            sock.listen(unix_sockets.BACKLOG)
            sock.setblocking(False)
    except OSError as error:
        for sock in bound:
            sock.close()
        raise listening_failed(error, f"port {port} on {host}") from error
    return bound


def _bind_all(addresses: "list[tuple[socket.AddressFamily, tuple[object, ...]]]") -> list[socket.socket]:
    with contextlib.ExitStack() as if_one_fails:
        bound = []
        for family, address in addresses:
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT:
                    continue  # a name may have an address of IPv6 where the kernel has no IPv6
                raise
            if_one_fails.enter_context(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # Each family has a socket of its own, whatever the system's default is.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            bound.append(sock)
        if not bound:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        if_one_fails.pop_all()
        return bound
