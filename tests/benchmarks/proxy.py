"""A proxy in front of a store that is slow as a link is slow: by a delay, by a rate, or by both."""

import asyncio
import threading

from tests.support.processes import unused_port

CHUNK_BYTES = 1 << 16


class SlowProxy:
    """Passes TCP on to a port. The first bytes of each request wait `delay_seconds`; requests of all connections
    together pass at `rate` bytes a second. A request begins when the answer before it has begun, which holds for HTTP
    without pipelining."""

    def __init__(self, target: int, *, delay_seconds: float = 0.0, rate: float | None = None) -> None:
        self.port = unused_port()
        self.rate = rate
        self.passed = 0
        """Bytes of requests that have gone on to the port."""
        self._delay_seconds = delay_seconds
        self._target = target
        self._free = 0.0
        """When the link has sent all that it was given."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._over = asyncio.Event()

    def __enter__(self) -> "SlowProxy":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # ends what still runs when it is left
            runner.run(self._listen())

    async def _listen(self) -> None:
        async with await asyncio.start_server(self._serve, "127.0.0.1", self.port):
            self._ready.set()
            await self._over.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                await self._pass_on(reader, writer, to_reader, to_writer)
            finally:
                to_writer.transport.abort()
        except asyncio.CancelledError:
            pass  # that is how the proxy ends
        finally:
            writer.transport.abort()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        to_reader: asyncio.StreamReader,
        to_writer: asyncio.StreamWriter,
    ) -> None:
        """Until both sides have ended."""
        fresh = True

        async def requests() -> None:
            nonlocal fresh
            while data := await reader.read(CHUNK_BYTES if self.rate else 1 << 20):
                if fresh:
                    await asyncio.sleep(self._delay_seconds)
                    fresh = False
                await self._take_turn(len(data))
                to_writer.write(data)
                self.passed += len(data)
                await to_writer.drain()
            to_writer.close()
            await to_writer.wait_closed()

        async def answers() -> None:
            nonlocal fresh
            while data := await to_reader.read(1 << 20):
                fresh = True
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        await asyncio.gather(requests(), answers(), return_exceptions=True)

    async def _take_turn(self, count: int) -> None:
        if self.rate is not None:
            now = self._loop.time()
            self._free = max(self._free, now) + count / self.rate
            await asyncio.sleep(self._free - now)
