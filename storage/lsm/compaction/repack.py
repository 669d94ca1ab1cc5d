"""Repacking: what is still referred to in some SSTs is copied into new ones, as it is, and the old ones go. Which
SSTs that are, `plan` decides. What an older data key sealed is sealed anew: so a rotation of the key comes to its end.

    1. read the victims' own indexes and the frames that maps refer to; open each      (a copy never spreads damage)
    2. upload them as new SSTs, with rows "old place, new place"      (crash: orphans; failure: garbage)
    3. a manifest lists the new SSTs and no longer the victims        (the commit)
    4. all maps are pointed to the new places, wherever an old one still stands
    5. the victims are deleted when no read under way wants anything of them      (crash: leftovers, swept)

Victims are merged: a start finds their places in the checkpoint, and follows the rows of the new SSTs from there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from storage.bucket.outage import REFUSALS
from storage.cancel import do_all
from storage.errors import Corrupt, NotFound
from storage.format.blocks import EntryKind, FrameRef, SstEntry, SstRef
from storage.format.frame import FrameCodec
from storage.format.manifest import repacked
from storage.format.names import sst_name
from storage.format.sst import SstIndex
from storage.lsm.compaction.job_context import SSTS_IN_FLIGHT, JobContext
from storage.lsm.compaction.sst_table import SstFacts
from storage.lsm.index.load import read_indexes
from storage.lsm.index.map_scan import frames_in, numbers_mask
from storage.lsm.index.page import PAGE_SHIFT
from storage.lsm.index.sst_numbers import OFFSET_MASK
from storage.lsm.index.trunk import AnyMap
from storage.lsm.sst.ranges import coalesce, decode_frame

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """A frame of a victim that a map refers to, and its bytes as they lie there, once they were read."""

    layer: int
    ref: FrameRef
    sealed: bytes = b""


@dataclass(frozen=True, slots=True)
class Copied:
    """One new SST, and where what is in it lay before: (block, old location, offset in the new SST, tag there)."""

    sst: SstRef
    places: list[tuple[int, int, int, int]]


async def repack(context: JobContext, victims: Sequence[SstFacts], *, on_withheld: Callable[[str], None]) -> None:
    """Copy what is live in `victims`, which leave the list. Corrupt: one of them is damaged, and nothing has changed.
    NotFound, REFUSALS: the store does not give one, which `on_withheld` was told.
    """
    ids = {victim.number: victim.id for victim in victims}
    copied: list[Copied] = []
    room = asyncio.Semaphore(SSTS_IN_FLIGHT)

    async def copy(part: list[LiveFrame], names: list[str]) -> None:
        async with room:
            copied.append(await _copy(context, part, ids, on_withheld, names))

    async with context.installing:
        # At one moment: what is written over goes from a head to its snapshot, and must be found in one of them.
        live = await live_frames(context.maps(), ids)
    frames = await _read(context, live, ids, room, on_withheld)
    with context.uncommitted() as names:
        await do_all(copy(part, names) for part in _in_objects(frames, context.ssts.pace.object_bytes))

    async def commit() -> None:
        manifests, gone = context.manifests, set(ids.values())
        ssts = [item.sst for item in copied]
        await context.commit_manifest(repacked(manifests.manifest, table=manifests.merged_ssts, ids=gone, ssts=ssts))
        step, done = context.options.maintenance.frames_in_step, 0
        # All maps there are now, not those that were looked through: a clone that was made since has the same frames.
        maps = await _by_page(list(context.maps().values()), copied, step)
        for old, new, asked in _point(maps, copied, context.sst_numbers.location):
            context.cache.move(old, new)
            done += max(asked, 1)
            if done >= step:
                done = 0
                await asyncio.sleep(0)
        context.awaiting_deletion |= gone

    await context.commit(commit, names)


async def live_frames(indexes: Mapping[int, AnyMap], numbers: Collection[int]) -> list[LiveFrame]:
    """All frames in SSTs of these numbers that any map refers to, by location."""
    wanted = numbers_mask(numbers)
    found: dict[int, LiveFrame] = {}
    for layer, index in list(indexes.items()):
        for some in frames_in(index, wanted):
            for ref in some:
                found.setdefault(ref.location, LiveFrame(layer, ref))
            await asyncio.sleep(0)
    return [found[location] for location in sorted(found)]


async def _read(
    context: JobContext,
    frames: list[LiveFrame],
    ids: Mapping[int, str],
    room: asyncio.Semaphore,
    on_withheld: Callable[[str], None],
) -> list[LiveFrame]:
    """The frames as they lie in the store, by layer and block."""
    by_location = {frame.ref.location: frame for frame in frames}
    read: list[LiveFrame] = []

    async def fetch(group: list[FrameRef]) -> None:
        first, last = group[0], group[-1]
        sst = ids[first.location >> 32]
        length = last.location + last.length - first.location
        async with room:
            start = first.location & OFFSET_MASK
            raw = await _of(sst, partial(context.store.get, sst_name(sst), start, length), on_withheld)
        for ref in group:
            at = ref.location - first.location
            read.append(LiveFrame(by_location[ref.location].layer, ref, raw[at : at + ref.length]))

    await do_all(
        fetch(group) for group in coalesce([frame.ref for frame in frames], context.options.reads.gap_bytes_max)
    )
    return sorted(read, key=lambda frame: (frame.layer, frame.ref.block, frame.ref.location))


def _in_objects(frames: list[LiveFrame], object_bytes: int) -> list[list[LiveFrame]]:
    """Frames in parts that make an object each."""
    parts: list[list[LiveFrame]] = []
    size = 0
    for frame in frames:
        if not parts or size > object_bytes:
            parts.append([])
            size = 0
        parts[-1].append(frame)
        size += len(frame.sealed)
    return parts


async def _copy(
    context: JobContext,
    part: list[LiveFrame],
    ids: Mapping[int, str],
    on_withheld: Callable[[str], None],
    names: list[str],
) -> Copied:
    """Put frames that were read into one new SST; each must open."""
    victims = sorted({ids[frame.ref.location >> 32] for frame in part})
    listed = context.manifests.listed()
    refs = {ref.id: ref for ref in listed.where(listed.are(victims))}
    indexes = await asyncio.gather(
        *(_of(sst, partial(_read_index, context, refs[sst]), on_withheld) for sst in victims)
    )
    builder = context.ssts.builder()
    places: list[tuple[int, int, int, int]] = []

    def build() -> tuple[SstRef, bytearray]:
        entries = {sst: _entries_by_offset(index) for sst, index in zip(victims, indexes, strict=True)}
        for frame in part:
            ref, victim = frame.ref, ids[frame.ref.location >> 32]
            codec = context.codec.under(refs[victim].key_id)
            entry = _checked(codec, sst_name(victim), frame, entries[victim])
            moved = builder.add_moved(entry, victim, frame.sealed, None if codec is context.codec else codec)
            places.append((ref.block, ref.location, moved.offset, moved.tag))
        return builder.finish()

    return Copied(await context.upload(build, names), places)


async def _read_index(context: JobContext, ref: SstRef) -> SstIndex:
    (index,) = await read_indexes(
        [ref],
        store=context.store,
        cipher=context.ssts.index_cipher,
        store_id=context.ssts.store_id,
        env=context.env,
        on_missing=context.manifests.look_for_newer,
    )
    return index


async def _of(sst: str, ask: Callable[[], Awaitable[T]], on_withheld: Callable[[str], None]) -> T:
    """What a victim gives; `on_withheld` is told if the store refuses it, or has lost it."""
    try:
        return await ask()
    except (NotFound, *REFUSALS):
        on_withheld(sst)
        raise


def _entries_by_offset(index: SstIndex) -> dict[int, SstEntry]:
    """What a victim's index says of each frame, by its offset."""
    columns = index.entries
    rows = zip(*(columns[name].tolist() for name in columns), strict=True)
    found = {}
    for layer, block, kind, mask, sequence, offset, length, tag in rows:
        if kind in (EntryKind.FULL, EntryKind.PATCH):
            found[offset] = SstEntry(layer, block, EntryKind(kind), mask, sequence, offset, length, tag)
    return found


def _checked(codec: FrameCodec, name: str, frame: LiveFrame, entries: Mapping[int, SstEntry]) -> SstEntry:
    """The entry of a frame that was read, and opens. Corrupt: it does not, or its SST's own index does not know it."""
    entry = entries.get(frame.ref.location & OFFSET_MASK)
    if entry is None or entry.block != frame.ref.block or entry.length != frame.ref.length:
        raise Corrupt(name, f"its index has no frame of block {frame.ref.block} where one is referred to")
    full = entry.kind is EntryKind.FULL
    ref = FrameRef(frame.ref.location, frame.ref.length, frame.ref.tag, frame.ref.block, full=full)
    opened = decode_frame(codec, name, ref, memoryview(frame.sealed))
    if isinstance(opened, Exception):
        raise opened
    return entry


async def _by_page(maps: Sequence[AnyMap], copied: Iterable[Copied], step: int) -> dict[int, list[AnyMap]]:
    """Of each page that a copied frame's block is on all maps that have the page, `step` of them looked at in one step.

    None is missed that refers to the frame. What a map has of a block, patches too, it has by the page of that block:
    one that lacks the page refers to nothing there. And none gets a page meanwhile, nor does a map come that has any:
    both happen in the install of a flush or of a job alone, and `installing` is held from before this to the end of the
    moves. What comes without it is an empty trunk, and what goes needs no move.
    """
    found: dict[int, list[AnyMap]] = {block >> PAGE_SHIFT: [] for item in copied for block, *_ in item.places}
    for count, part in enumerate(maps, 1):
        for number in found.keys() & part.pages.keys():
            found[number].append(part)
        if count % step == 0:
            await asyncio.sleep(0)
    return found


def _point(
    maps: Mapping[int, Sequence[AnyMap]], copied: Iterable[Copied], location: Callable[[str, int], int]
) -> Iterable[tuple[int, int, int]]:
    """Point the maps to the copies, a frame at a time: by page those that have it. Gives of each the old location, the
    new one, and how many maps were asked.
    """
    for item in copied:
        for block, old, offset, tag in item.places:
            new = location(item.sst.id, offset)
            asked = maps[block >> PAGE_SHIFT]
            for part in asked:
                part.move(block, old, new, tag)
            yield old, new, len(asked)
