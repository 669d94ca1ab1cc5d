"""What an open store says of itself while it fails, and while it is being closed."""

import asyncio
import errno
import os

import msgspec
import pytest

from nbdserver.service.condition import problems
from storage.buffers import Buffer
from storage.errors import AccessDenied
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


async def test_a_store_that_takes_no_copies_works_and_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the newest manifest and the keys, until it takes them."""
    store = await place.open(create=True)
    assert store.status().uncopied == []
    create = LocalStore.create

    async def refused(self: LocalStore, name: str, data: Buffer) -> None:
        if name.startswith("spare/"):
            raise AccessDenied("the folder spare may not be written")
        await create(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "create", refused)
        for spare in (place.folder / "spare").iterdir():
            spare.unlink()
        store.passwords.keep_twice()
        await store.create_device("a", MIB)
        await engine_of(store).flush_memtable()
        await until(lambda: len(store.status().uncopied) == 2)
        status = store.status()
        assert [each.name.partition("/")[0] for each in status.uncopied] == ["manifest", "keys"]
        assert all(place.env.wall_clock() - 60 < each.since <= place.env.wall_clock() for each in status.uncopied)
        assert status.uncopied[0].reason == "the folder spare may not be written"
        said = problems(msgspec.to_builtins(status))
        assert len(said) == 2
        assert all("has no sound copy since" in sentence and "below spare/" in sentence for sentence in said)
    store.passwords.keep_twice()
    await until(lambda: store.status().uncopied == [])
    assert problems(msgspec.to_builtins(store.status())) == []
    await store.close()
