"""The admin socket of this server as a file, which commands find for as long as the server runs.

A file is easily lost: a start that stood still puts its own there and removes it at its end, a login that ends takes
its runtime folder along, a cleaner takes what is old. So who owns the socket looks every few seconds whether it is
there, and makes it anew if nobody listens under its name. A living server's socket is left alone: of two that write
one store, the one that was superseded ends by itself.
"""

import asyncio
import contextlib
import logging
import os
from pathlib import Path

from aiohttp import web

from nbdserver import unix_sockets
from nbdserver.admin.sockets import make_runtime_folder
from storage.errors import Conflict, StorageError

logger = logging.getLogger("nbdserver")

SOCKET_LOOK_SECONDS = 10.0
"""Between two looks. Each is one lstat."""


class OwnSocket:
    """Where an application of aiohttp is asked, under one path."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self._site: web.SockSite | None = None
        self._path = Path()
        self._made: unix_sockets.Identity = (0, 0)
        self._keeper: asyncio.Task[None] | None = None
        self._missed = False

    async def open(self, path: Path) -> None:
        """Listen at `path`. A socket that is there already is replaced: its server is gone or superseded."""
        await self._listen(path, replace=True)
        self._keeper = asyncio.create_task(self._keep())

    async def look(self) -> None:
        """Listen anew if the socket is not there any more, and nobody else listens in its place."""
        with contextlib.suppress(OSError):
            if unix_sockets.identity(self._path) == self._made:
                return
        try:
            await self._listen(self._path, replace=False)
        except Conflict:
            return  # another server of this store; it removes its socket when it ends
        except (StorageError, OSError) as error:
            if not self._missed:
                logger.warning("admin_socket_lost", extra={"path": str(self._path), "error": str(error)})
            self._missed = True
            return
        self._missed = False
        logger.warning("admin_socket_made_anew", extra={"path": str(self._path)})

    async def close(self) -> None:
        """Remove the socket unless another server has put its own there. What is asked already is still answered."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        if self._site is not None:
            unix_sockets.remove(self._path, self._made)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(SOCKET_LOOK_SECONDS)
            await self.look()

    async def _listen(self, path: Path, *, replace: bool) -> None:
        if not path.parent.exists():
            make_runtime_folder(path.parent)
        sock, self._path = unix_sockets.listen(path, str(os.getpid()), replace=replace)
        try:
            self._made = unix_sockets.identity(self._path)
        except OSError:  # it is gone already
            sock.close()
            raise
        before, self._site = self._site, web.SockSite(self._runner, sock, backlog=unix_sockets.BACKLOG)
        await self._site.start()
        if before is not None:
            await before.stop()
