"""Indexes of SSTs and the checkpoint as they are fetched when a store is opened: many at a time, each checked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from storage.bucket.missing import get_despite_missing
from storage.crypto.cipher import Cipher
from storage.env import Env
from storage.errors import BrokenInvariant, Corrupt, NotFound
from storage.format.blocks import SstRef
from storage.format.checkpoint import Part, PartKind, Trailer, open_part
from storage.format.envelope import Header
from storage.format.names import sst_name
from storage.format.sst import SstIndex, open_index
from storage.lsm.index.image import PlaceReader, load_part
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.index.trunk import AnyMap
from storage.objects.base import ObjectStore

PART_READS_IN_FLIGHT = 8
"""Of at most 4 MiB, as they are stored and as rows together."""


async def read_indexes(
    ssts: list[SstRef],
    *,
    store: ObjectStore,
    cipher: Cipher,
    store_id: bytes,
    env: Env,
    on_missing: Callable[[], Awaitable[None]],
    reads_in_flight: int = 1,
) -> list[SstIndex]:
    """The index of each SST, `reads_in_flight` fetched at a time, each checked. Corrupt if one is missing or not the
    one that is named.
    """
    room = asyncio.Semaphore(reads_in_flight)

    async def read(sst: SstRef) -> SstIndex:
        name = sst_name(sst.id)
        async with room:
            try:
                length = sst.size - sst.index_offset
                end = await get_despite_missing(
                    store, partial(store.get, name, sst.index_offset, length), on_missing=on_missing
                )
            except NotFound:
                raise Corrupt(name, "it is missing, though the manifest or the log names it") from None
        return await env.run("codec", lambda: open_index(cipher, sst, end, store_id=store_id))

    return list(await asyncio.gather(*(read(sst) for sst in ssts)))


def moved_frames(
    numbered: Iterable[tuple[int, SstIndex]], sst_numbers: SstNumbers
) -> dict[tuple[int, int], tuple[int, int]]:
    """Where frames lie that were repacked: (number of the SST each lay in, its offset there) to its location now, and
    its tag there, which is another one where it was sealed anew under another key.
    """
    moved = {}
    for number, index in numbered:
        if not index.victims:
            continue
        victims = [sst_numbers.number(victim) for victim in index.victims]
        tags = dict(zip(index.entries["offset"].tolist(), index.entries["tag"].tolist(), strict=True))
        rows = zip(*(index.moved[name].tolist() for name in ("victim", "old", "offset")), strict=True)
        for victim, old, offset in rows:
            # Without an entry nothing says what it is: that does not open, which the first reader is told.
            moved[victims[victim], old] = number << 32 | offset, tags.get(offset, 0)
    return moved


_STAGES = ((PartKind.KEPT,), (PartKind.BASES, PartKind.ZEROS), (PartKind.PATCHES,))
"""The kinds of parts in the order in which they are put into a map."""


async def load_checkpoint(
    maps: Mapping[int, AnyMap],
    ref: SstRef,
    header: Header,
    trailer: Trailer,
    places: "asyncio.Future[PlaceReader]",
    *,
    store: ObjectStore,
    cipher: Cipher,
    env: Env,
    on_missing: Callable[[], Awaitable[None]],
) -> None:
    """Read the parts of a checkpoint into empty maps, those of its trunks. Corrupt: one is damaged, or the object is
    missing. Parts are fetched and opened while `places` is not known yet.
    """
    name = sst_name(ref.id)
    if any(part.layer not in maps for part in trailer.parts):
        raise Corrupt(name, "it has a part of a layer that is not in its trunks")
    room = asyncio.Semaphore(PART_READS_IN_FLIGHT)
    turns = {layer: asyncio.Lock() for layer in maps}
    stages = [[(n, part) for n, part in enumerate(trailer.parts) if part.kind in kinds] for kinds in _STAGES]
    left = [len(stage) for stage in stages]
    done = [asyncio.Event() for _ in stages]

    async def read(stage: int, number: int, part: Part) -> None:
        sealed = await _part(store, name, part, on_missing)
        rows = await env.run("codec", partial(open_part, cipher, name, header, number, part, sealed))
        for earlier in (at for at in range(stage) if left[at]):
            await done[earlier].wait()
        placed = await asyncio.shield(places)
        try:
            # One thread at a time writes to a map.
            async with turns[part.layer]:
                await env.run("codec", load_part, maps[part.layer], PartKind(part.kind), rows, placed)
        except (ValueError, BrokenInvariant) as error:
            raise Corrupt(name, str(error)) from None
        left[stage] -= 1
        if not left[stage]:
            done[stage].set()
        room.release()

    async with first_error(), asyncio.TaskGroup() as group:
        for stage, parts in enumerate(stages):
            for number, part in parts:
                # In order, since parts that have room wait for those of earlier stages.
                await room.acquire()
                group.create_task(read(stage, number, part))


async def _part(store: ObjectStore, name: str, part: Part, on_missing: Callable[[], Awaitable[None]]) -> bytes:
    """One part of a checkpoint as it lies in the store."""
    try:
        return await get_despite_missing(
            store, partial(store.get, name, part.offset, part.length), on_missing=on_missing
        )
    except NotFound:
        raise Corrupt(name, "it is missing, though the manifest names it") from None


@asynccontextmanager
async def first_error() -> AsyncIterator[None]:
    """The first error of a group of tasks, in place of the group of them."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
