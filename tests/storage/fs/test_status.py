"""What an open store says of itself while it fails, and while it is being closed."""

import asyncio
import errno
import os

import pytest

from storage.objects.local import LocalStore
from tests.storage.fs.places import DATA, MIB, Place, contents
from tests.support.inside import engine_of
from tests.support.waiting import soon, until


async def test_a_store_that_fails_says_since_when_why_and_what_waits(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    well = store.status()
    assert well.failing is None
    assert well.unlogged_seconds == 0
    assert well.flushing is None
    assert not well.closing
    with monkeypatch.context() as patch:

        def broken(self: LocalStore, name: str, data: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(LocalStore, "_create", broken)
        began = place.env.wall_clock()
        store.device("a").write(0, DATA)
        closing = asyncio.ensure_future(store.close())
        await until(lambda: store.status().failing is not None)
        status = store.status()
        assert status.failing is not None
        assert "Input/output error" in status.failing.reason
        assert began - 1 <= status.failing.since <= place.env.wall_clock() + 1
        assert status.unlogged_bytes > len(DATA)
        assert status.unlogged_seconds > 0
        assert status.closing
        assert status.flushing == "writes on their way to the log"
        assert not closing.done()
    await soon(closing)
    ended = store.status()
    assert ended.failing is None
    assert (ended.unlogged_bytes, ended.unlogged_seconds, ended.flushing) == (0, 0, None)


async def test_a_store_that_does_not_let_us_delete_works_and_says_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first use on, through a change of the password, to the next opening."""
    store = await place.open(create=True)
    await store.close()
    place.state = place.state.with_name("another host")

    def refused(self: LocalStore, names: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(LocalStore, "_delete", refused)
    (place.folder / "keys" / f"{0:020}.keys").write_bytes(b"left behind")
    store = await place.open()
    await store.create_device("a", MIB)
    for number in range(5):
        store.device("a").write(number * 4096, DATA)
        await engine_of(store).flush_memtable()
    await until(lambda: store.status().garbage.since is not None)
    garbage = store.status().garbage
    assert garbage.objects >= 5
    assert "not permitted" in garbage.reason
    assert store.status().failing is None, "the store is well"
    await soon(asyncio.ensure_future(store.close()))
    store = await place.open()
    assert await contents(store.device("a"), 4 * 4096, len(DATA)) == DATA
    await soon(asyncio.ensure_future(store.close()))
