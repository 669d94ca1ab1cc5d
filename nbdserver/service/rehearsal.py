"""Whether a server could listen where it is to, found out before a store is touched, or even taken from another server.

Nothing is listened on by this: a client that waits for its server meets it when it serves, and not before.
"""

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path

from nbdserver import unix_sockets
from nbdserver.listen_errors import listening_failed
from storage.errors import Invalid


@dataclass(frozen=True, slots=True)
class Listening:
    """What a server listens on that is about to end: it is in use now, and free then."""

    port: int | None = None
    unix: Path | None = None


NOWHERE = Listening()


async def rehearse(tcp: tuple[str, int] | None, unix: Path | None, unique: str, held: Listening = NOWHERE) -> None:
    """Raise what `Listener.listen_tcp` and `listen_unix` would: Conflict, AccessDenied or Invalid, in one sentence.

    `unique` is part of a name that nobody else uses. What is `held` is not asked for.
    """
    if tcp is not None and tcp[1] != held.port:
        await _bind(*tcp)
    if unix is not None and unix != held.unix:
        try:
            unix_sockets.rehearse(unix, unique)
        except OSError as error:
            raise listening_failed(error, f"the socket {unix}") from error


async def _bind(host: str, port: int) -> None:
    """Have the address for a moment, in the way in which asyncio has it before it listens."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
    except UnicodeError:
        raise Invalid(f"{host!a} is no address that can be listened on") from None
    except OSError as error:
        raise listening_failed(error, f"port {port} on {host}") from error
