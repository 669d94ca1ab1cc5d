"""One coroutine in virtual time, for tests of parts that wait: an hour of it costs milliseconds."""

from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from tests.simulation.loop import VirtualLoop

T = TypeVar("T")

STEPS_MAX = 2_000_000


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Whatever it leaves behind is ended; exceptions that nobody looked at are an error."""
    loop = VirtualLoop(steps_max=STEPS_MAX)
    try:
        result = loop.run(work)
        assert not loop.complaints, loop.complaints
    finally:
        loop.wind_up()
    # None of the loop's own would mean that it was stopped, which nothing here does.
    return cast(T, result)
