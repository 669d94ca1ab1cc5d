"""Whether a server could be what it is to be, found out before a store is touched, or even taken from another server.

Nothing is listened on by this: a client that waits for its server meets it when it serves, and not before.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nbdserver import tcp_sockets, unix_sockets
from nbdserver.admin.sockets import socket_name
from nbdserver.config import ServeSettings
from nbdserver.dashboard.access_tokens import check_kept
from nbdserver.listen_errors import in_use, listening_failed
from nbdserver.service.daemon import check_pid_file
from nbdserver.service.launch import tcp_places
from storage.errors import Conflict, Invalid, NotFound
from storage.lsm.recovery.state_folder import default_state_folder


@dataclass(frozen=True, slots=True)
class Listening:
    """What a server listens on that is about to end: it is in use now, and free then."""

    ports: frozenset[int] = frozenset()
    unix: Path | None = None

    def and_of(self, other: "Listening") -> "Listening":
        """What both listen on: one that stands by has no socket for clients, as its neighbour has."""
        return Listening(self.ports | other.ports, self.unix or other.unix)


NOWHERE = Listening()


async def rehearse(settings: ServeSettings, unique: str, held: Listening = NOWHERE) -> None:
    """Raise what listening for clients and for people would, the pid file, and the secret of the dashboard:
    Conflict, AccessDenied or Invalid, in one sentence.

    `unique` is part of a name that nobody else uses. That what is `held` is in use does not count.
    """
    for host, port in tcp_places(settings):
        try:
            for sock in await tcp_sockets.bind(host, port):
                sock.close()
        except Conflict as error:
            # An address that is not up is nobody's: who holds the port is not asked to end for it.
            if port not in held.ports or not in_use(error):
                raise
    if settings.unix is not None and settings.unix != held.unix:
        try:
            unix_sockets.rehearse(settings.unix, unique)
        except OSError as error:
            raise listening_failed(error, f"the socket {settings.unix}") from error
    if settings.pid_file is not None:
        with contextlib.suppress(FileNotFoundError):  # its folder may be that of the runtime, which is made later
            check_pid_file(settings.pid_file)
    if settings.dashboard is not None:
        check_kept(dashboard_secret(settings))


def dashboard_secret(settings: ServeSettings) -> Path:
    """Where the secret of the dashboard's tokens is kept."""
    folder = settings.state_folder or default_state_folder(os.environ)
    return folder / f"dashboard-{socket_name(settings.store).removesuffix('.sock')}.secret"


def check_devices(settings: ServeSettings, sizes: Mapping[str, int]) -> None:
    """Whether the devices that are to be made or served could be, beside those that there are, by their sizes in bytes.
    Conflict, NotFound, Invalid.
    """
    for name, size in settings.create:
        check_size(name, sizes.get(name), size)
    known = {*sizes, *dict(settings.create)}
    for name in (*settings.exports, *([settings.default_export] if settings.default_export else [])):
        if "@" not in name and name not in known:
            raise NotFound(f"there is no device {name!r}")
    check_default(settings)


def check_size(name: str, found: int | None, size: int) -> None:
    """Of a device that is to be made with a size, and is there already with the one found. One that was made larger
    since is well. Conflict: it is smaller.
    """
    if found is not None and found < size:
        raise Conflict(f"there is a {name!r} already, with {found} bytes, not {size}: use device resize")


def check_default(settings: ServeSettings) -> None:
    """Invalid: the default export is not among those that are served."""
    default = settings.default_export
    if default is not None and settings.exports and default not in settings.exports:
        raise Invalid(f"the default export {default!r} is not served: name it with --export too")
