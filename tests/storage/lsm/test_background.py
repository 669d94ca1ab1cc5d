"""Tasks behind an engine: none ends unseen, and none outlives it."""

import asyncio

from storage.lsm.background import Background
from tests.support.waiting import until


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_what_ends_a_task_is_told() -> None:
    told: list[BaseException] = []
    background = Background()

    async def failing() -> None:
        raise ZeroDivisionError

    async def cancelled_by_nobody() -> None:
        raise asyncio.CancelledError

    for work in (failing, cancelled_by_nobody):
        background.start("a task", work, on_failure=told.append)
    await until(lambda: len(told) == 2)
    assert [type(error) for error in told] == [ZeroDivisionError, asyncio.CancelledError]


async def test_its_own_end_and_being_stopped_are_no_failures() -> None:
    told: list[BaseException] = []
    background = Background()

    async def short() -> None:
        pass

    await background.start("short", short, on_failure=told.append)
    task = background.start("long", for_ever, on_failure=told.append)
    assert task.get_name() == "long"
    await asyncio.sleep(0)
    await background.stop()
    assert task.cancelled()
    assert not told


async def test_who_ends_all_is_not_ended_by_that() -> None:
    """A task that fails cancels the others, and goes on to say why."""
    background = Background()
    other = background.start("other", for_ever, on_failure=lambda _: None)
    reached = asyncio.Event()

    async def failing() -> None:
        raise ZeroDivisionError

    def failed(_: BaseException) -> None:
        background.cancel()
        reached.set()

    task = background.start("failing", failing, on_failure=failed)
    await task
    assert reached.is_set()
    assert not task.cancelled()
    await until(other.cancelled)
