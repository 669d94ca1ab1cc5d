"""A connection to an export, up to where requests begin: then the kernel can have its socket.

The client's half of the fixed newstyle handshake (NBD protocol, "Newstyle negotiation"), with one option: GO. The
kernel understands simple replies only, so nothing else is asked for. Every kind of refusal is one sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass

from nbdserver.kernel_client.export_address import NO_TLS, ExportAddress
from nbdserver.kernel_client.server_user import ServerUser, user_of
from nbdserver.protocol import wire
from storage.errors import AccessDenied, Invalid, NotFound, StorageError, Unavailable

DIAL_SECONDS = 10.0
"""For a connection and its handshake: what the server gives a client."""

REFUSED = 1 << 31
"""In the kind of a reply to an option: it is an error."""

REPLIES_MAX = 1000
"""Replies to one option that are read before the server counts as one that never ends."""

REPLY_BYTES_MAX = 1 << 16
"""Longest reply to an option that is read: what it can say is shorter than a string of the protocol."""

KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""A server that lost its power is noticed after 25 seconds, also where nothing is sent (seconds, seconds, times)."""

_INFO_TYPE = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class OfferedExport:
    """What a server says of an export: its size in bytes, and what can be done with it (transmission flags)."""

    size: int
    flags: int


@dataclass(frozen=True, slots=True)
class ExportConnection:
    """A socket on which requests can be sent, what is at its other end, and whose that is. Whoever has it closes it."""

    sock: socket.socket
    export: OfferedExport
    server: ServerUser


async def dial(address: ExportAddress, *, seconds: float = DIAL_SECONDS) -> ExportConnection:
    """Connect and negotiate, each within `seconds`. Unavailable: no server answers. NotFound, AccessDenied, Invalid: it
    refuses.
    """
    async with connected(address, seconds=seconds) as sock:
        async with asyncio.timeout(seconds):
            export = await _negotiate(sock, address.export)
        server = user_of(sock)
        sock.setblocking(True)
        return ExportConnection(sock.dup(), export, server)


@contextlib.asynccontextmanager
async def connected(address: ExportAddress, *, seconds: float = DIAL_SECONDS) -> AsyncIterator[socket.socket]:
    """A connected socket that does not block, closed at the end. What goes wrong with it is Unavailable."""
    try:
        async with asyncio.timeout(seconds):
            sock = await _connect(address)
        with sock:
            yield sock
    except TimeoutError:
        raise Unavailable(f"the server of {address.uri} does not answer") from None
    except OSError as error:
        named = error.strerror or str(error)
        reason = named if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)
        raise Unavailable(f"no server can be reached at {address.uri}: {reason}") from None


async def _connect(address: ExportAddress) -> socket.socket:
    """A connected socket that does not block: to the first address of a name that takes it."""
    loop = asyncio.get_running_loop()
    if address.unix is not None:
        return await _connected(socket.AF_UNIX, os.fsencode(address.unix))
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    for family, _, _, _, where in found[:-1]:
        with contextlib.suppress(OSError):
            return await _connected(family, where)
    family, _, _, _, where = found[-1]
    return await _connected(family, where)


async def _connected(family: int, where: bytes | tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in KEEP_ALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, name, value)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


async def _negotiate(sock: socket.socket, name: str) -> OfferedExport:
    await greeted(sock)
    data = name.encode()
    go = struct.pack(f">I{len(data)}sH", len(data), data, 0)
    export: OfferedExport | None = None
    for kind, payload in await replies_to(sock, wire.OPT_GO, go, name):
        if kind == wire.REP_INFO:
            export = export_in(payload) or export
    if export is None:
        raise Invalid("the server does not say how large the export is")
    return export


async def greeted(sock: socket.socket) -> None:
    """Take the greeting and agree to fixed newstyle. Invalid: it is no such server."""
    magic, options, flags = wire.GREETING.unpack(await _take(sock, wire.GREETING.size))
    if (magic, options) != (wire.NBDMAGIC, wire.IHAVEOPT) or not flags & wire.FLAG_FIXED_NEWSTYLE:
        raise Invalid("what listens there is no NBD server that negotiates")
    agreed = wire.FLAG_C_FIXED_NEWSTYLE | (wire.FLAG_C_NO_ZEROES if flags & wire.FLAG_NO_ZEROES else 0)
    await asyncio.get_running_loop().sock_sendall(sock, wire.CLIENT_FLAGS.pack(agreed))


async def replies_to(sock: socket.socket, option: int, data: bytes, name: str) -> list[tuple[int, bytes]]:
    """Kind and data of what a server answers to an option, up to its acknowledgement. `refusal`: it refuses, the export
    of that `name`."""
    head = wire.OPTION.pack(wire.IHAVEOPT, option, len(data))
    await asyncio.get_running_loop().sock_sendall(sock, head + data)
    found: list[tuple[int, bytes]] = []
    while True:
        magic, about, kind, length = wire.OPTION_REPLY.unpack(await _take(sock, wire.OPTION_REPLY.size))
        if magic != wire.OPTION_REPLY_MAGIC or about != option or length > REPLY_BYTES_MAX:
            raise Invalid("the server answers with something that is no reply to an option")
        payload = await _take(sock, length)
        if kind == wire.REP_ACK:
            return found
        if kind & REFUSED or len(found) >= REPLIES_MAX:
            raise refusal(kind, name, payload.decode(errors="replace"))
        found.append((kind, payload))


def export_in(payload: bytes) -> OfferedExport | None:
    """The export in one piece of information, if it is about that."""
    if len(payload) != _INFO_TYPE.size + wire.EXPORT.size or _INFO_TYPE.unpack_from(payload)[0] != wire.INFO_EXPORT:
        return None
    return OfferedExport(*wire.EXPORT.unpack_from(payload, _INFO_TYPE.size))


def refusal(kind: int, name: str, message: str) -> StorageError:
    """What a server refused the export with, as an error."""
    said = f": {message}" if message else ""
    match kind:
        case wire.REP_ERR_UNKNOWN:
            return NotFound(f"the server has no export {name!r}{said}")
        case wire.REP_ERR_TLS_REQD:
            return Invalid(f"the server requires TLS, and {NO_TLS}")
        case wire.REP_ERR_POLICY:
            return AccessDenied(f"the server refuses {name!r}{said}")
        case _:
            return Invalid(f"the server refuses {name!r}{said or f' with error {kind & ~(1 << 31)}'}")


async def _take(sock: socket.socket, count: int) -> bytes:
    """So many bytes and not one more: what follows them is the kernel's."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        piece = await loop.sock_recv(sock, count - len(data))
        if not piece:
            raise Unavailable("the server closed the connection during the handshake")
        data += piece
    return data
