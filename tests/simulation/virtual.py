"""One coroutine in virtual time, for tests of parts that wait: an hour of it costs milliseconds."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, cast

from tests.simulation.loop import VirtualLoop

P = ParamSpec("P")
T = TypeVar("T")

STEPS_MAX = 2_000_000

ENDED_TASKS_KEPT = 512
"""A test with a thousand crashes looks at all tasks in each of them."""


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Whatever it leaves behind is ended; exceptions that nobody looked at are an error."""
    loop = VirtualLoop(steps_max=STEPS_MAX, tasks_kept=ENDED_TASKS_KEPT)
    try:
        result = loop.run(work)
        assert not loop.complaints, loop.complaints
    finally:
        loop.wind_up()
    # None of the loop's own would mean that it was stopped, which nothing here does.
    return cast(T, result)


def virtually(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test that runs in virtual time. What its fixtures make must not need a loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        in_virtual_time(test(*args, **kwargs))

    return run
