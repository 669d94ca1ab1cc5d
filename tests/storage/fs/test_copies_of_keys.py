"""The keys of an open store are there twice, as soon as the store takes the copy, and are read again now and then."""

import asyncio

import pytest

from storage.crypto.keys import create, keys_name, load
from storage.crypto.keyslots import Cost
from storage.crypto.spare_keys import spare_keys_name
from storage.errors import AccessDenied
from storage.format.names import SPARES
from storage.fs.store_passwords import MEND_PAUSE_SECONDS, VERIFY_KEYS_SECONDS, StorePasswords
from storage.objects.retry import RetryingStore
from tests.simulation.virtual import virtually
from tests.storage.lsm.recovery.test_verified_copies import QUIET
from tests.storage.lsm.worlds import World

COST = Cost.for_tests()
OLD, NEW = b"old", b"new"


def why(passwords: StorePasswords) -> str:
    """Why the keys are not there twice."""
    return passwords.failing or ""


@virtually
async def test_a_copy_that_was_refused_is_made_later() -> None:
    """At the start, and again when passwords have changed."""
    world = World()
    key = await create(world.store, OLD, world.env, COST)
    engine = await world.open(key=key, keys_number=1)
    passwords = StorePasswords(engine, RetryingStore(world.store, world.env, None), world.env, COST)
    del world.store.objects[spare_keys_name(1)]
    for number in (1, 2):
        world.store.deny("create", SPARES, AccessDenied("no"))
        if number == 1:
            passwords.keep_twice()
        else:
            await passwords.change(OLD, NEW)
        await asyncio.sleep(1)
        assert spare_keys_name(number) not in world.store.objects
        assert keys_name(number) in why(passwords)
        world.store.denials.clear()
        await asyncio.sleep(2 * MEND_PAUSE_SECONDS)
        assert not why(passwords)
        assert world.store.objects[spare_keys_name(number)] == world.store.objects[keys_name(number)]
    await world.crash(engine)


@virtually
async def test_what_becomes_damaged_while_a_server_runs_is_found_and_mended(caplog: pytest.LogCaptureFixture) -> None:
    world = World(options=QUIET)
    key = await create(world.store, OLD, world.env, COST)
    engine = await world.open(key=key, keys_number=1)
    passwords = StorePasswords(engine, RetryingStore(world.store, world.env, None), world.env, COST)
    passwords.keep_twice()
    await asyncio.sleep(1)
    for damaged in (spare_keys_name, keys_name):
        for content in (b"damaged", None):
            caplog.clear()
            world.store.objects.pop(damaged(engine.keys_number))
            if content is not None:
                world.store.objects[damaged(engine.keys_number)] = content
            await asyncio.sleep(VERIFY_KEYS_SECONDS * 1.1)
            number = engine.keys_number
            assert world.store.objects[spare_keys_name(number)] == world.store.objects[keys_name(number)]
            assert await load(world.store, OLD, world.env, COST) == (key, number)
            assert "keys_mended" in caplog.messages
    await world.crash(engine)


@virtually
async def test_keys_that_are_damaged_twice_are_said_while_somebody_still_has_them() -> None:
    world = World(options=QUIET)
    key = await create(world.store, OLD, world.env, COST)
    engine = await world.open(key=key, keys_number=1)
    passwords = StorePasswords(engine, RetryingStore(world.store, world.env, None), world.env, COST)
    passwords.keep_twice()
    await asyncio.sleep(1)
    sound = world.store.objects[keys_name(1)]
    world.store.objects[keys_name(1)] = world.store.objects[spare_keys_name(1)] = b"damaged"
    await asyncio.sleep(VERIFY_KEYS_SECONDS * 1.1)
    assert "before this server ends" in why(passwords)
    world.store.objects[spare_keys_name(1)] = sound
    await asyncio.sleep(MEND_PAUSE_SECONDS * 1.1)
    assert not why(passwords)
    assert await load(world.store, OLD, world.env, COST) == (key, engine.keys_number)
    await world.crash(engine)
