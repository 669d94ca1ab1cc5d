"""The tasks of one client: its READs that memory cannot answer, for as long as the store is asked (`reads`).

The tasks belong to the client: when it goes they end. Each is counted by `admission` from when it is taken until its
reply is ready, with what it makes the server hold (`reads.cost`), which stays counted until it is sent.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial

from nbdserver.block_device import BlockDevice
from nbdserver.protocol import wire
from nbdserver.protocol.replies import Parts, Replies
from nbdserver.server.admission import Admission
from nbdserver.server.operation_trace import OperationTrace, Tracer, TraceSpan
from nbdserver.server.outbox import Outbox
from nbdserver.server.reads import StoreRead, cost
from storage import cancel

logger = logging.getLogger("nbdserver")


class ReadTasks:
    """Those that are under way."""

    def __init__(
        self,
        device: BlockDevice,
        replies: Replies,
        admission: Admission,
        outbox: Outbox,
        tracer: Tracer,
        *,
        fail: Callable[[], None],
    ) -> None:
        """`fail`: something happened that nobody foresaw."""
        self._admission = admission
        self._outbox = outbox
        self._read = partial(StoreRead, device, replies, self._deliver, tracer.waits.read)
        self._tracer = tracer
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], OperationTrace] = {}
        self._unanswered = 0
        """Those that have no reply yet. Not all of the tasks: one is among these until the turn after its reply."""

    def take(self, cookie: bytes, offset: int, length: int, *, dont_fragment: bool) -> bool:
        """Begin one, if there is room for it."""
        trace = self._tracer.begin(cookie, wire.CMD_READ, offset, length, TraceSpan.STORE)
        if not self._admission.has_place(reads=self._unanswered) or not self._admission.take(cost(offset, length)):
            return self._tracer.refused(cookie, trace)
        self._admission.begin()
        self._unanswered += 1
        task = self._loop.create_task(self._answer(self._read(cookie, offset, length, dont_fragment, trace)))
        self._tasks[task] = trace
        task.add_done_callback(self._tasks.pop)
        return True

    def traces(self) -> Iterator[OperationTrace]:
        """Those that are under way, longest first."""
        return iter(self._tasks.values())

    def close(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()

    async def _answer(self, read: StoreRead) -> None:
        try:
            await read.answer()
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and cancel.was_asked_for():
                raise
            logger.exception("read_crashed", extra={"offset": read.offset, "length": read.length})
            self._fail()
            return
        self._outbox.leaves(cost(read.offset, read.length), read.trace)
        self._unanswered -= 1
        self._admission.end()

    def _deliver(self, parts: Parts, length: int) -> None:
        """Replies, with data of `length`."""
        self._outbox.parts += parts
        self._outbox.holds(length)
        self._outbox.send_soon()
