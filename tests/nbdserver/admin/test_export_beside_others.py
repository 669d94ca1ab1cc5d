"""An export beside those who put another content in the place of what it reads."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from nbdserver.admin.content_frames import DATA_BYTES_MAX, Piece
from nbdserver.admin.transfer import dump, import_device
from nbdserver.protocol.replies import Piece as ReadPiece
from storage import Store
from storage.errors import Conflict

SIZE = 40 * DATA_BYTES_MAX
"""More than is read ahead."""
OLD, NEW = b"o" * DATA_BYTES_MAX, b"n" * DATA_BYTES_MAX


@pytest.fixture
async def filled(store: Store) -> Store:
    """`disk` was something else when `disk@before` was taken."""
    await store.create_device("disk", SIZE)
    for content in (OLD, NEW):
        for offset in range(0, SIZE, DATA_BYTES_MAX):
            store.device("disk").write(offset, content)
        if content is OLD:
            await store.snapshots.create(["disk"], "before")
    return store


async def roll_back(store: Store) -> None:
    await store.snapshots.roll_back("disk", "before")


async def replace(store: Store) -> None:
    async def pieces(_: int) -> AsyncIterator[Piece]:
        yield 0, b"another"

    await import_device(store, "disk", pieces, size=7, overwrite=True)


async def fail_to_replace(store: Store) -> None:
    async def pieces(_: int) -> AsyncIterator[Piece]:
        yield 0, b"another"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await import_device(store, "disk", pieces, size=7, overwrite=True)


async def delete(store: Store) -> None:
    await store.snapshots.delete("disk", "before")
    await store.delete_device("disk")


async def cut_off(store: Store) -> None:
    """And made as large again, with zeros in the place of what it held."""
    await store.resize_device("disk", DATA_BYTES_MAX, shrink=True)
    await store.resize_device("disk", SIZE)


async def only_new(pieces: AsyncIterator[Piece]) -> None:
    """All that is still given is what was there at first."""
    async for _, data in pieces:
        assert bytes(data) in NEW


@pytest.mark.parametrize("change", [roll_back, replace, fail_to_replace, delete, cut_off])
async def test_an_export_is_of_one_disk(filled: Store, change: Callable[[Store], Awaitable[None]]) -> None:
    device = filled.device("disk")
    async with contextlib.aclosing(dump(device, SIZE)) as pieces:
        assert bytes((await anext(pieces))[1]) in NEW
        await change(filled)
        with pytest.raises(Conflict, match="rolled back, replaced or deleted while it was read"):
            await only_new(pieces)


async def test_an_export_ends_when_an_import_has_the_disk(filled: Store) -> None:
    """What that writes would come out beside what was there."""
    device, begun, rest = filled.device("disk"), asyncio.Event(), asyncio.Event()

    async def slow(_: int) -> AsyncIterator[Piece]:
        begun.set()
        await rest.wait()
        yield 0, b"another"

    async with contextlib.aclosing(dump(device, SIZE)) as exported:
        assert bytes((await anext(exported))[1]) in NEW
        importing = asyncio.ensure_future(import_device(filled, "disk", slow, size=7, overwrite=True))
        await begun.wait()
        with pytest.raises(Conflict, match="rolled back, replaced or deleted while it was read"):
            await only_new(exported)
    rest.set()
    await importing


async def test_an_export_goes_on_beside_an_import_that_is_refused(filled: Store) -> None:
    """It has the disk while it looks whether it may: nothing was written then."""
    device = filled.device("disk")
    async with contextlib.aclosing(dump(device, SIZE)) as exported:
        assert bytes((await anext(exported))[1]) in NEW
        device.exclusive_user = "an import"
        assert bytes((await anext(exported))[1]) in NEW
        device.exclusive_user = None
        await only_new(exported)


async def test_an_export_goes_on_beside_what_leaves_the_disk_as_it_is(filled: Store) -> None:
    device = filled.device("disk")
    read = 0
    async for offset, data in dump(device, SIZE):
        read += len(data)
        if not offset:
            await filled.snapshots.create(["disk"], "now")
            await filled.snapshots.clone("disk", "", "other")
            await filled.snapshots.delete("disk", "before")
            await filled.resize_device("disk", 2 * SIZE)
            device.write(SIZE, NEW)
            await filled.maintenance.flush()
    assert read == SIZE


async def test_what_is_read_of_another_disk_does_not_come_out(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does what was looked for by the map of the first one."""
    device = filled.device("disk")
    read = device.read

    async def roll_back_first(offset: int, length: int) -> list[ReadPiece]:
        if not offset:
            await roll_back(filled)
        return await read(offset, length)

    monkeypatch.setattr(device, "read", roll_back_first)
    async with contextlib.aclosing(dump(device, SIZE)) as pieces:
        with pytest.raises(Conflict, match="rolled back"):
            await anext(pieces)
