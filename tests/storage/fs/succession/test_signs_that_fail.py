"""Signs of life that a store refuses: what is said of them, and that who is refused some is left alone. Time is
virtual.
"""

from collections.abc import Iterator

import pytest

from tests.storage.fs.succession.pair import World, play


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.end()


def test_of_one_sign_that_is_lost_nothing_is_said_and_of_the_second_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 10)
        world.lines["a"].refuses = 1
        await world.nobody_comes(turn, 10)
        assert _said(caplog) == []
        world.lines["a"].refuses = 3
        await world.nobody_comes(turn, 30)

    play(world, scene())
    assert _said(caplog) == ["429"]


def test_a_store_that_takes_one_write_a_second_to_a_name_takes_enough_of_them(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """It refuses each second sign: that is no news, and the writer asks for as much patience as it needs."""

    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        for _ in range(300):
            await world.nobody_comes(turn, 2)
            world.lines["a"].refuses = 1

    play(world, scene())
    assert _said(caplog) == []


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["reason"] for record in caplog.records if record.msg == "sign_not_given"]
