"""The way of a trial to an export: in clear, or over TLS, which the kernel's client does not speak and this one does.

URIs are those of the NBD project (doc/uri.md), with `tls-certificates` and `tls-hostname`. The server's certificate is
always checked: against `ca-cert.pem` of a folder as clients have it, else against the authorities of this machine.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from nbdserver.kernel_client.dialing import (
    DIAL_SECONDS,
    ExportConnection,
    OfferedExport,
    connected,
    dial,
    export_in,
    greeted,
    refusal,
    replies_to,
)
from nbdserver.kernel_client.export_address import ExportAddress, parse_uri
from nbdserver.kernel_client.server_user import user_of
from nbdserver.protocol import wire
from nbdserver.tls_files import CA_CERTIFICATE, CLIENT_CERTIFICATE, CLIENT_KEY
from storage.errors import AccessDenied, Invalid, Unavailable

OPTION_REPLIES_MAX = 1000
"""See `nbdserver.kernel_client.dialing`."""

LOCAL_NAME = "localhost"
"""What a server on a Unix socket is called, if nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class TrialTarget:
    """An export, and how its server is reached: `hostname` is what its certificate must say; None: in clear."""

    address: ExportAddress
    hostname: str | None = None
    certificates: Path | None = None

    @property
    def uri(self) -> str:
        """The one way to write it, but for where certificates are."""
        uri = self.address.uri
        return uri if self.hostname is None else uri.replace("nbd", "nbds", 1)

    def named(self, export: str) -> TrialTarget:
        """Another export of the same server."""
        return replace(self, address=replace(self.address, export=export))


def parse_target(uri: str, certificates: Path | None) -> TrialTarget:
    """What a URI names; `certificates` unless it says where they are. ValueError, with a sentence: it is none."""
    parts = urlsplit(uri)
    if parts.scheme not in ("nbds", "nbds+unix"):
        return TrialTarget(parse_uri(uri))
    asked = dict(parse_qsl(parts.query))
    folder, name = asked.pop("tls-certificates", None), asked.pop("tls-hostname", None)
    clear = parts._replace(scheme=parts.scheme.replace("nbds", "nbd"), query=urlencode(asked))
    address = parse_uri(clear.geturl())
    hostname = name or (address.host if address.unix is None else LOCAL_NAME)
    return TrialTarget(address, hostname, certificates if folder is None else Path(folder).absolute())


async def reach(target: TrialTarget) -> ExportConnection:
    """Connect and negotiate, as `dial` does. AccessDenied: the server's certificate is not what it should be, or there
    is none of this client's that the server takes.
    """
    if target.hostname is None:
        return await dial(target.address)
    context, export = _context(target.certificates), target.address.export
    async with connected(target.address) as sock:
        await greeted(sock)
        await replies_to(sock, wire.OPT_STARTTLS, b"", export)
        own = sock.dup()
    own.settimeout(DIAL_SECONDS)
    try:
        with contextlib.ExitStack() as failing:
            failing.callback(own.close)
            secured = context.wrap_socket(own, server_hostname=target.hostname)
            failing.callback(secured.close)
            found = ExportConnection(secured, _negotiate(secured, export), user_of(secured))
            failing.pop_all()
            return found
    except ssl.SSLCertVerificationError as error:
        raise AccessDenied(
            f"the certificate of the server of {target.uri} is refused: {error.verify_message}"
        ) from None
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise AccessDenied(f"TLS with the server of {target.uri} has failed: {reason}") from None
    except OSError as error:
        raise Unavailable(f"the server of {target.uri} does not answer: {error}") from None


def _context(folder: Path | None) -> ssl.SSLContext:
    """What this client checks servers with, and shows them."""
    if folder is None:
        return ssl.create_default_context()
    authority, own = folder / CA_CERTIFICATE, folder / CLIENT_CERTIFICATE
    try:
        context = ssl.create_default_context(cafile=authority)
        if own.exists():
            context.load_cert_chain(own, folder / CLIENT_KEY)
    except OSError as error:
        raise Invalid(f"the certificates in {folder} cannot be used: {error}") from None
    return context


def _negotiate(sock: socket.socket, name: str) -> OfferedExport:
    """Ask for the export, on a socket that blocks."""
    data = name.encode()
    go = struct.pack(f">I{len(data)}sH", len(data), data, 0)
    sock.sendall(wire.OPTION.pack(wire.IHAVEOPT, wire.OPT_GO, len(go)) + go)
    export: OfferedExport | None = None
    for _ in range(OPTION_REPLIES_MAX):
        magic, about, kind, length = wire.OPTION_REPLY.unpack(_take(sock, wire.OPTION_REPLY.size))
        if magic != wire.OPTION_REPLY_MAGIC or about != wire.OPT_GO or length > 1 << 16:
            break
        payload = _take(sock, length)
        if kind == wire.REP_ACK and export is not None:
            return export
        if kind != wire.REP_INFO:
            raise refusal(kind, name, payload.decode(errors="replace"))
        export = export_in(payload) or export
    raise Invalid("the server answers with something that is no reply to an option")


def _take(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise Unavailable("the server closed the connection during the handshake")
        data += piece
    return data
