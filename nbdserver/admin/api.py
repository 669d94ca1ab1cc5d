"""The admin API of a running server: HTTP over a Unix socket that only its user can open.

    GET  /metrics                 metrics for Prometheus (see `metrics`)
    GET  /v1/process              how this server was started, and where it listens
    GET  /v1/dashboard            where its dashboard is, and the tokens for it
    POST /v1/stop                 end, as by SIGTERM; again and again it is the same stop, and answered when it is over
    GET  /v1/status               what is served, to whom, and how the store is doing
    POST /v1/operations           one operation as JSON (see `operations`); its answer, of a server that follows another
                                  one with `view`: how old what is shown is
    GET  /v1/check                check the store, as lines of JSON (see `checking`); with ?read_data=1 all data too, at
                                  ?rate=BYTES a second, and ?resume=1 goes on where the last run was cut short
    GET  /v1/content/NAME         the content of a device, as frames (see `content_frames`); its size in X-Device-Size
    PUT  /v1/content/NAME         fill a device with frames; with ?size=BYTES one that is not there is made, with
                                  ?overwrite=1 data that is there is replaced
    GET  /v1/stream/NAME@SNAPSHOT a snapshot as a stream (see `snapshot_stream`), or with ?since=SNAPSHOT what changed
    PUT  /v1/stream/NAME          make of a device what a stream holds

An error is answered with status 422 and an `error_transfer.Failure`.
"""

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import StreamReader, web

from nbdserver import __version__, unix_sockets
from nbdserver.admin.asked import NO_CLIENTS, RELEASED, Answer, Clients
from nbdserver.admin.checking import Line, last_line, watched
from nbdserver.admin.content_frames import (
    FRAME_HEADER,
    Decoder,
    Piece,
    SenderFailed,
    TooLong,
    Truncated,
    encode,
    encode_end,
    encode_failure,
)
from nbdserver.admin.error_transfer import Failure, from_error
from nbdserver.admin.operations import decode_operation
from nbdserver.admin.own_socket import OwnSocket
from nbdserver.admin.snapshot_stream import SourceFailed, StreamEncoder
from nbdserver.admin.snapshot_transfer import READER, receive, send
from nbdserver.admin.transfer import dump, import_device
from storage import CheckOptions, Device, Store
from storage.check.read_run import CheckProgress
from storage.errors import AccessDenied, Conflict, Invalid, StorageError, Unavailable
from storage.fs.check import READ_RATE
from storage.trusted_files import trusted_users
from storage.units import MIB

logger = logging.getLogger("nbdserver")

API_STOP_SECONDS = 1.0
"""How long a request may go on once the server stops: a transfer is not waited for."""

STATUS_OF_ERROR = 422
"""Of the answer to every request that could not be done; what it means is in the body."""

STATUS_PATH = "/v1/status"
PROCESS_PATH, STOP_PATH = "/v1/process", "/v1/stop"
ALWAYS_ANSWERED = (STATUS_PATH, PROCESS_PATH, STOP_PATH)
"""Also while the server stops."""

SIZE_HEADER = "X-Device-Size"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """The admin API on its socket."""

    def __init__(
        self,
        newest: Callable[[], Store],
        serving: Callable[[], Answer],
        clients: Clients = NO_CLIENTS,
        *,
        process: Callable[[], Answer] = dict,
        stop: Callable[[], None] | None = None,
        metrics: Handler | None = None,
        dashboard: Callable[[], Answer] = dict,
        describe: Callable[[], Answer] | None = None,
    ) -> None:
        """`newest` gives the store that is asked about; of one that is followed, the newest view. `serving` tells what
        the server serves and to whom, for the status; `clients` are those of the server; `process` tells how it was
        started; `stop` has the server end, however often it is called. `describe` is the whole status of a server that
        has no store.
        """
        self._newest = newest
        self._clients = clients
        self._serving = serving
        self._process = process
        self._stop_server = stop
        self._metrics = metrics
        self._dashboard = dashboard
        self._describe = describe
        self._runner: web.AppRunner | None = None
        self._socket: OwnSocket | None = None
        self._stopping = False
        self._ended, self._word = asyncio.Event(), b""
        self._busy: set[asyncio.Task[Any]] = set()
        """Requests under way, but for the status."""

    async def start(self, path: Path) -> None:
        """Listen at `path`, as `OwnSocket.open` does, and be found there from now on."""
        app = web.Application(middlewares=[_explain, _ask_who, self._admit], client_max_size=MIB)
        app.router.add_get(STATUS_PATH, self._status)
        app.router.add_get(PROCESS_PATH, self._started)
        app.router.add_get("/v1/dashboard", self._show_dashboard)
        app.router.add_post(STOP_PATH, self._stop)
        if self._metrics is not None:
            app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/operations", self._operation)
        app.router.add_get("/v1/check", self._check)
        app.router.add_get("/v1/content/{name:.+}", self._read_content)
        app.router.add_put("/v1/content/{name:.+}", self._write_content)
        app.router.add_get("/v1/stream/{name:.+}", self._read_stream)
        app.router.add_put("/v1/stream/{name:.+}", self._write_stream)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=API_STOP_SECONDS,
            handler_cancellation=True,
            lingering_time=0,
        )
        await self._runner.setup()
        self._socket = OwnSocket(self._runner)
        await self._socket.open(path)

    async def quiesce(self) -> None:
        """Answer nothing but what is always answered from now on. Requests under way have API_STOP_SECONDS: what was
        not finished then was not acknowledged, as if the command had been interrupted.
        """
        self._stopping = True
        busy = set(self._busy)
        if busy:
            _, late = await asyncio.wait(busy, timeout=API_STOP_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what comes while the server stops, and know what is under way."""
        task = asyncio.current_task()
        if task is None or request.path in ALWAYS_ANSWERED:
            return await handler(request)
        if self._stopping:
            raise Unavailable("the server of this store is stopping: try again when it has ended")
        self._busy.add(task)
        try:
            return await handler(request)
        finally:
            self._busy.discard(task)

    async def stop(self, *, released: bool = False) -> None:
        """Stop listening, and remove the socket unless another server has put its own there. `released`: all else was
        let go of, which those are told who asked for the end of this server."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None
        self._word = RELEASED if released else b""
        self._ended.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _status(self, _: web.Request) -> web.Response:
        if self._describe is not None:
            return _json(self._describe())
        store = self._newest()
        await store.count_usage()
        about = {"version": __version__, "pid": os.getpid()}
        return _json({**about, **self._serving(), "store": store.status()})

    async def _started(self, _: web.Request) -> web.Response:
        return _json(self._process())

    async def _show_dashboard(self, _: web.Request) -> web.Response:
        return _json(self._dashboard())

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        if self._stop_server is None:
            raise Conflict("this server is not one that a command can end")
        self._stop_server()
        await (response := web.StreamResponse()).prepare(request)
        await self._ended.wait()
        await response.write(self._word)
        return response

    async def _operation(self, request: web.Request) -> web.Response:
        try:
            operation = decode_operation(await request.read())
        except msgspec.MsgspecError as error:
            raise Invalid(f"the server does not know this operation: {error}") from error
        store = self._newest()
        view = store.view()  # before the answer: it is no older than this says
        answer = await operation.perform(store, self._clients)
        if view is not None:
            answer["view"] = msgspec.to_builtins(view)
        if operation.writes:
            logger.info("operation_done", extra={"operation": type(operation).__name__})
        return _json(answer)

    async def _check(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        try:
            rate = float(query.get("rate", READ_RATE))
            if not 0 <= rate < math.inf:  # nan is no number either
                raise ValueError(rate)
        except ValueError as error:
            raise Invalid(f"{query['rate']!r} is no number of bytes a second") from error
        options = CheckOptions(query.get("read_data") == "1", rate, query.get("resume") == "1")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.enable_chunked_encoding()
        await response.prepare(request)

        async def tell(line: Line) -> None:
            await response.write(line.encode())

        progress = CheckProgress()
        line = await last_line(watched(self._newest().check(options, progress), progress, tell))
        await response.write(line.encode())
        await response.write_eof()
        return response

    async def _read_content(self, request: web.Request) -> web.StreamResponse:
        name, _, snapshot = request.match_info["name"].partition("@")
        store = self._newest()
        with contextlib.ExitStack() as kept:
            if snapshot:
                kept.enter_context(store.snapshots.reading(name, snapshot, READER))
            return await self._send_content(request, store.device(request.match_info["name"]))

    async def _send_content(self, request: web.Request, device: Device) -> web.StreamResponse:
        size = device.size
        response = web.StreamResponse(headers={SIZE_HEADER: str(size)})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async with contextlib.aclosing(dump(device, size)) as pieces:
                async for offset, data in pieces:
                    await response.write(encode(offset, data))
            await response.write(encode_end(size))
        except StorageError as error:
            logger.warning("device_not_read", extra={"device": request.match_info["name"], "reason": str(error)})
            await response.write(encode_failure(msgspec.json.encode(from_error(error))))
        await response.write_eof()
        return response

    async def _read_stream(self, request: web.Request) -> web.StreamResponse:
        device, _, snapshot = request.match_info["name"].partition("@")
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        encoder = StreamEncoder()
        try:
            async with contextlib.aclosing(
                send(self._newest(), device, snapshot, request.query.get("since"), encoder)
            ) as parts:
                async for part in parts:
                    if not response.prepared:
                        await response.prepare(request)
                    await response.write(part)
        except StorageError as error:
            if not response.prepared:
                raise
            logger.warning("snapshot_not_read", extra={"snapshot": request.match_info["name"], "reason": str(error)})
            await response.write(encoder.failure(msgspec.json.encode(from_error(error))))
        await response.write_eof()
        return response

    async def _write_stream(self, request: web.Request) -> web.Response:
        return _json(await receive(self._newest(), request.match_info["name"], request.content.iter_any()))

    async def _write_content(self, request: web.Request) -> web.Response:
        size = request.query.get("size")
        filled = await import_device(
            self._newest(),
            request.match_info["name"],
            lambda room: _received(request.content, room),
            size=None if size is None else int(size),
            overwrite=request.query.get("overwrite") == "1",
        )
        return _json(filled)


async def _received(content: StreamReader, size: int) -> AsyncIterator[Piece]:
    decoder = Decoder(size)
    while True:
        header = await _read_exactly(content, FRAME_HEADER.size)
        length = decoder.body_length(header)
        if not length:
            return
        yield decoder.piece(header, await _read_exactly(content, length))


async def _read_exactly(content: StreamReader, count: int) -> bytes:
    """Fewer bytes only where the stream ends."""
    try:
        return await content.readexactly(count)
    except asyncio.IncompleteReadError as error:
        return error.partial


@web.middleware
async def _explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer an error with its kind and its sentence."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except StorageError as error:
        return _json(msgspec.to_builtins(from_error(error)), status=STATUS_OF_ERROR)
    except TooLong as error:
        return _json(msgspec.to_builtins(from_error(Conflict(str(error)))), status=STATUS_OF_ERROR)
    except (Truncated, SenderFailed, SourceFailed) as error:
        return _json(msgspec.to_builtins(from_error(Invalid(str(error)))), status=STATUS_OF_ERROR)
    except Exception:
        logger.exception("admin_request_failed", extra={"path": request.path})
        failure = Failure("StorageError", "the server met an error of its own; its log says more")
        return _json(msgspec.to_builtins(failure), status=STATUS_OF_ERROR)


@web.middleware
async def _ask_who(request: web.Request, handler: Handler) -> web.StreamResponse:
    """AccessDenied for everybody but this user and root, should the mode of the socket ever have let him in."""
    sock = None if request.transport is None else request.transport.get_extra_info("socket")
    if sock is None:
        raise AccessDenied("you are gone already")
    pid, uid = unix_sockets.peer(sock)
    if uid not in trusted_users():
        logger.warning("admin_client_refused", extra={"pid": pid, "uid": uid})
        raise AccessDenied(f"this server answers its own user and root, not user {uid}")
    return await handler(request)


def _json(answer: Answer, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type="application/json")
