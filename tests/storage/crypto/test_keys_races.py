"""Changes of passwords that are cut off, race each other, or come late."""

import asyncio

import pytest

from storage.buffers import Buffer
from storage.crypto.data_key import DataKey
from storage.crypto.keys import create, delete_older, keys_name, load
from storage.crypto.keys_change import OldKeysLeft
from storage.crypto.password_slots import change_password
from storage.env import RealEnv
from storage.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    StorageError,
    Unavailable,
    WrongPassword,
)
from storage.objects.base import ObjectInfo
from storage.objects.memory import MemoryStore
from tests.storage.crypto.key_samples import CHEAP, FIRST, NEW, OLD, OTHER, names
from tests.storage.crypto.trapped import Interrupted, Trapped, die

CRASH_POINTS = [
    ("list", "before", 1, OLD),
    ("get", "before", 1, OLD),
    ("create", "before", 1, OLD),
    ("create", "after", 1, NEW),
    ("list", "before", 2, OLD),
    *(("list", "before", nth, NEW) for nth in range(3, 9)),
    ("create", "before", 2, NEW),
    ("create", "after", 2, NEW),
    ("delete", "before", 1, NEW),
    ("delete", "after", 1, NEW),
]


@pytest.mark.parametrize(("method", "when", "nth", "valid"), CRASH_POINTS)
async def test_a_crash_in_a_change_leaves_one_valid_password(
    env: RealEnv, method: str, when: str, nth: int, valid: bytes
) -> None:
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)
    store.trap(method, when, die, nth=nth)
    with pytest.raises(Interrupted):
        await change_password(store, OLD, NEW, env, CHEAP)
    assert store.traps == {}
    number = 1 if valid == OLD else 2
    assert await load(store, valid, env, CHEAP) == (made, number)
    with pytest.raises(WrongPassword):
        await load(store, NEW if valid == OLD else OLD, env, CHEAP)
    await delete_older(store, number)
    assert await names(store) == [keys_name(number)]
    assert await change_password(store, valid, OTHER, env, CHEAP) == number + 1
    assert await names(store) == [keys_name(number + 1)]
    assert await load(store, OTHER, env, CHEAP) == (made, number + 1)


async def test_racing_changes_have_one_winner(store: MemoryStore, env: RealEnv) -> None:
    made = await create(store, OLD, env, CHEAP)
    passwords = [b"racer %d" % at for at in range(6)]
    outcomes = await asyncio.gather(
        *(change_password(store, OLD, password, env, CHEAP) for password in passwords),
        return_exceptions=True,
    )
    winners = [password for password, outcome in zip(passwords, outcomes, strict=True) if outcome == 2]
    assert len(winners) == 1
    # Whoever looked after the winner had written finds the old password gone.
    assert {type(outcome) for outcome in outcomes} <= {int, Conflict, WrongPassword}
    assert await names(store) == [keys_name(2)]
    assert await load(store, winners[0], env, CHEAP) == (made, 2)


async def test_the_loser_of_a_race_gets_conflict(env: RealEnv) -> None:
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)

    async def another() -> None:
        assert await change_password(store, OLD, OTHER, env, CHEAP) == 2

    store.trap("create", "before", another)
    with pytest.raises(Conflict):
        await change_password(store, OLD, NEW, env, CHEAP)
    assert await load(store, OTHER, env, CHEAP) == (made, 2)
    assert await names(store) == [keys_name(2)]


async def test_the_loser_of_a_race_against_two_gets_conflict(env: RealEnv) -> None:
    """What the loser collided with is gone when it looks whose it was."""
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)

    async def another() -> None:
        await change_password(store, OLD, OTHER, env, CHEAP)

    async def yet_another() -> None:
        await change_password(store, OTHER, b"fourth", env, CHEAP)

    store.trap("create", "before", another)
    store.trap("head", "before", yet_another)
    with pytest.raises(Conflict):
        await change_password(store, OLD, NEW, env, CHEAP)
    assert store.traps == {}
    assert await load(store, b"fourth", env, CHEAP) == (made, 3)
    assert await names(store) == [keys_name(3)]


async def test_a_late_create_of_a_deleted_number_is_a_conflict(env: RealEnv) -> None:
    """The sleeper's number was taken and deleted again, so its create succeeds and means nothing."""
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)

    async def two_others() -> None:
        await change_password(store, OLD, OTHER, env, CHEAP)
        await change_password(store, OTHER, b"fourth", env, CHEAP)

    store.trap("create", "before", two_others)
    with pytest.raises(Conflict):
        await change_password(store, OLD, NEW, env, CHEAP)
    assert await load(store, b"fourth", env, CHEAP) == (made, 3)
    assert await names(store) == [keys_name(3)]


async def test_a_late_first_run_finds_the_store_of_another(env: RealEnv) -> None:
    store = Trapped()
    made: list[DataKey] = []

    async def another_with_a_change() -> None:
        made.append(await create(store, OLD, env, CHEAP))
        await change_password(store, OLD, NEW, env, CHEAP)

    store.trap("create", "before", another_with_a_change)
    with pytest.raises(AlreadyExists):
        await create(store, OTHER, env, CHEAP)
    assert await load(store, NEW, env, CHEAP) == (made[0], 2)
    assert await names(store) == [keys_name(2)]


async def test_racing_first_runs_have_one_winner(store: MemoryStore, env: RealEnv) -> None:
    passwords = [b"racer %d" % at for at in range(4)]
    outcomes = await asyncio.gather(
        *(create(store, password, env, CHEAP) for password in passwords), return_exceptions=True
    )
    winners = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, DataKey)]
    assert len(winners) == 1
    assert [type(o) for at, o in enumerate(outcomes) if at not in winners] == [AlreadyExists] * 3
    assert await load(store, passwords[winners[0]], env, CHEAP) == (outcomes[winners[0]], 1)


class LostReply(MemoryStore):
    """Every create takes effect, and is then sent again because its answer was lost."""

    async def create(self, name: str, data: Buffer) -> None:
        await super().create(name, data)
        await super().create(name, data)


async def test_a_lost_reply_is_no_conflict(env: RealEnv) -> None:
    store = LostReply()
    made = await create(store, OLD, env, CHEAP)
    assert await change_password(store, OLD, NEW, env, CHEAP) == 2
    assert await load(store, NEW, env, CHEAP) == (made, 2)


async def test_a_load_beside_a_change_reads_the_new_object(env: RealEnv) -> None:
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)

    async def change() -> None:
        await change_password(store, OLD, NEW, env, CHEAP)

    store.trap("get", "before", change)
    assert await load(store, NEW, env, CHEAP) == (made, 2)


async def test_a_listing_that_stays_wrong_is_given_up(env: RealEnv) -> None:
    class Ghost(MemoryStore):
        async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> list[ObjectInfo]:
            return [ObjectInfo(FIRST, 240)]

    with pytest.raises(Unavailable):
        await load(Ghost(), OLD, env, CHEAP)


@pytest.mark.parametrize("error", [AccessDenied, Unavailable, None])
async def test_a_change_whose_clean_up_fails_says_that_it_is_in_force(
    env: RealEnv, error: type[StorageError] | None
) -> None:
    """Also where the store goes on asking for ever, as one that is served does."""
    store = Trapped()
    await create(store, OLD, env, CHEAP)

    async def refuse() -> None:
        if error is None:
            await asyncio.Event().wait()
        else:
            raise error("no deleting here")

    store.trap("delete", "before", refuse)
    async with asyncio.timeout(60):
        with pytest.raises(OldKeysLeft, match="the change is in force, but") as left:
            await change_password(store, OLD, NEW, env, CHEAP, delete_seconds=0.05)
    assert (left.value.number, left.value.name) == (2, keys_name(1))
    assert (await load(store, NEW, env, CHEAP))[1] == 2
