"""Several passwords of one store: each opens it, none is the last to go, and of two changes at once one is told."""

import asyncio

import pytest

from storage.crypto.keys import create, keys_name, load
from storage.crypto.keyslots import LABEL_BYTES_MAX, SLOTS_MAX
from storage.crypto.password_slots import add_password, change_password, list_passwords, remove_password
from storage.env import RealEnv
from storage.errors import AlreadyExists, Conflict, Invalid, NotFound, WrongPassword
from storage.objects.memory import MemoryStore
from tests.storage.crypto.key_samples import CHEAP, NEW, OLD, OTHER, names
from tests.storage.crypto.trapped import Interrupted, Trapped, die


async def labels(store: MemoryStore, password: bytes, env: RealEnv) -> list[tuple[str, bool]]:
    return [(each.label, each.given) for each in await list_passwords(store, password, env, CHEAP)]


async def test_each_password_opens_the_store(store: MemoryStore, env: RealEnv) -> None:
    made = await create(store, OLD, env, CHEAP)
    assert await labels(store, OLD, env) == [("main", True)]
    assert await add_password(store, OLD, NEW, "backup host", env, CHEAP) == 2
    assert await add_password(store, NEW, OTHER, "déjà vu", env, CHEAP) == 3
    for password in (OLD, NEW, OTHER):
        assert await load(store, password, env, CHEAP) == (made, 3)
    assert await labels(store, NEW, env) == [("main", False), ("backup host", True), ("déjà vu", False)]
    assert await names(store) == [keys_name(3)]

    assert await change_password(store, NEW, b"newer", env, CHEAP) == 4
    assert await labels(store, b"newer", env) == [("main", False), ("backup host", True), ("déjà vu", False)]
    assert await remove_password(store, OTHER, "main", env, CHEAP) == 5
    with pytest.raises(WrongPassword):
        await load(store, OLD, env, CHEAP)
    assert await remove_password(store, OTHER, "déjà vu", env, CHEAP) == 6, "it may remove itself"
    assert await labels(store, b"newer", env) == [("backup host", True)]
    assert await add_password(store, b"newer", OLD, "main", env, CHEAP) == 7, "a number that is free is used again"
    assert await load(store, OLD, env, CHEAP) == (made, 7)


async def test_the_last_password_stays(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    with pytest.raises(Conflict, match="'main' is the only password"):
        await remove_password(store, OLD, "main", env, CHEAP)
    with pytest.raises(NotFound, match="no password is labelled 'other'"):
        await remove_password(store, OLD, "other", env, CHEAP)
    assert await names(store) == [keys_name(1)]


async def test_what_cannot_be_added(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    with pytest.raises(WrongPassword):
        await add_password(store, NEW, OTHER, "second", env, CHEAP)
    with pytest.raises(WrongPassword):
        await remove_password(store, NEW, "main", env, CHEAP)
    with pytest.raises(WrongPassword):
        await list_passwords(store, NEW, env, CHEAP)
    with pytest.raises(AlreadyExists, match="labelled 'main'"):
        await add_password(store, OLD, NEW, "main", env, CHEAP)
    with pytest.raises(AlreadyExists, match="opens the store already, as 'main'"):
        await add_password(store, OLD, OLD, "second", env, CHEAP)
    await add_password(store, OLD, NEW, "second", env, CHEAP)
    with pytest.raises(AlreadyExists, match="opens the store already, as 'main'"):
        await change_password(store, NEW, OLD, env, CHEAP)
    await remove_password(store, OLD, "second", env, CHEAP)
    with pytest.raises(Invalid, match="empty"):
        await add_password(store, OLD, b"", "second", env, CHEAP)
    for label in ("", " ", " x", "two\nlines", "\x1b[31m", "x" * (LABEL_BYTES_MAX + 1), "ü" * 17):
        with pytest.raises(Invalid, match="label"):
            await add_password(store, OLD, NEW, label, env, CHEAP)
    assert await names(store) == [keys_name(3)]


async def test_there_is_room_for_sixteen(store: MemoryStore, env: RealEnv) -> None:
    made = await create(store, OLD, env, CHEAP)
    for at in range(2, SLOTS_MAX + 1):
        await add_password(store, OLD, b"password %d" % at, "x" * LABEL_BYTES_MAX if at == 2 else f"{at}", env, CHEAP)
    with pytest.raises(Conflict, match="16 passwords"):
        await add_password(store, OLD, NEW, "one more", env, CHEAP)
    assert await load(store, b"password %d" % SLOTS_MAX, env, CHEAP) == (made, SLOTS_MAX)


async def test_the_bucket_does_not_learn_labels(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    before = len(await store.get(keys_name(1)))
    await add_password(store, OLD, NEW, "payroll", env, CHEAP)
    data = await store.get(keys_name(2))
    assert b"payroll" not in data
    assert b"main" not in data
    await remove_password(store, OLD, "payroll", env, CHEAP)
    await add_password(store, OLD, NEW, "x", env, CHEAP)
    assert len(await store.get(keys_name(4))) == len(data) == before + 212


async def test_of_changes_at_once_one_counts(store: MemoryStore, env: RealEnv) -> None:
    """Nobody's password is lost by somebody else's: whoever came second is told, and does it again."""
    made = await create(store, OLD, env, CHEAP)
    await add_password(store, OLD, NEW, "second", env, CHEAP)
    outcomes = await asyncio.gather(
        *(add_password(store, OLD, b"racer %d" % at, f"racer {at}", env, CHEAP) for at in range(4)),
        remove_password(store, OLD, "second", env, CHEAP),
        change_password(store, NEW, OTHER, env, CHEAP),
        return_exceptions=True,
    )
    assert {type(outcome) for outcome in outcomes} <= {int, Conflict, WrongPassword, NotFound}
    numbers = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert numbers
    assert len(set(numbers)) == len(numbers)
    assert await names(store) == [keys_name(max(numbers))]
    assert (await load(store, OLD, env, CHEAP))[0] == made
    found = {label for label, _ in await labels(store, OLD, env)}
    for at, outcome in enumerate(outcomes[:4]):
        assert (f"racer {at}" in found) == isinstance(outcome, int)


@pytest.mark.parametrize(("when", "there"), [("before", False), ("after", True)])
async def test_a_crash_leaves_all_or_nothing_of_it(env: RealEnv, when: str, there: bool) -> None:
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)
    store.trap("create", when, die)
    with pytest.raises(Interrupted):
        await add_password(store, OLD, NEW, "second", env, CHEAP)
    assert (await load(store, OLD, env, CHEAP))[0] == made
    assert ("second", False) in await labels(store, OLD, env) if there else len(await labels(store, OLD, env)) == 1
    await add_password(store, OLD, OTHER, "third", env, CHEAP)
    assert (await load(store, OTHER, env, CHEAP))[0] == made
