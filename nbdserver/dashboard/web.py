"""The dashboard on its TCP port.

    GET  /                   the page; /assets/NAME what belongs to it. Nothing of the server is in these.
    GET  /v1/about           the list of figures with their formulas
    GET  /v1/events          samples as server-sent events, one a second
    GET  /v1/curves          two hours in steps of ten seconds, with ?after=NEWEST of an earlier answer those behind it
    GET  /v1/map/NAME        the map of a device in ?cells=N, with ?since=SNAPSHOT what changed since that
    POST /v1/operations      one of DEEDS, as the admin API takes it, and its answer

Who may ask is `web_guard`'s matter. An error is answered with status 422, as by the admin API.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Collection

import msgspec
from aiohttp import web

from nbdserver.admin.asked import Answer, Clients
from nbdserver.admin.error_transfer import from_error
from nbdserver.admin.operations import (
    CreateDevice,
    DeleteDevice,
    Flush,
    Operation,
    RenameDevice,
    ResizeDevice,
    decode_operation,
)
from nbdserver.admin.snapshot_operations import CloneDevice, CreateSnapshot, DeleteSnapshot
from nbdserver.dashboard.access_tokens import AccessTokens
from nbdserver.dashboard.curves import Curves
from nbdserver.dashboard.page_files import PAGE, page_files
from nbdserver.dashboard.samples import Sampler, about
from nbdserver.dashboard.web_guard import HEADERS, WebGuard
from nbdserver.web_port import WebPort
from storage import Store
from storage.errors import Invalid, StorageError, Unavailable

logger = logging.getLogger("nbdserver")

DEEDS = (CreateDevice, ResizeDevice, RenameDevice, DeleteDevice, CloneDevice, CreateSnapshot, DeleteSnapshot, Flush)
"""What may be done from a browser. Passwords, and what throws clients out, are for those who have the socket."""

SECONDS_BETWEEN_SAMPLES = 1.0
SAMPLING_SHARE = 0.02
"""Of the event loop: of a store with very many devices samples come more seldom."""

SECONDS_BETWEEN_SAMPLES_MAX = 3.0
"""After five the page takes the server for silent."""

STREAMS_MAX = 16
STREAM_SECONDS_MAX = 30.0
"""A page that takes nothing for so long is given up: its computer sleeps, and it asks again when it wakes."""

DEED_SECONDS = 1.0
"""What is under way may take so long once the server stops."""

BODY_BYTES_MAX = 64 << 10
NOT_DONE = 422


class Dashboard:
    """The dashboard of one server. Owned by the event loop."""

    def __init__(
        self,
        newest: Callable[[], Store],
        clients: Clients,
        sampler: Sampler,
        curves: Curves,
        tokens: AccessTokens,
        *,
        hosts: Collection[str],
        context: ssl.SSLContext | None,
    ) -> None:
        """`hosts`: further names under which it may be asked; with a `context` it speaks TLS."""
        self.tokens = tokens
        self._newest = newest
        self._clients = clients
        self._sampler = sampler
        self._curves = curves
        self._looking: asyncio.Task[None] | None = None
        self._hosts = hosts
        self._context = context
        self._files = page_files()
        self._port: WebPort | None = None
        self._guard = WebGuard(tokens, hosts)
        self._latest: bytes | None = None
        self._sampled = asyncio.Condition()
        self._sampling: asyncio.Task[None] | None = None
        self._streams: set[asyncio.Task[object]] = set()
        self._stopping = self._quiet = False
        self._deeds: set[asyncio.Task[Answer]] = set()
        self.url = ""
        """Where it listens, once it does."""

    async def listen(self, host: str, port: int) -> None:
        """Conflict, AccessDenied, Invalid: that is not possible there."""
        self._guard = WebGuard(self.tokens, {*self._hosts, host, "localhost"})
        app = web.Application(middlewares=[self._guard.check], client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/", self._page)
        app.router.add_get("/assets/{name}", self._asset)
        app.router.add_get("/v1/about", self._about)
        app.router.add_get("/v1/curves", self._two_hours)
        app.router.add_get("/v1/events", self._events, allow_head=False)
        app.router.add_get("/v1/map/{name:.+}", self._map)
        app.router.add_post("/v1/operations", self._operation)
        opened = WebPort(app, context=self._context, handler_cancellation=True)
        bound = await opened.listen(host, port)
        self._port = opened
        self._looking = asyncio.create_task(self._curves.run())
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if self._context is None else 'https'}://{shown}:{bound}/"

    async def quiesce(self) -> None:
        """Do nothing for anybody from now on, and only show; as `Admin.quiesce`."""
        self._quiet = True
        if self._deeds:
            _, late = await asyncio.wait(self._deeds, timeout=DEED_SECONDS)
            for deed in late:
                deed.cancel()
            if late:
                await asyncio.wait(late)

    async def stop(self) -> None:
        """Listen no more, and end all streams."""
        self._stopping = True
        await self._sampler.stop()
        for task in (self._sampling, self._looking):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        for stream in list(self._streams):
            stream.cancel()
        if self._port is not None:
            await self._port.stop()
            self._port = None

    async def _page(self, _: web.Request) -> web.Response:
        return self._file(PAGE)

    async def _asset(self, request: web.Request) -> web.Response:
        return self._file(request.match_info["name"])

    def _file(self, name: str) -> web.Response:
        found = self._files.get(name)
        if found is None:
            raise web.HTTPNotFound
        return web.Response(body=found.content, headers={"Content-Type": found.content_type})

    async def _about(self, request: web.Request) -> web.Response:
        return _json({**about(), "access": self._guard.access_of(request)})

    async def _map(self, request: web.Request) -> web.Response:
        try:
            cells = int(request.query.get("cells", "512"))
        except ValueError:
            return _failed(Invalid("the number of cells is a number"))
        try:
            found = await self._newest().pictures.device_map(
                request.match_info["name"], cells, request.query.get("since") or None
            )
        except StorageError as error:
            return _failed(error)
        return _json(msgspec.to_builtins(found))

    async def _operation(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return _failed(Invalid("an operation is JSON"), status=415)
        try:
            operation: Operation = decode_operation(await request.read())
        except (msgspec.MsgspecError, ValueError) as error:
            return _failed(Invalid(f"the server does not know this operation: {error}"))
        if not isinstance(operation, DEEDS):
            return _failed(
                Invalid(f"{type(operation).__name__} is not done from a browser: use the command"), status=403
            )
        if self._quiet:
            return _failed(Unavailable("the server of this store is stopping: try again when it has ended"))
        deed = asyncio.create_task(operation.perform(self._newest(), self._clients))
        self._deeds.add(deed)
        deed.add_done_callback(self._deeds.discard)
        try:
            answer = await deed
        except StorageError as error:
            return _failed(error)
        logger.info("operation_done", extra={"operation": type(operation).__name__, "from": str(request.remote)})
        self._sampler.expire()
        return _json(answer)

    async def _two_hours(self, request: web.Request) -> web.Response:
        try:
            after = float(request.query.get("after", 0))
        except ValueError:
            return _failed(Invalid(f"{request.query['after']!r} is not the newest of an earlier answer"))
        return _json(self._curves.after(after))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._stopping or len(self._streams) >= STREAMS_MAX:
            return web.json_response({"message": f"{STREAMS_MAX} pages are open already: close one"}, status=503)
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        task = asyncio.current_task()
        if task is None:
            return response
        self._streams.add(task)
        if self._sampling is None or self._sampling.done():
            self._latest = None
            self._sampling = asyncio.create_task(self._sample())
        try:
            await self._follow(response)
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            pass  # the page was closed, or takes nothing any more, or the server stops
        finally:
            self._streams.discard(task)
        return response

    async def _follow(self, response: web.StreamResponse) -> None:
        """Send each sample; who is too slow for one gets the next."""
        sent: bytes | None = None
        while not self._stopping:
            async with self._sampled:
                await self._sampled.wait_for(lambda: self._latest is not sent)  # noqa: B023
                sent = self._latest
            if sent is not None:
                async with asyncio.timeout(STREAM_SECONDS_MAX):
                    await response.write(b"data: " + sent + b"\n\n")

    async def _sample(self) -> None:
        """Take samples as long as anybody looks."""
        while self._streams:
            taken, took = None, 0.0
            try:
                await self._sampler.count()
                began = asyncio.get_running_loop().time()
                taken = msgspec.json.encode(self._sampler.sample())
                took = asyncio.get_running_loop().time() - began
            except Exception:
                logger.exception("dashboard_sample_failed")
            async with self._sampled:
                self._latest = taken
                self._sampled.notify_all()
            seldom = min(took / SAMPLING_SHARE, SECONDS_BETWEEN_SAMPLES_MAX)
            await asyncio.sleep(max(SECONDS_BETWEEN_SAMPLES - took, seldom))


def _json(answer: Answer) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


def _failed(error: StorageError, *, status: int = NOT_DONE) -> web.Response:
    failure = {**msgspec.to_builtins(from_error(error)), "message": str(error)}
    return web.Response(body=msgspec.json.encode(failure), status=status, content_type="application/json")
