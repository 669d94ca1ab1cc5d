"""What a round of a replication asks of a store: snapshots that are not needed any more go together."""

import asyncio

import pytest

from nbdserver.admin.replica_operations import SETTLE_SECONDS, DeleteUnneeded, FindHeld, ShowHistory
from storage.errors import Conflict
from storage.fs.store import Store
from tests.storage.fs.places import nothing
from tests.storage.fs.snapshots import test_clearing
from tests.storage.fs.snapshots.test_clearing import Clock, names
from tests.support.inside import engine_of


def test_what_is_not_needed_any_more_is_one_commit() -> None:
    async def work(store: Store, env: Clock) -> None:
        for name in ("one", "two", "three", "four"):
            await store.snapshots.create(["a"], name)
        await store.maintenance.flush()
        before = engine_of(store).manifests.number
        with store.snapshots.reading("a", "two", "a test"):
            asked = DeleteUnneeded("a", ["three", "none", "two", "one"])
            assert await asked.perform(store) == {"deleted": ["three", "one"]}
        await store.maintenance.flush()
        assert engine_of(store).manifests.number == before + 1
        assert names(store) == ["two", "four"]
        assert await DeleteUnneeded("none", ["one"]).perform(store) == {"deleted": []}

    test_clearing.live(work)


def test_what_is_being_filled_is_waited_for_a_while() -> None:
    """What is half filled holds nothing that could be gone on from; an import that was cut short is undone soon."""

    async def work(store: Store, env: Clock) -> None:
        await store.snapshots.create(["a"], "one")
        asked = (ShowHistory("a"), FindHeld("a", ["one"]))
        async with store.filling.over("a", "an import", nothing):
            for each in asked:
                with pytest.raises(Conflict, match="'a' is in use by an import: wait for its end"):
                    await each.perform(store)
            answers = [asyncio.ensure_future(each.perform(store)) for each in asked]
            await asyncio.sleep(SETTLE_SECONDS / 2)
            assert not any(answer.done() for answer in answers)
        history, held = await asyncio.gather(*answers)
        assert [one["name"] for one in history["snapshots"]] == ["one"]
        assert held == {"snapshot": "one"}

    test_clearing.live(work)
