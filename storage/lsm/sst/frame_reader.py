"""One ranged GET: frames that lie next to each other in an SST are asked for, opened and checked."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping

from storage.bucket.missing import get_despite_missing
from storage.cache.frame_cache import Decoded
from storage.crypto.cipher import UnknownKey
from storage.env import Env
from storage.errors import Corrupt, NotFound, StorageError, Unavailable
from storage.format.blocks import FrameRef
from storage.format.frame import FrameCodec
from storage.lsm.index.sst_numbers import OFFSET_MASK, SstNumbers
from storage.lsm.sst.ranges import decode_frame
from storage.objects.base import ObjectStore

_log = logging.getLogger("nbdserver")

ATTEMPT_SECONDS_MAX = 60.0
"""A GET of 4 MiB that takes longer has failed: no request may hang for longer."""

ABSENT_IN_FLIGHT = 2
"""GETs of objects that were said not to be there, beside the others: a rarity gets little."""


class FrameReader:
    """Reads frames of one store. Nothing is tried twice but what is said not to be there (`get_despite_missing`), and
    what does not open: something on the way may have answered in the store's place, and damage is what the store says
    twice.
    """

    def __init__(
        self,
        store: ObjectStore,
        codec: FrameCodec,
        sst_numbers: SstNumbers,
        env: Env,
        on_missing: Callable[[str], Awaitable[None]],
        older: Mapping[str, int],
    ) -> None:
        """`on_missing` is awaited with the name of an object that is not there, and raises what explains that. `older`
        names the objects that an older data key sealed, and that.
        """
        self._store = store
        self._codec = codec
        self._sst_numbers = sst_numbers
        self._env = env
        self._on_missing = on_missing
        self._older = older
        self._absent = asyncio.Semaphore(ABSENT_IN_FLIGHT)

    async def read(
        self, group: list[FrameRef], leave: Callable[[], None], answered: Callable[[], None]
    ) -> list[Decoded | StorageError]:
        """What each frame of a group holds, or what is wrong with it alone. REFUSALS: the store did not give them, or
        not within a minute. Corrupt: the object is missing, and nothing explains that.

        `leave` is called where the store says that it is not there, before that is waited out: from then on the GET
        needs no slot among the others. `answered` is called when bytes are there, and not opened yet.
        """
        name = self._sst_numbers.name(group[0].location)
        start = group[0].location & OFFSET_MASK
        end = (group[-1].location & OFFSET_MASK) + group[-1].length
        slots: contextlib.AbstractAsyncContextManager[object] = contextlib.nullcontext()

        async def ask() -> bytes:
            async with slots:
                try:
                    return await self._store.get(name, start, end - start)
                except Corrupt:
                    # It may end in the midst of them: those before its end are whole.
                    size = (await self._store.head(name)).size
                    if not start < size < end:
                        raise
                    return await self._store.get(name, start, size - start)

        async def absent() -> None:
            nonlocal slots
            leave()
            slots = self._absent
            await self._on_missing(name)

        async def attempt() -> list[Decoded | StorageError]:
            raw = await get_despite_missing(self._store, ask, on_missing=absent)
            answered()
            return await self._env.run("codec", self._decode, name, raw, start, group)

        try:
            async with asyncio.timeout(ATTEMPT_SECONDS_MAX):
                found = await attempt()
                if any(isinstance(each, Corrupt) for each in found):
                    found = _confirmed(name, found, await attempt())
                return found
        except NotFound:
            raise Corrupt(name, "it is missing though the newest manifest names it") from None
        except TimeoutError:
            raise Unavailable(f"{name} was not given within {ATTEMPT_SECONDS_MAX:g} s") from None

    def _decode(self, name: str, raw: bytes, start: int, group: list[FrameRef]) -> list[Decoded | StorageError]:
        view = memoryview(raw)
        older = self._older.get(name)
        try:
            codec = self._codec if older is None else self._codec.under(older)
        except UnknownKey:  # of a damaged store, which is read all the same
            return [Corrupt(name, f"it is sealed under data key {older}, which is not known") for _ in group]
        return [
            decode_frame(codec, name, ref, view[(ref.location & OFFSET_MASK) - start :][: ref.length]) for ref in group
        ]


def _confirmed(
    name: str, first: list[Decoded | StorageError], second: list[Decoded | StorageError]
) -> list[Decoded | StorageError]:
    """What was damaged in the first answer, out of the second one."""
    found = [other if isinstance(one, Corrupt) else one for one, other in zip(first, second, strict=True)]
    if not any(isinstance(each, Corrupt) for each in found):
        _log.warning("wrong_answer", extra={"object": name, "error": "its bytes did not open, and then they did"})
    return found
