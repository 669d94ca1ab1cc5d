"""The TCP port for Prometheus: GET /metrics and nothing else, for everybody who reaches it.

There is nothing to log in with, and nothing secret in it: names of devices, numbers, where the store is.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web

from nbdserver.web_port import WebPort

Text = Callable[[], Awaitable[bytes]]


class MetricsListener:
    """One port; `text` gives what it answers with."""

    def __init__(self, text: Text, content_type: str) -> None:
        self._text = text
        self._content_type = content_type
        self._port: WebPort | None = None

    async def listen(self, host: str, port: int) -> None:
        """Conflict, AccessDenied, Invalid: that is not possible there."""
        app = web.Application()
        app.router.add_get("/metrics", self.answer)
        opened = WebPort(app)
        await opened.listen(host, port)
        self._port = opened

    async def stop(self) -> None:
        """Listen no more."""
        if self._port is not None:
            await self._port.stop()
            self._port = None

    async def answer(self, _: web.Request) -> web.Response:
        """Also of the admin API."""
        return web.Response(body=await self._text(), headers={"Content-Type": self._content_type})
