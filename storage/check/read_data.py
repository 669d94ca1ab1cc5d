"""Reading all data of a store at a chosen rate: every frame of every listed SST is fetched and opened.

SSTs are read one after the other, each as a whole; what was read to its end is noted (`reads`), so that a run that was
cut short goes on there. Nothing is kept in the cache and nothing is written. An SST that leaves the list while it is
read is passed over: what was live in it has been copied, and what was not is nobody's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np

from storage.bucket.outage import REFUSALS
from storage.check.findings import Finding, Kind, LayerRange, sector_ranges
from storage.crypto.cipher import Cipher
from storage.env import Env
from storage.errors import Corrupt, NotFound, StorageError
from storage.format.blocks import EntryKind, FrameRef, SstRef
from storage.format.frame import FrameCodec
from storage.format.names import sst_name
from storage.format.sst import SstIndex, open_index
from storage.lsm.index.forest import Forest
from storage.lsm.index.sst_numbers import OFFSET_MASK, SstNumbers
from storage.lsm.index.trunk import LayerIndex
from storage.lsm.sst.ranges import coalesce, decode_frame
from storage.objects.base import ObjectStore

CHECK_RETRY_SECONDS = 1.0
"""After which a range that was refused is asked for once more."""

Frame = tuple[int, FrameRef]
"""(layer, frame) of an entry."""


class Pacer:
    """Lets `rate` bytes a second through, on the average of the last second; 0: all."""

    def __init__(self, env: Env, rate: float) -> None:
        self._env = env
        self._rate = rate
        self._due = env.monotonic()

    async def wait(self, count: int) -> None:
        """Return when `count` bytes more may be asked for."""
        if not self._rate:
            return
        now = self._env.monotonic()
        # What was not used is not saved up: after a pause there is no burst.
        self._due = max(self._due, now - 1.0) + count / self._rate
        if self._due > now:
            await asyncio.sleep(self._due - now)


class DataReader:
    """Reads SSTs of one store and opens their frames."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        witness: Callable[[], Awaitable[object]],
        index_cipher: Cipher,
        codec: FrameCodec,
        store_id: bytes,
        env: Env,
        sst_numbers: SstNumbers,
        forest: Callable[[], Forest],
        is_listed: Callable[[str], Awaitable[bool]],
    ) -> None:
        """`store` tries each request once; `witness` asks it for a byte that is there, patiently. `forest` gives the
        indexes as they are now, and `is_listed` whether an SST still counts.
        """
        self._store = store
        self._witness = witness
        self._index_cipher = index_cipher
        self._codec = codec
        self._store_id = store_id
        self._env = env
        self._numbers = sst_numbers
        self._forest = forest
        self._is_listed = is_listed

    async def read(self, ref: SstRef, pacer: Pacer, note: Callable[[int], None]) -> Finding | None:
        """Open all frames of an SST. A finding: its index or some frames do not open, or cannot be had. `note` is told
        of bytes read. REFUSALS: the store gives nothing at all.
        """
        name = sst_name(ref.id)
        bad: list[tuple[int, FrameRef, str]] = []
        try:
            end = await self._get(name, ref.index_offset, ref.size - ref.index_offset)
            number = self._numbers.number(ref.id)  # here, since a thread gives none: an SST of zeros may have none yet
            opened = await self._env.run("codec", partial(self._open, ref, number, end))
            layers, codec = {frame.location: layer for layer, frame in opened}, self._codec.under(ref.key_id)
            for group in coalesce([frame for _, frame in opened]):
                wrong = await self._group(name, codec, group, pacer)
                bad += [(layers[frame.location], frame, what) for what, frame in wrong]
                note(_span(group)[1])
        except (Corrupt, NotFound, *REFUSALS) as error:
            # What only the index says of its frames: a check of references tells where it shows.
            detail = error.detail if isinstance(error, Corrupt) else str(error)
            finding = Finding(Kind.INDEX, name, f"its index cannot be read: {detail}")
        else:
            if not bad:
                return None
            finding = self._finding(name, bad)
        return finding if await self._is_listed(ref.id) else None

    def _open(self, ref: SstRef, number: int, end: bytes) -> list[Frame]:
        return _frames(open_index(self._index_cipher, ref, end, store_id=self._store_id), number)

    async def _get(self, name: str, start: int, length: int) -> bytes:
        """Bytes of an object; REFUSALS: twice it was not given, though another one was."""
        try:
            return await self._store.get(name, start, length)
        except REFUSALS:
            await self._witness()
        await asyncio.sleep(CHECK_RETRY_SECONDS)
        try:
            return await self._store.get(name, start, length)
        except REFUSALS:
            await self._witness()
            raise

    async def _group(
        self, name: str, codec: FrameCodec, group: list[FrameRef], pacer: Pacer
    ) -> list[tuple[str, FrameRef]]:
        """What is wrong with each of some neighbouring frames. What the store says but once is not: something on the
        way may have answered in its place.
        """
        return await self._attempt(name, codec, group, pacer) and await self._attempt(name, codec, group, pacer)

    async def _attempt(
        self, name: str, codec: FrameCodec, group: list[FrameRef], pacer: Pacer
    ) -> list[tuple[str, FrameRef]]:
        start, length = _span(group)
        await pacer.wait(length)
        try:
            raw = await self._get(name, start, length)
        except NotFound:
            return [("it is not there", frame) for frame in group]
        except (Corrupt, *REFUSALS) as error:
            if len(group) == 1:
                return [(error.detail if isinstance(error, Corrupt) else str(error), group[0])]
            # It ends in the midst of the range, or a sector below it is bad: each frame for itself.
            return [wrong for frame in group for wrong in await self._attempt(name, codec, [frame], pacer)]

        def open_all() -> list[tuple[str, FrameRef]]:
            wrong = []
            view = memoryview(raw)
            for frame in group:
                at = (frame.location & OFFSET_MASK) - start
                result = decode_frame(codec, name, frame, view[at : at + frame.length])
                if isinstance(result, StorageError):
                    wrong.append((result.detail if isinstance(result, Corrupt) else str(result), frame))
            return wrong

        return await self._env.run("codec", open_all)

    def _finding(self, name: str, bad: list[tuple[int, FrameRef, str]]) -> Finding:
        forest = self._forest()
        shown: dict[int, list[tuple[int, int]]] = {}
        for _, frame, _ in bad:
            # Any layer may show it: what was written to one is shown by its snapshots and clones.
            for layer in forest.maps():
                if mask := shown_of(forest.index(layer), frame.block, frame.location):
                    shown.setdefault(layer, []).append((frame.block, mask))
        ranges: list[LayerRange] = []
        for layer, places in sorted(shown.items()):
            ranges += sector_ranges(layer, places)
        more = f", and {len(bad) - 1} more of its frames" if len(bad) > 1 else ""
        where = "" if ranges else "; no device shows anything of it"
        return Finding(Kind.FRAME, name, f"{bad[0][2]}{more}{where}", tuple(ranges), fault=not ranges)


def shown_of(index: LayerIndex, block: int, location: int) -> int:
    """The sectors of a block that are seen of the frame at `location`; 0 if none are."""
    covered = 0
    for found in index.find(block):
        if isinstance(found.content, FrameRef) and found.content.location == location:
            return found.mask & ~covered
        covered |= found.mask
    return 0


def _span(group: list[FrameRef]) -> tuple[int, int]:
    """Where a group begins in its SST, and how many bytes it has."""
    start = group[0].location & OFFSET_MASK
    return start, (group[-1].location & OFFSET_MASK) + group[-1].length - start


def _frames(index: SstIndex, number: int) -> list[Frame]:
    """The frames of an SST by place, each once."""
    entries = index.entries
    data = np.flatnonzero((entries["kind"] == EntryKind.FULL) | (entries["kind"] == EntryKind.PATCH))
    _, first = np.unique(entries["offset"][data], return_index=True)
    rows = data[first]
    columns = (entries[name][rows].tolist() for name in ("layer", "block", "kind", "offset", "length", "tag"))
    return [
        (layer, FrameRef(number << 32 | offset, length, tag, block, full=kind == EntryKind.FULL))
        for layer, block, kind, offset, length, tag in zip(*columns, strict=True)
    ]
