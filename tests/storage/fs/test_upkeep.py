"""What a writer does by itself, changed while it does it."""

import asyncio

import pytest

from storage.fs.upkeep import Upkeep


class Begun:
    """What was begun, in order, and by which tasks."""

    def __init__(self) -> None:
        self.what: list[object] = []
        self.tasks: list[asyncio.Task[None]] = []

    def __call__(self, what: object) -> "asyncio.Task[None]":
        self.what.append(what)
        self.tasks.append(asyncio.get_running_loop().create_task(asyncio.sleep(3600)))
        return self.tasks[-1]

    async def running(self) -> list[bool]:
        await asyncio.sleep(0)
        return [not task.done() for task in self.tasks]


@pytest.fixture
def schedule() -> Begun:
    return Begun()


@pytest.fixture
def scrub() -> Begun:
    return Begun()


async def test_what_changed_is_begun_anew_and_the_rest_goes_on(schedule: Begun, scrub: Begun) -> None:
    upkeep = Upkeep(schedule, scrub)
    upkeep.begin({"hourly": 2}, 10.0)
    upkeep.change({"hourly": 2}, 10.0)
    assert (schedule.what, scrub.what) == ([{"hourly": 2}], [10.0])
    upkeep.change({"daily": 1}, 10.0)
    upkeep.change({"daily": 1}, 20.0)
    assert (schedule.what, scrub.what) == ([{"hourly": 2}, {"daily": 1}], [10.0, 20.0])
    assert [await schedule.running(), await scrub.running()] == [[False, True], [False, True]]


async def test_without_a_schedule_or_a_period_nothing_goes_on(schedule: Begun, scrub: Begun) -> None:
    upkeep = Upkeep(schedule, scrub)
    upkeep.begin({"hourly": 2}, 10.0)
    upkeep.change({}, None)
    assert [await schedule.running(), await scrub.running()] == [[False], [False]]
    upkeep.change({"hourly": 2}, 10.0)
    assert [await schedule.running(), await scrub.running()] == [[False, True], [False, True]]


async def test_who_does_not_write_the_store_does_nothing(schedule: Begun, scrub: Begun) -> None:
    Upkeep(schedule, scrub).change({"hourly": 2}, 10.0)
    assert not schedule.what
    assert not scrub.what
