"""The keys of an open store are there twice, as soon as the store takes the copy."""

import asyncio

from storage.crypto.keys import create, keys_name
from storage.crypto.keyslots import Cost
from storage.crypto.spare_keys import spare_keys_name
from storage.errors import AccessDenied
from storage.format.names import SPARES
from storage.fs.store_passwords import MEND_PAUSE_SECONDS, StorePasswords
from storage.objects.retry import RetryingStore
from tests.simulation.virtual import virtually
from tests.storage.lsm.worlds import World

COST = Cost.for_tests()
OLD, NEW = b"old", b"new"


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
        world.store.denials.clear()
        await asyncio.sleep(2 * MEND_PAUSE_SECONDS)
        assert world.store.objects[spare_keys_name(number)] == world.store.objects[keys_name(number)]
    await world.crash(engine)
