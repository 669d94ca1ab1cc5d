"""Where an export is: a name, and a server on TCP or on a Unix socket, as an NBD URI has them.

The URI is that of the NBD project (doc/uri.md of NetworkBlockDevice/nbd). The kernel speaks no TLS, so `nbds` is
refused.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from nbdserver.config import DEFAULT_BIND, DEFAULT_PORT

NO_TLS = (
    "the kernel's NBD client speaks no TLS: let the server listen on a Unix socket, or in a tunnel (WireGuard, "
    "ssh -L), or use nbd-client, which encrypts in a process of its own and does not outlive a restart"
)


@dataclass(frozen=True, slots=True)
class ExportAddress:
    """One export of one server: on a Unix socket if there is a path, on TCP otherwise."""

    export: str
    host: str = DEFAULT_BIND
    port: int = DEFAULT_PORT
    unix: Path | None = None

    @property
    def uri(self) -> str:
        """The one way to write it."""
        if self.unix is not None:
            return f"nbd+unix:///{quote(self.export)}?socket={quote(os.fsencode(self.unix))}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORT else f":{self.port}"
        return f"nbd://{host}{port}/{quote(self.export)}"

    @property
    def is_local(self) -> bool:
        """Whether nothing but this machine lies between: who has closed a connection here is known at once there."""
        return self.unix is not None or self.host.startswith("127.") or self.host in ("localhost", "::1")


def is_uri(text: str) -> bool:
    """Whether it is meant as a URI, and not as the name of an export."""
    return text.startswith(("nbd:", "nbds:", "nbd+unix:", "nbds+unix:"))


def parse_uri(text: str) -> ExportAddress:
    """The export a URI names. ValueError, with a sentence: it is none, or one that the kernel cannot use."""
    parts = urlsplit(text)
    export = unquote(parts.path.removeprefix("/"))
    if parts.scheme in ("nbds", "nbds+unix"):
        raise ValueError(NO_TLS)
    if parts.scheme == "nbd+unix":
        sockets = parse_qs(parts.query).get("socket", [])
        if len(sockets) != 1 or parts.netloc:
            raise ValueError(f"{text!r} is not nbd+unix:///NAME?socket=PATH")
        return ExportAddress(export, unix=Path(sockets[0]).absolute())
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is not nbd://HOST:PORT/NAME: {error}") from None
    if parts.scheme != "nbd" or not host or parts.username is not None:
        raise ValueError(f"{text!r} is not nbd://HOST:PORT/NAME")
    return ExportAddress(export, host, DEFAULT_PORT if port is None else port)
