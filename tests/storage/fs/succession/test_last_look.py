"""The last look before a store is taken: who is told no then has written nothing."""

import dataclasses

import pytest

from storage.errors import Fenced
from storage.fs.opening import open_store
from tests.storage.fs.places import MIB, PASSWORD, Place, kill


async def test_nothing_is_written_if_it_is_no_turn_any_more(place: Place) -> None:
    async def alive() -> None:
        raise Fenced("it lives")

    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    await kill(store)
    before = place.files()
    options = dataclasses.replace(place.options, last_look=alive)
    with pytest.raises(Fenced, match="it lives"):
        await open_store(str(place.folder), PASSWORD, env=place.env, take_over=True, options=options)
    assert place.files() == before
    store = await place.open()
    assert store.device("a").size == 4 * MIB
    await store.close()
