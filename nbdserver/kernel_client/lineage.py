"""What a server says of its incarnations: which one this is, and whether anything was lost since another one.

Asked on a connection of its own, since it takes structured replies, which the kernel does not understand. A connection
that was made before, and that a server which says "nothing" has not ended, is to that server or to one between the two:
so ask after dialing, and before the kernel has the socket.

Remembered in /run, root's alone, by export, and beside it whose the server was: on tmpfs, so that it ends with
the kernel's devices.
"""

import asyncio
import contextlib
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from nbdserver.kernel_client.dialing import DIAL_SECONDS, connected, greeted, replies_to
from nbdserver.kernel_client.export_address import ExportAddress
from nbdserver.kernel_client.keeper_lock import LOCKS, note_path
from nbdserver.kernel_client.server_user import ELSEWHERE, ServerUser, user_of
from nbdserver.protocol import wire
from nbdserver.protocol.agreement import INCARNATION
from storage.errors import Invalid
from storage.trusted_files import replace_file

ID_BYTES_MAX = 256


@dataclass(frozen=True, slots=True)
class Lineage:
    """`incarnation` is that of the server, with the disk that the export is; None: it knows nothing of them.
    `unbroken`: it is the disk of the one that it was asked about, and nothing was lost since. `server`: who says so."""

    incarnation: str | None
    unbroken: bool
    server: ServerUser = field(default=ELSEWHERE, compare=False)


async def ask(address: ExportAddress, since: str | None) -> Lineage:
    """Whether anything was lost since an incarnation (None: only which one it is). Unavailable, NotFound, Invalid."""
    queries = [INCARNATION, *([] if since is None else [INCARNATION + since])]
    async with connected(address) as sock, asyncio.timeout(DIAL_SECONDS):
        await greeted(sock)
        server = user_of(sock)
        try:
            await replies_to(sock, wire.OPT_STRUCTURED_REPLY, b"", address.export)
            found = await replies_to(
                sock, wire.OPT_LIST_META_CONTEXT, _question(address.export, queries), address.export
            )
        except Invalid:
            return Lineage(None, False, server)  # a server of another kind
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(sock, wire.OPTION.pack(wire.IHAVEOPT, wire.OPT_ABORT, 0))
    names = [payload[4:].decode(errors="replace") for kind, payload in found if kind == wire.REP_META_CONTEXT]
    ids = [name.removeprefix(INCARNATION) for name in names if name.startswith(INCARNATION)]
    return Lineage(ids[0] if ids else None, since in ids, server)


def disk_of(incarnation: str) -> str:
    """Which disk of its store an incarnation is of."""
    return incarnation.partition("-")[2]


def remember(address: ExportAddress, incarnation: str | None, folder: Path = LOCKS) -> None:
    """Note in which incarnation a device is attached. A crash leaves this or what was noted before."""
    _note(note_path(address, folder, "incarnation"), incarnation or "")


def recall(address: ExportAddress, folder: Path = LOCKS) -> str | None:
    """What `remember` noted last; None: nothing."""
    return _noted(note_path(address, folder, "incarnation"))


def remember_user(address: ExportAddress, uid: int | None, folder: Path = LOCKS) -> None:
    """Note to whose server a device is attached; None: not known. Before it is attached: a crash leaves a note at
    worst."""
    _note(note_path(address, folder, "user"), "" if uid is None else str(uid))


def recall_user(address: ExportAddress, folder: Path = LOCKS) -> int | None:
    """What `remember_user` noted last; None: nothing."""
    noted = _noted(note_path(address, folder, "user")) or ""
    return int(noted) if noted.isdecimal() else None


def _note(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o755, exist_ok=True)
    replace_file(path, text.encode(), 0o644)


def _noted(path: Path) -> str | None:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return file.read(ID_BYTES_MAX).decode(errors="replace") or None
    except FileNotFoundError:
        return None


def _question(export: str, queries: list[str]) -> bytes:
    words = [export.encode(), *(query.encode() for query in queries)]
    name, *rest = (struct.pack(f">I{len(word)}s", len(word), word) for word in words)
    return name + struct.pack(">I", len(rest)) + b"".join(rest)
