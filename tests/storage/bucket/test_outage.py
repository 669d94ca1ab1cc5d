"""What is taken for a store that is away: one that gives nothing at all, and not one that withholds an object."""

import asyncio

import pytest

from storage.bucket.outage import Outage
from storage.errors import Corrupt, StorageError, Unavailable
from tests.storage.lsm.worlds import InlineEnv
from tests.support.idle import idle

AWAY = Unavailable("no answer")


class Store:
    """The witness: it answers when it is told to, with an error or a byte."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: StorageError | None = None
        self.may_answer = asyncio.Event()
        self.env = InlineEnv()
        self.outage = Outage(self.witness, self.env)

    async def witness(self) -> None:
        self.asked += 1
        await self.may_answer.wait()
        if self.answer is not None:
            raise self.answer


@pytest.mark.parametrize(
    ("answer", "gives"), [(None, True), (Corrupt("m", "damaged"), True), (AWAY, False)], ids=["byte", "error", "none"]
)
async def test_one_question_answers_all(answer: StorageError | None, gives: bool) -> None:
    store = Store()
    store.answer = answer
    since = store.env.monotonic()
    asking = [asyncio.ensure_future(store.outage.gives_others(since)) for _ in range(3)]
    await idle()
    store.may_answer.set()
    assert await asyncio.gather(*asking) == [gives] * 3
    assert store.asked == 1


async def test_nobody_is_asked_where_it_gave_something() -> None:
    store = Store()
    since = store.env.monotonic()
    store.outage.gave()
    assert await store.outage.gives_others(since)
    assert store.asked == 0


async def test_a_witness_that_is_withheld_itself_is_no_outage_where_others_come_meanwhile() -> None:
    store = Store()
    store.answer = AWAY
    asking = asyncio.ensure_future(store.outage.gives_others(store.env.monotonic()))
    await idle()
    assert store.asked == 1
    store.outage.gave()
    store.may_answer.set()
    assert await asking
