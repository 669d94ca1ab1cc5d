"""A change of passwords, or of the data key, goes on to its end when who asked for it goes away."""

import asyncio
from typing import Any

import pytest

from storage.crypto.keys import KEYS_PREFIX, create, delete_older, keys_name, load
from storage.crypto.keyslots import Cost
from storage.crypto.spare_keys import spare_keys_name
from storage.errors import Closed, WrongPassword
from storage.fs.store_passwords import StorePasswords
from storage.lsm.engine import Engine
from storage.objects.retry import RetryingStore
from storage.secret import Secret
from tests.simulation.virtual import virtually
from tests.storage.fs.places import PASSWORD, Place
from tests.storage.lsm.recovery.test_verified_copies import QUIET
from tests.storage.lsm.worlds import World

COST = Cost.for_tests()
OLD, NEW = b"old", b"new"


@virtually
async def test_a_change_of_passwords_comes_to_its_end_though_who_asked_goes_away() -> None:
    """Else the old password would go on to open an object of the bucket, until the next start."""
    world = World(options=QUIET)
    key = await create(world.store, OLD, world.env, COST)
    engine = await world.open(key=key, keys_number=1)
    passwords = StorePasswords(engine, RetryingStore(world.store, world.env, None), world.env, COST)
    deletion = world.store.hold("delete", KEYS_PREFIX)
    changing = asyncio.ensure_future(passwords.change(OLD, NEW))
    await deletion.someone_waits()
    changing.cancel()
    await asyncio.wait({changing})
    assert changing.cancelled()
    closing = asyncio.ensure_future(passwords.finish())
    await asyncio.sleep(1)
    assert keys_name(2) in world.store.objects
    assert not closing.done()
    deletion.release()
    await closing
    await asyncio.sleep(1)
    assert world.store.names(KEYS_PREFIX) == [keys_name(2)]
    assert world.store.objects[spare_keys_name(2)] == world.store.objects[keys_name(2)]
    assert spare_keys_name(1) not in world.store.objects
    assert engine.manifests.manifest.keys == 2
    await world.crash(engine)


@virtually
async def test_a_change_of_passwords_is_not_waited_for_when_its_store_has_failed() -> None:
    world = World(options=QUIET)
    key = await create(world.store, OLD, world.env, COST)
    engine = await world.open(key=key, keys_number=1)
    passwords = StorePasswords(engine, RetryingStore(world.store, world.env, None), world.env, COST)
    deletion = world.store.hold("delete", KEYS_PREFIX)
    changing = asyncio.ensure_future(passwords.change(OLD, NEW))
    await deletion.someone_waits()
    closing = asyncio.ensure_future(passwords.finish())
    await asyncio.sleep(1)
    engine.fail(Closed("failed by the test"))
    await closing
    await asyncio.wait({changing})
    assert changing.cancelled()
    deletion.release()
    await world.crash(engine)


@pytest.mark.parametrize("rotates", [False, True])
@pytest.mark.parametrize("step", range(0, 60, 2))
@virtually
async def test_a_password_that_is_wiped_meanwhile_is_not_changed_to_zeros(step: int, rotates: bool) -> None:
    """In whichever step who asked goes away, and wipes what he gave."""
    world = World(options=QUIET)
    key = await create(world.store, OLD, world.env, COST)
    engine = await world.open(key=key, keys_number=1)
    passwords = StorePasswords(engine, RetryingStore(world.store, world.env, None), world.env, COST)

    async def change() -> None:
        with Secret(OLD) as old, Secret(NEW) as new:
            if rotates:
                await passwords.rotate_key(old, [], drop_others=False)
            else:
                await passwords.change(old, new)

    changing = asyncio.ensure_future(change())
    for _ in range(step):
        await asyncio.sleep(0)
    changing.cancel()
    await asyncio.wait({changing})
    await passwords.finish()
    await asyncio.sleep(1)
    number = engine.manifests.manifest.keys
    assert number == 2 or not step
    assert world.store.names(KEYS_PREFIX) == [keys_name(number)]
    _, found = await load(world.store, OLD if rotates or number == 1 else NEW, world.env, COST)
    assert found == number
    if number == 2 and not rotates:
        with pytest.raises(WrongPassword):
            await load(world.store, OLD, world.env, COST)
    await world.crash(engine)


async def test_a_store_that_is_closed_waits_for_a_change_of_its_passwords(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever closes it right behind an interruption leaves nothing that the old password opens."""
    store = await place.open(create=True)
    close = Engine.close
    waiting, go_on, left = asyncio.Event(), asyncio.Event(), list[list[str]]()

    async def delete_later(*of: Any) -> None:
        waiting.set()
        await go_on.wait()
        await delete_older(*of)

    async def then_close(self: Engine) -> None:
        left.append([name for name in place.files() if name.startswith(KEYS_PREFIX)])
        await close(self)

    monkeypatch.setattr("storage.crypto.keys_change.delete_older", delete_later)
    monkeypatch.setattr(Engine, "close", then_close)
    changing = asyncio.ensure_future(store.passwords.change(PASSWORD, NEW))
    await waiting.wait()
    changing.cancel()
    closing = asyncio.ensure_future(store.close())
    await asyncio.wait({changing})
    go_on.set()
    await closing
    assert left == [[keys_name(2)]]
