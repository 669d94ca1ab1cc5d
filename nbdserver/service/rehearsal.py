"""Whether a server could listen where it is to, found out before a store is touched, or even taken from another server.

Nothing is listened on by this: a client that waits for its server meets it when it serves, and not before.
"""

from dataclasses import dataclass
from pathlib import Path

from nbdserver import tcp_sockets, unix_sockets
from nbdserver.listen_errors import listening_failed


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
        for sock in await tcp_sockets.bind(*tcp):
            sock.close()
    if unix is not None and unix != held.unix:
        try:
            unix_sockets.rehearse(unix, unique)
        except OSError as error:
            raise listening_failed(error, f"the socket {unix}") from error
