"""A store that is followed while somebody deletes its newest manifest from outside: what is shown stays right and is
never older than it was, a state of which only the copy is left is shown, and what is missing is said.
"""

import msgspec
import pytest

from nbdserver.service.condition import problems
from storage.format.names import manifest_name, spare_manifest_name
from storage.fs.following import FollowedView, Follower
from storage.fs.store import Store
from storage.objects.local import LocalStore
from storage.objects.retry import RetryingStore
from tests.storage.fs.places import DATA, Place, contents
from tests.storage.fs.test_following import NEW, followed, newer, shows, written
from tests.support.inside import engine_of
from tests.support.waiting import until


async def flushed(store: Store, data: bytes) -> None:
    store.device("a").write(0, data)
    await engine_of(store).flush_memtable()
    await engine_of(store).copies.settled()


def names(store: Store) -> tuple[str, str]:
    number = engine_of(store).manifests.number
    return manifest_name(number), spare_manifest_name(number)


def said(follower: Follower) -> list[str]:
    return problems(msgspec.to_builtins(follower.newest.status()))


async def test_a_newer_manifest_of_which_only_the_copy_is_left_is_newer(place: Place) -> None:
    store = await written(place)
    await flushed(store, DATA)
    reader = await place.reader()
    view = FollowedView(reader, engine_of(reader))
    objects = RetryingStore(LocalStore(place.folder, place.env), place.env, 5.0)
    assert await view.is_newest(objects)
    own_copy = (place.folder / names(store)[1]).read_bytes()
    await flushed(store, NEW)
    (place.folder / names(store)[0]).unlink()
    (place.folder / spare_manifest_name(view.moment[0])).write_bytes(own_copy)  # as if it were not deleted yet
    assert not await view.is_newest(objects)
    copy = place.folder / names(store)[1]
    await flushed(store, NEW)
    (place.folder / names(store)[0]).unlink()
    await until(lambda: not copy.exists())
    (place.folder / spare_manifest_name(view.moment[0])).unlink(missing_ok=True)
    assert not await view.is_newest(objects)
    async with followed(place) as follower:
        assert await contents(follower.newest.device("a"), 0, len(NEW)) == NEW
    await objects.close()
    await reader.close()
    await store.close()


async def test_a_newest_manifest_that_is_deleted_is_said_until_it_is_there_again(place: Place) -> None:
    store = await written(place)
    await flushed(store, NEW)
    name, copy = names(store)
    async with followed(place) as follower:
        first = follower.newest
        assert said(follower) == []
        content = (place.folder / name).read_bytes()
        (place.folder / name).unlink()
        await until(lambda: said(follower) != [])
        (sentence,) = said(follower)
        assert sentence.startswith(f"{name} is gone, and its copy {copy} stands in for it: nothing is lost; ")
        assert follower.newest is first
        assert await contents(first.device("a"), 0, len(NEW)) == NEW
        (place.folder / name).write_bytes(content)
        await until(lambda: said(follower) == [])
        (place.folder / name).unlink()
        await until(lambda: said(follower) != [])
        await flushed(store, DATA)
        await newer(follower, first)
        await shows(follower, DATA)
        await until(lambda: said(follower) == [])
    await store.close()


@pytest.mark.parametrize(
    ("truncates", "refusal"), [(True, "the log lost writes"), (False, "shows an older state than it did")]
)
async def test_without_its_copy_too_nothing_older_is_shown(place: Place, refusal: str, *, truncates: bool) -> None:
    """Neither by a host that remembers nothing else of the store."""
    store = await written(place)
    await flushed(store, NEW)
    if not truncates:
        await engine_of(store).flush_memtable(always=True)
        await engine_of(store).copies.settled()
    place.state = place.state.with_name("another host")
    async with followed(place) as follower:
        first = follower.newest
        kept = {name: (place.folder / name).read_bytes() for name in names(store)}
        for name in kept:
            (place.folder / name).unlink()
        await until(lambda: any("before anything writes to it" in sentence for sentence in said(follower)))
        # The log goes on, so there is something newer: and what lies there says that it is older.
        store.device("a").write(len(NEW), DATA)
        await store.flush()
        await until(lambda: any(refusal in sentence for sentence in said(follower)))
        assert follower.newest is first
        assert await contents(first.device("a"), 0, len(NEW)) == NEW
        for name, content in kept.items():
            (place.folder / name).write_bytes(content)
        await newer(follower, first)
        assert await contents(follower.newest.device("a"), len(NEW), len(DATA)) == DATA
        await until(lambda: said(follower) == [])
    await store.close()


async def test_what_a_writer_replaced_is_not_said_to_be_deleted(place: Place) -> None:
    """A newer view may take long to load, and is not loaded at all while clients hold too many older ones."""
    store = await written(place)
    await flushed(store, DATA)
    reader = await place.reader()
    view = FollowedView(reader, engine_of(reader))
    objects = RetryingStore(LocalStore(place.folder, place.env), place.env, 5.0)
    for name in names(store):
        (place.folder / name).rename(place.folder / f"{name}.away")
    assert await view.is_newest(objects)
    assert "before anything writes to it" in view.missing
    for name in names(store):
        (place.folder / f"{name}.away").rename(place.folder / name)
    replaced = names(store)
    await flushed(store, NEW)
    for name in replaced:  # as its writer does, a few manifests later
        (place.folder / name).unlink(missing_ok=True)
    assert not await view.is_newest(objects)
    assert view.missing == ""
    await objects.close()
    await reader.close()
    await store.close()
