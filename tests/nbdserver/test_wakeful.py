"""Staying awake: for a moment after a request, and not where others need the processor."""

import asyncio

from nbdserver.wakeful import PREEMPTIONS_MAX, REST_SECONDS, TURNS, WATCH_SECONDS, Wakeful


async def test_it_stays_for_so_many_turns() -> None:
    wakeful = Wakeful()
    wakeful.stay(1.0)
    for _ in range(TURNS // 2):
        await asyncio.sleep(0)
    assert wakeful._left == TURNS - TURNS // 2
    wakeful.stay(1.0)
    assert wakeful._left == TURNS
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert wakeful._left == 0


async def test_it_rests_while_others_need_the_processor() -> None:
    counts = iter([100, 100 + PREEMPTIONS_MAX - 1, 200, 900])
    wakeful = Wakeful(lambda: next(counts))

    def awake_at(now: float) -> bool:
        wakeful._left = 0
        wakeful.stay(now)
        return wakeful._left > 0

    assert awake_at(10.0)  # the first look has nothing to compare with
    assert awake_at(10.0 + 1.1 * WATCH_SECONDS)  # a few preemptions are nothing
    assert awake_at(10.0 + 1.5 * WATCH_SECONDS)
    rest = 10.0 + 2.2 * WATCH_SECONDS
    wakeful.stay(rest)  # sees many
    assert not awake_at(rest + WATCH_SECONDS)
    assert not awake_at(rest + 0.99 * REST_SECONDS)
    assert awake_at(rest + 1.01 * REST_SECONDS)  # a look long after the last one says nothing of now
