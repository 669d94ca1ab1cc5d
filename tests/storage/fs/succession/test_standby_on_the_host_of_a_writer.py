"""Who stands by on the writer's own host goes by its lock: as long as that is held, the store is nobody else's."""

import asyncio
from collections.abc import Iterator
from typing import Literal, cast

import pytest

from storage.format.sign import Word
from storage.fs.succession.standby import REREAD_SECONDS, Standby
from storage.lsm.recovery.anchor import HostState
from storage.lsm.recovery.locks import LockHolder
from tests.storage.fs.succession.pair import World, play


class HostWithLock:
    """What a host knows of the writer: whether it is one of its processes, and lives."""

    def __init__(self) -> None:
        self.state: Literal["gone", "held", "elsewhere"] = "held"
        self.asked: list[int] = []

    def load(self) -> object:
        return self

    def holder(self, epoch: int, tag: bytes) -> LockHolder:
        self.asked.append(epoch)
        return LockHolder(self.state, 77 if self.state == "held" else None)


@pytest.fixture
def host() -> HostWithLock:
    return HostWithLock()


@pytest.fixture
def world(host: HostWithLock) -> Iterator[World]:
    made = World()
    made.standby = Standby(made.patient("b"), made.key, made.env, cast(HostState, host))
    yield made
    made.end()


def test_one_that_lives_is_left_alone_however_silent(world: World, host: HostWithLock) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        world.writer.kill()  # to its signs that is the same as if it stood still
        await world.nobody_comes(turn, 600)
        status = world.standby.status()
        assert (status.basis, status.writer_pid, status.patience_seconds) == ("lock", 77, None)
        host.state = "gone"
        began = world.loop.time()
        assert (await turn).why == "ended"
        assert world.loop.time() - began < 1.0, "it needs no silence"

    play(world, scene())


def test_one_that_began_here_meanwhile_is_left_alone(world: World, host: HostWithLock) -> None:
    """The lock is looked at last, behind all other evidence."""

    async def scene() -> None:
        host.state = "elsewhere"
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        asked = len(host.asked)
        host.state = "held"
        world.writer.kill()
        await world.nobody_comes(turn, 600)
        assert len(host.asked) > asked
        assert world.standby.status().basis == "lock"

    play(world, scene())


@pytest.mark.parametrize(("word", "least", "most"), [(Word.HANDS_OVER, 0.0, 1.5), (Word.COMES_BACK, 29.0, 33.0)])
def test_a_store_that_was_closed_is_left_to_its_successor(
    world: World, host: HostWithLock, word: Word, least: float, most: float
) -> None:
    """The lock of a writer that is restarted is free for a while: who stands by takes nothing from its successor."""

    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        await world.loop.spawn(world.writer, world.signs.say(word))
        await world.commit(closed=True)
        await world.signs.stop()
        began = world.loop.time()
        host.state = "gone"
        assert (await turn).why == "closed"
        assert least <= world.loop.time() - began <= most

    play(world, scene())


def test_one_whose_store_was_taken_from_elsewhere_is_the_writer_no_more(world: World, host: HostWithLock) -> None:
    """It holds its lock and does not know it yet; what counts is whoever has the store now."""

    async def scene() -> None:
        await world.begin(signs=False)
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        await world.begin(signs=False)
        await asyncio.sleep(REREAD_SECONDS + 5)
        assert world.standby.status().epoch == 2
        assert host.asked[-1] == 2
        assert not turn.done()

    play(world, scene())
