"""A server that stands by when the data key is rotated under the one beside which it does."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from storage.buffers import Buffer
from storage.crypto.keys import keys_name
from storage.crypto.spare_keys import spare_keys_name
from storage.fs.early_unlock import EarlyUnlock
from storage.fs.opening import open_standby, open_store
from storage.objects.local import LocalStore
from tests.storage.fs.places import PASSWORD, kill
from tests.storage.fs.rotating import COST, RotatedPlace, rotate

OPEN_SECONDS = 120.0


async def test_it_takes_over_under_its_key_where_the_rotation_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the new keys and their copy: the older key has all there is, nothing that opens the store is
    taken away, the new keys get their copy, and the next start goes on with them.
    """
    place = RotatedPlace(tmp_path)
    store = await place.make()
    early = EarlyUnlock(str(place.folder), PASSWORD, OPEN_SECONDS, COST)
    standby = await open_standby(str(place.folder), early, env=place.env, options=place.options)
    create, crashed = LocalStore.create, asyncio.Event()

    async def cut_short(self: LocalStore, name: str, data: Buffer) -> None:
        if name == spare_keys_name(2):
            crashed.set()
            await asyncio.Event().wait()
        await create(self, name, data)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "create", cut_short)
        rotating = asyncio.ensure_future(rotate(store))
        async with asyncio.timeout(OPEN_SECONDS):
            await crashed.wait()
        rotating.cancel()
        await asyncio.gather(rotating, return_exceptions=True)
        await kill(store)
    found = place.files()
    assert found.keys() >= {keys_name(1), keys_name(2), spare_keys_name(1)}
    assert spare_keys_name(2) not in found

    async with asyncio.timeout(OPEN_SECONDS):
        turn = await standby.wait()
    assert turn.why == "ended"
    options = replace(place.options, unlocked=standby)
    store = await open_store(str(place.folder), PASSWORD, env=place.env, options=options)
    await standby.close()
    assert store.key_id == 1
    await place.holds(store)
    place.some(store)
    await store.flush()
    await place.until(lambda: (place.folder / spare_keys_name(2)).exists())
    assert place.files().keys() >= {keys_name(1), keys_name(2)}, "nobody here can vouch for the newer ones"
    known = await store.passwords.show_key(PASSWORD)
    assert (known.key_id, known.older, store.key_id) == (2, (1,), 1), "so `key show` says that a restart takes it"
    await store.close()

    store = await place.open()
    assert store.key_id == 2
    await place.until(lambda: place.is_rotated(store))
    assert place.of_key(1) == []
    assert not (place.folder / keys_name(1)).exists()
    await place.holds(store)
    await store.close()
