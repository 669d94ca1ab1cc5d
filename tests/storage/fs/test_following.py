"""A store that is followed while somebody writes it: each view is a state that it had, stays as it is, and is an error
where its writer has deleted what it rests on.
"""

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from storage.errors import AccessDenied, Closed, NotFound
from storage.fs import following
from storage.fs.following import Follower, open_follower
from storage.fs.store import Store
from storage.lsm.recovery.anchor import HostState
from tests.storage.fs.places import DATA, MIB, PASSWORD, Place, contents, kill
from tests.support.inside import at_rest, engine_of
from tests.support.waiting import until

BLOCK = 256 * 1024
NEW = b"something newer, of the same length. " * 1000


@asynccontextmanager
async def followed(place: Place) -> AsyncIterator[Follower]:
    follower = await open_follower(
        str(place.folder), PASSWORD, env=place.env, options=dataclasses.replace(place.options, look_seconds=0.05)
    )
    try:
        yield follower
    finally:
        await follower.close()


async def written(place: Place) -> Store:
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    store.device("a").write(0, DATA)
    await store.flush()
    return store


async def newer(follower: Follower, old: Store) -> Store:
    await until(lambda: follower.newest is not old)
    return follower.newest


async def shows(follower: Follower, data: bytes) -> None:
    """Return when the newest view has this."""
    async with asyncio.timeout(30.0):
        while await contents(follower.newest.device("a"), 0, len(data)) != data:
            await newer(follower, follower.newest)


async def deleted(store: Store) -> None:
    """All that nothing of the newest state needs is gone from the store."""
    while (await store.maintenance.compact_step(None)).job is not None:
        pass
    await store.maintenance.collect(dry_run=False)


async def test_a_newer_view_comes_by_itself_and_an_older_one_stays_as_it_is(place: Place) -> None:
    store = await written(place)
    async with followed(place) as follower:
        first = follower.newest
        held = first.device("a")
        assert held.read_only
        assert await contents(held, 0, len(DATA)) == DATA
        store.device("a").write(0, NEW)
        await store.create_device("b", MIB)
        await store.flush()
        await until(lambda: follower.newest.names() == ("a", "b"))
        await shows(follower, NEW)
        second = follower.newest
        assert await contents(held, 0, len(DATA)) == DATA
        assert first.names() == ("a",)
        assert held.identity != second.device("a").identity, "who attaches it again must see that it is not the same"
        assert held.is_view
        await store.resize_device("a", 8 * MIB)
        await until(lambda: follower.newest.device("a").size == 8 * MIB)
        assert held.size == 4 * MIB
    await store.close()


async def test_it_is_as_old_as_the_following_and_no_view(place: Place) -> None:
    """Or whoever reckons with its counters believes that they began anew."""
    store = await written(place)
    async with followed(place) as follower:
        first = follower.newest
        store.device("a").write(0, NEW)
        await store.flush()
        second = await newer(follower, first)
        before = first.status().uptime_seconds
        assert second.status().uptime_seconds >= before
    await store.close()


async def test_a_view_ages_while_the_machine_is_suspended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Woken without a network, it shows what was committed the evening before."""
    store = await written(place)
    options = dataclasses.replace(place.options, look_seconds=1e9)
    follower = await open_follower(str(place.folder), PASSWORD, env=place.env, options=options)
    before = follower.status()
    night, suspended, wall_clock = 8 * 3600.0, place.env.suspended(), place.env.wall_clock
    monkeypatch.setattr(place.env, "suspended", lambda: suspended + night)
    monkeypatch.setattr(place.env, "wall_clock", lambda: wall_clock() + night)
    after = follower.status()
    assert after.age_seconds >= night
    assert after.as_of == pytest.approx(before.as_of, abs=1.0)
    await follower.close()
    await store.close()


async def test_an_unchanged_store_is_known_to_be_seen_as_it_is(place: Place) -> None:
    store = await written(place)
    async with followed(place) as follower:
        first = follower.newest
        as_of = follower.status().as_of
        await until(lambda: follower.status().as_of > as_of)
        assert follower.newest is first
        identity = first.device("a").identity
    async with followed(place) as again:
        assert again.newest.device("a").identity == identity, "the same moment is the same disk"
    await store.close()


async def test_what_was_deleted_under_a_view_is_an_error_and_never_other_data(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    device = store.device("a")
    content = os.urandom(4 * MIB)
    device.write(0, content)
    await engine_of(store).flush_memtable()
    async with followed(place) as follower:
        first = follower.newest
        follower.is_held = lambda view: view is first
        held = first.device("a")
        assert await contents(held, 0, BLOCK) == content[:BLOCK]
        device.write(0, os.urandom(4 * MIB))
        await engine_of(store).flush_memtable()
        await deleted(store)
        assert await contents(held, 0, BLOCK) == content[:BLOCK], "what is in memory is right"
        with pytest.raises(Closed, match="deleted by its writer"):
            await contents(held, 2 * MIB, BLOCK)
        await newer(follower, first)
        await until(lambda: follower.status().age_seconds < 5)
        status = follower.newest.status().view
        assert status is not None
        assert (status.older, status.collected) == (1, 1)
        assert await contents(follower.newest.device("a")) == await contents(device)
    await store.close()


async def test_snapshots_are_the_same_disk_in_every_view(place: Place) -> None:
    store = await written(place)
    await store.snapshots.create(["a"], "monday")
    async with followed(place) as follower:
        first = follower.newest
        one = first.device("a@monday")
        assert one.is_view, "by another connection its name may mean one that was taken later"
        store.device("a").write(0, NEW)
        await store.flush()
        other = (await newer(follower, first)).device("a@monday")
        assert one.identity == other.identity
        assert await contents(one, 0, len(DATA)) == await contents(other, 0, len(DATA)) == DATA
        await store.snapshots.delete("a", "monday")
        await until(lambda: not has_snapshot(follower.newest))
        await store.snapshots.create(["a"], "monday")
        await until(lambda: has_snapshot(follower.newest))
        retaken = follower.newest.device("a@monday")
        assert retaken.is_view
        assert retaken.identity != one.identity
        assert await contents(retaken, 0, len(NEW)) == NEW
        assert await contents(one, 0, len(DATA)) == DATA
    await store.close()


def has_snapshot(store: Store) -> bool:
    try:
        store.device("a@monday")
    except NotFound:
        return False
    return True


async def test_another_writer_and_another_password_change_nothing(place: Place) -> None:
    store = await written(place)
    async with followed(place) as follower:
        first = follower.newest
        await store.passwords.change(PASSWORD, b"another password")
        await engine_of(store).flush_memtable(always=True)
        second = await newer(follower, first)
        await kill(store)
        store = await place.open(b"another password")
        store.device("a").write(0, NEW)
        await store.flush()
        await newer(follower, second)
        await shows(follower, NEW)
        assert follower.newest.epoch == store.epoch
    await store.close()


async def test_so_many_views_and_no_more(place: Place) -> None:
    store = await written(place)
    async with followed(place) as follower:
        held = {follower.newest: None}
        follower.is_held = held.__contains__
        for number in range(following.VIEWS_MAX - 1):
            store.device("a").write(0, bytes([number + 1]) * 4096)
            await store.flush()
            held[await newer(follower, list(held)[-1])] = None
        store.device("a").write(0, NEW)
        await store.flush()
        await until(lambda: "clients hold 4 older views" in follower.status().reason)
        assert follower.newest is list(held)[-1]
        del held[next(iter(held))]
        await newer(follower, list(held)[-1])
        await until(lambda: not follower.status().reason)
        assert follower.status().older == following.VIEWS_MAX - 1, "those that are held are not forgotten"
    await store.close()


async def test_it_takes_and_changes_nothing(place: Place) -> None:
    store = await written(place)
    await at_rest(store)
    before = place.files()
    async with followed(place) as follower:
        for refused in (
            follower.newest.create_device("b", MIB),
            follower.newest.snapshots.create(["a"], "s"),
            follower.newest.maintenance.collect(dry_run=False),
        ):
            with pytest.raises(AccessDenied):
                await refused
    assert place.files() == before
    assert HostState(place.state, store.url).load() is not None
    store.device("a").write(0, NEW)
    await store.close()
