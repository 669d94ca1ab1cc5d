"""A server with TLS on real sockets, and clients of it that know only bytes."""

import asyncio
import ssl
import struct
from pathlib import Path

from nbdserver.protocol import wire
from nbdserver.server.limits import Limits
from nbdserver.server.listener import Listener
from nbdserver.tls import Credentials
from storage.env import RealEnv
from tests.support import messages as m
from tests.support.memory_device import MemoryDevice, memory_exports
from tests.support.nbd import Client
from tests.support.tls_talk import TlsTalk
from tests.support.waiting import until

MIB = 1 << 20
SAID = m.simple()[4:]
"""What a client says that has said its flags."""
GO_ANSWER_BYTES = 20 + 12 + 20
"""INFO_EXPORT and ACK."""
OK = struct.pack(">II", wire.SIMPLE_REPLY_MAGIC, 0)


class Running:
    """A server with TLS over TCP and a Unix socket, with one disk."""

    def __init__(self, folder: Path, work: Path, env: RealEnv, limits: Limits, *, required: bool, verify: bool) -> None:
        self.disk = MemoryDevice(1 << 30)
        self.exports = memory_exports({"disk": self.disk})
        self.credentials = Credentials(folder, verify_peer=verify, env=env)
        self.server = Listener(
            self.exports, limits=limits, env=env, credentials=self.credentials, tls_required=required
        )
        self.talks: list[TlsTalk] = []
        self.path = work / "socket"
        self.address = ("127.0.0.1", 0)

    async def start(self) -> None:
        self.address = await self.server.listen_tcp("127.0.0.1", 0)
        await self.server.listen_unix(self.path)

    async def client(self, context: ssl.SSLContext | None, *, tcp: bool = True) -> Client:
        return await asyncio.to_thread(
            Client, self.address if tcp else self.path, "disk", structured=False, timeout=60, tls=context
        )

    async def talk(self, context: ssl.SSLContext | None = None, *, tcp: bool = True) -> TlsTalk:
        """Attached, if there is a context; otherwise as greeted."""
        talk = await asyncio.to_thread(TlsTalk, self.address if tcp else self.path)
        self.talks.append(talk)
        if context is not None:
            await asyncio.to_thread(talk.secure, context)
            await asyncio.to_thread(talk.send, SAID)
            answer = await asyncio.to_thread(talk.receive, GO_ANSWER_BYTES)
            assert len(answer) == GO_ANSWER_BYTES
        return talk

    async def gone(self) -> None:
        await until(lambda: not self.server.clients())
