"""A store of which something is missing, altered or put back is not opened as if nothing were, and the message names
what it is."""

import pytest

from storage.errors import Corrupt, NotFound, RolledBack, Unsupported
from tests.storage.fs.places import DATA, MIB, Place, kill


async def test_data_without_keys_is_not_taken_for_an_empty_place(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    await store.close()
    keys = place.folder / "keys" / "00000000000000000001.keys"
    content = keys.read_bytes()
    keys.unlink()
    (place.folder / "spare" / keys.name).unlink()
    before = place.files()
    for opening in (place.open(create=True), place.open(create=True, accept_rollback=True), place.open()):
        with pytest.raises(Corrupt, match="restore the keys"):
            await opening
    assert place.files() == before
    keys.write_bytes(content)
    await (await place.open()).close()


async def test_an_emptied_place_is_noticed_by_the_host_that_knows_it(place: Place) -> None:
    await (await place.open(create=True)).close()
    for path in place.folder.rglob("*.*"):
        path.unlink()
    with pytest.raises(RolledBack, match="this host remembers a store there"):
        await place.open(create=True)
    with pytest.raises(NotFound):
        await place.open(accept_rollback=True)
    store = await place.open(create=True, accept_rollback=True)
    assert store.created
    await store.close()
    await (await place.open()).close()


async def test_a_damaged_anchor_is_said_and_accepted(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    await store.close()
    (anchor,) = place.state.rglob("anchor-*.json")
    anchor.write_bytes(b"{")
    with pytest.raises(Corrupt, match="--accept-rollback"):
        await place.open()
    store = await place.open(accept_rollback=True)
    assert [device.name for device in store.devices()] == ["a"]
    await store.close()
    await (await place.open()).close()


async def test_damage_in_the_log_is_named(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    store.device("a").write(0, DATA)
    await store.flush()
    await kill(store)
    path = sorted((place.folder / "wal").iterdir())[-1]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises((Corrupt, Unsupported), match=path.name):
        await place.open()
