"""The copy of a store that is adopted: a store of its own, with the same disks, that is taken for no other."""

import shutil
from pathlib import Path

import pytest

from storage.errors import Conflict, Fenced, RolledBack
from storage.fs.store import Store
from storage.lsm.engine import Engine
from tests.storage.fs.places import DATA, MIB, Place, contents, kill
from tests.storage.lsm.worlds import World, durable

NEW = b"what was written after the copy. " * 1000


class CopiedPlace(Place):
    """Another host, with a copy of a store."""

    def __init__(self, folder: Path, of: Place) -> None:
        folder.mkdir()
        super().__init__(folder)
        shutil.copytree(of.folder, self.folder)


async def original(place: Place) -> Store:
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    store.device("a").write(0, DATA)
    await store.snapshots.create(["a"], "monday")
    await store.flush()
    return store


async def test_it_has_the_same_disks_and_another_identity(place: Place, tmp_path: Path) -> None:
    store = await original(place)
    term = store.incarnation.id
    await store.close()  # so nothing is lost, and who was attached could go on
    copied = CopiedPlace(tmp_path / "other", place)
    store = await place.open()
    assert store.incarnation.is_unbroken_since(term)
    copy = await copied.open(adopt=True)
    assert copy.status().store_id != store.status().store_id
    assert copy.epoch == store.epoch, "one above that of the copy"
    assert not copy.incarnation.is_unbroken_since(term), "a client must not go on here as if it were there"
    assert await contents(copy.device("a"), 0, len(DATA)) == DATA
    assert await contents(copy.device("a@monday"), 0, len(DATA)) == DATA
    copy.device("a").write(0, NEW)
    identity = copy.status().store_id
    await copy.close()
    for _ in range(2):
        copy = await copied.open()
        assert copy.status().store_id == identity
        assert await contents(copy.device("a"), 0, len(NEW)) == NEW
        await copy.close()
    reader = await copied.reader()
    assert reader.status().store_id == identity
    await reader.close()
    assert await contents(store.device("a"), 0, len(DATA)) == DATA
    await store.close()
    copied.env.close()


async def test_what_this_host_knows_is_no_copy(place: Place) -> None:
    store = await original(place)
    await store.close()
    before = place.files()
    with pytest.raises(Conflict, match="no copy"):
        await place.open(adopt=True)
    assert place.files() == before


@pytest.mark.parametrize("forced", [False, True])
async def test_a_store_that_is_served_here_is_not_adopted(place: Place, tmp_path: Path, forced: bool) -> None:
    """By a server with another state folder."""
    store = await original(place)
    other = Place(tmp_path)
    other.state = tmp_path / "another state"
    with pytest.raises(Fenced, match="another server of this host"):
        await other.open(adopt=True, take_over=forced)
    store.device("a").write(0, NEW)
    await store.close()
    other.env.close()


async def test_a_running_store_is_not_taken_by_a_wrong_address() -> None:
    """From another host, the original and its copy exchanged: it looks as the copy of a running store does."""
    world = World()
    engine, layer = await world.start()
    with pytest.raises(Fenced, match=r"looks as if its server ran elsewhere.*--take-over"):
        await world.open(take_over=False, adopt=True)
    layer.write(0, bytes(4096))
    await durable(engine, layer)
    await engine.close()


async def test_a_copy_of_a_running_store_is_adopted_by_who_says_so(place: Place, tmp_path: Path) -> None:
    store = await original(place)
    copied = CopiedPlace(tmp_path / "other", place)
    with pytest.raises(Fenced, match="--take-over"):
        await copied.open(adopt=True)
    copy = await copied.open(adopt=True, take_over=True)
    assert await contents(copy.device("a"), 0, len(DATA)) == DATA
    await copy.close()
    await store.close()
    copied.env.close()


async def test_a_copy_that_another_host_opens_meanwhile_is_its(tmp_path: Path) -> None:
    """Closed when it was looked at, and in use when it is taken."""
    world = World()
    engine, _ = await world.start()
    await engine.close()
    other: list[Engine] = []

    async def open_elsewhere() -> None:
        other.append(await world.open(take_over=False))

    with pytest.raises(Fenced, match=r"looks as if its server ran elsewhere.*--take-over"):
        await world.open(take_over=False, adopt=True, prepare=open_elsewhere)
    await other[0].close()


@pytest.mark.parametrize("closed", [False, True])
async def test_neither_takes_the_place_of_the_other(place: Place, tmp_path: Path, closed: bool) -> None:
    store = await original(place)
    copied = CopiedPlace(tmp_path / "other", place)
    copy = await copied.open(adopt=True, take_over=True)
    copy.device("a").write(0, NEW)
    await (copy.close() if closed else kill(copy))
    for _ in range(5):  # it is further than the copy
        await store.close()
        store = await place.open()
    await store.close()
    shutil.rmtree(copied.folder)
    shutil.copytree(place.folder, copied.folder)
    with pytest.raises(RolledBack, match="adopted"):
        await copied.open()
    with pytest.raises(RolledBack, match="adopted"):
        await copied.reader()
    copied.env.close()


@pytest.mark.parametrize("gone", [(), ("anchor",), ("fence", "anchor")])
async def test_a_crash_behind_each_step_leaves_a_store_of_its_own(
    place: Place, tmp_path: Path, gone: tuple[str, ...]
) -> None:
    """What the steps after it would have made is taken away again."""
    store = await original(place)
    await store.close()
    copied = CopiedPlace(tmp_path / "other", place)
    copy = await copied.open(adopt=True)
    identity = copy.status().store_id
    await kill(copy)
    if "fence" in gone:
        max((copied.folder / "wal").iterdir()).unlink()
    if "anchor" in gone:
        for path in copied.state.rglob("a*-*"):
            path.unlink()
    copy = await copied.open()
    assert copy.status().store_id == identity
    assert await contents(copy.device("a"), 0, len(DATA)) == DATA
    await copy.close()
    copied.env.close()
