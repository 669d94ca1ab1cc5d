"""A virtual-time event loop, and the simulated processes that live in it.

Nothing here waits: when no callback is ready, the clock jumps to the next timer; a callback itself may take a little
time. Callbacks run in the order in which they became ready, as in asyncio, so one seed gives one run.

Every callback carries the context it was made in, and the context says to which `Process` it belongs. So a process can
be stalled (its callbacks wait) or killed (they are dropped) between any two steps, which is exactly what a crash at any
await is: no `finally` runs, no task is cancelled, requests under way may still land.
"""

import asyncio
import contextvars
import heapq
import math
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

if TYPE_CHECKING:
    # What typeshed says of a loop that can be made; nothing of that one is used.
    Loop = asyncio.BaseEventLoop
else:
    Loop = asyncio.AbstractEventLoop

PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)
"""The process a callback belongs to; None for the world outside."""

TASKS_KEPT = 1 << 16
"""Of so many, and as many as live, all are remembered: no world of the simulation has as many."""


class Stuck(Exception):
    """Nothing can happen any more, or too much happened without an end."""


class Process:
    """One simulated process on a host. `crash_at` is the number of steps after which it is gone."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.alive = True
        self.stalled = False
        self.steps = 0
        self.crash_at: int | None = None
        self.parked: list[asyncio.Handle] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)

    def kill(self) -> None:
        """From now on nothing of it runs."""
        self.alive = False

    def __repr__(self) -> str:
        return self.name


class NumberedTask(asyncio.Task[T]):
    """A task whose place in a set does not depend on where it lies in memory: what ends several (a group of tasks, one
    of which failed) ends them in the order of a set.
    """

    def __init__(self, coro: Coroutine[Any, Any, T] | Generator[Any, None, T], number: int, **how: Any) -> None:
        self._number = number
        super().__init__(coro, **how)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(Loop):
    """The loop. `stopped` ends a run from within: a violation was found."""

    def __init__(self, *, steps_max: int, step_seconds: float = 0.0, tasks_kept: int = TASKS_KEPT) -> None:
        self._now = 1000.0
        self._step_seconds = step_seconds
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.Handle]] = []
        self._order = 0
        self._made = 0
        self._steps_left = steps_max
        self._tasks: list[asyncio.Task[Any]] = []
        self._tasks_more = tasks_kept
        """Beside those that live."""
        self._tasks_kept = tasks_kept
        self._dropped: list[asyncio.Handle] = []
        """Steps of dead processes: kept, so that their tasks can be ended properly when all is over."""
        self.stopped = False
        self.every: tuple[int, Callable[[], None]] | None = None
        """(number, what to call after each so many steps of processes)."""
        self.complaints: list[str] = []
        """What was reported to the exception handler: exceptions that nobody looked at."""

    # --- what asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is skipped when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        self._made += 1
        own_name = None if name is None else str(name)
        task: asyncio.Task[T] = NumberedTask(coro, self._made, loop=self, name=own_name, context=context)
        if len(self._tasks) >= self._tasks_kept:
            # In months of virtual time those that have ended are what takes the memory, with their results.
            self._tasks = [task for task in self._tasks if not task.done() or task._exception is not None]
            self._tasks_kept = 2 * len(self._tasks) + self._tasks_more
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.complaints.append(f"{context.get('message')}: {type(error).__name__}: {error}")

    # --- what a world asks

    def spawn(self, process: Process | None, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task in a process (None: in the world outside)."""
        context = contextvars.Context() if process is None else process.context.copy()
        task: asyncio.Task[T] = self.create_task(work, context=context)
        return task

    def outside(self, delay: float, callback: Callable[..., object], *args: object) -> None:
        """Call something after `delay` that no crash of a process can stop."""
        self.call_at(self._now + delay, callback, *args, context=contextvars.Context())

    def until_something(self, look: float, end: float) -> float:
        """The first multiple of `look`, in seconds, after which something may have happened, or it is `end`: to look at
        a world while nothing happens would be most of what happens.
        """
        until = min(self._timers[0][0], end) if self._timers and not self._ready else self._now
        return look * max(math.ceil((until - self._now) / look), 1)

    def resume(self, process: Process) -> None:
        """A stalled process goes on where it was."""
        process.stalled = False
        self._ready.extend(process.parked)
        process.parked.clear()

    def run(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Run until `work`, a task of the world outside, is done; None if the loop was stopped before.

        May be called inside a callback of another loop: a world within a world.
        """
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            task = self.spawn(None, work)
            while not task.done() and not self.stopped:
                self._step()
            return task.result() if task.done() else None
        finally:
            asyncio._set_running_loop(outer)

    def _step(self) -> None:
        timers = self._timers
        if not self._ready and not timers:
            raise Stuck("nothing is left that could happen")
        if not self._ready:
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            self._ready.append(heapq.heappop(timers)[2])
        handle = self._ready.popleft()
        if handle._cancelled:
            return
        process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
        if process is not None:
            if process.crash_at is not None and process.steps >= process.crash_at:
                process.kill()
            if not process.alive:
                self._dropped.append(handle)
                return
            if process.stalled:
                process.parked.append(handle)
                return
            process.steps += 1
        self._steps_left -= 1
        if self._steps_left < 0:
            raise Stuck("steps go on without an end")
        self._now += self._step_seconds
        handle._run()
        if self.every is not None and self._steps_left % self.every[0] == 0:
            self.every[1]()

    def wind_up(self) -> None:
        """End every task properly, those of dead processes too, so that the interpreter has nothing to complain of.

        What happens in here is no part of the world any more.
        """
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            self._ready.extend(self._dropped)
            for _ in range(20):
                # Tasks started meanwhile are appended, so this goes over them too.
                pending = [task for task in self._tasks if not task.done()]
                if not pending:
                    break
                for task in pending:
                    task.cancel()
                while self._ready:
                    handle = self._ready.popleft()
                    if not handle._cancelled:
                        handle._run()
            for task in self._tasks:
                if task.done() and not task.cancelled():
                    task.exception()
                task._log_destroy_pending = False  # type: ignore[attr-defined]
        finally:
            asyncio._set_running_loop(outer)
