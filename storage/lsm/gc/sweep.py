"""The sweep: objects that earlier writers left behind and nothing names are deleted. It says what is named, and gone.

Three rules, and each has to allow it:

- Its writer can name nothing any more: the name of an SST holds the epoch, and this writer's is higher.
- Its log is still there, or was until a manifest held what it said (see `completeness`): the number in the header of an
  orphan is below the fence of this writer.
- It has lain there for a day, by the store's own clock. That is a net below the first two and never instead of them: it
  leaves a day in which somebody may notice that the store is not all there.

The store's clock is told by what it says of this writer's take-over manifest, and goes on with this host's monotonic
clock, which measures how long something took and is not asked what time it is. What is swept is said in the log.

Copies of manifests and keys that are not the newest any more need none of the rules: nothing reads them, whatever is
missing elsewhere. What is newer than this writer knows of is left alone.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

from storage.bucket.listing import list_all_ssts, list_log, list_manifests
from storage.bucket.named_ssts import NamedSsts, RollCall
from storage.bucket.outage import REFUSALS
from storage.crypto.spare_keys import spare_keys_number
from storage.env import Env, epoch_of
from storage.errors import NotFound
from storage.format.names import SPARES, spare_manifest_number, sst_name
from storage.lsm.gc.garbage import Garbage
from storage.lsm.recovery.completeness import acknowledged_by
from storage.objects.base import ObjectInfo, ObjectStore

NAMES_SAID_MAX = 20

_log = logging.getLogger("nbdserver")


@dataclass(slots=True)
class Leftovers:
    """What nothing names."""

    old: list[ObjectInfo] = field(default_factory=list)
    """What all three rules allow to delete."""
    young: list[ObjectInfo] = field(default_factory=list)
    """What they will allow to delete once it has lain there for a day."""
    unclear: list[ObjectInfo] = field(default_factory=list)
    """What the store does not give the header of."""
    foreign: list[ObjectInfo] = field(default_factory=list)
    """What came after this writer had opened: somebody is still copying into this store."""


class Sweeper:
    """Sweeps for one writer: after opening, and again now and then, for what was too young and what landed late."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        garbage: Garbage,
        env: Env,
        store_id: bytes,
        epoch: int,
        takeover: int,
        fence: int,
        named: NamedSsts,
        listed: Callable[[], NamedSsts],
        below: Callable[[], tuple[int, Collection[int]]],
        spare: Callable[[], tuple[int, int]],
        leftover_seconds: float,
    ) -> None:
        """`store` tries each request once: a leftover that cannot be read keeps no others. `takeover` is the number of
        the writer's first manifest, `fence` that of its fence; `named` are the SSTs that manifest and log named when it
        opened. `listed` gives those that the manifest names now, with their sizes in bytes; `below` gives the replay
        point and all fences as they are now, `spare` the number of the newest manifest, and of the keys that it knows.
        What lies there for less than `leftover_seconds` is young.
        """
        self._store = store
        self._garbage = garbage
        self._env = env
        self._store_id = store_id
        self._epoch = epoch
        self._takeover = takeover
        self._fence = fence
        self._named = named
        self._listed = listed
        self.lost: list[str] = []
        """What the manifest names and the store does not have, or not as it was written: a sentence for each."""
        self._said_lost: frozenset[str] = frozenset()
        self._said_foreign: frozenset[str] = frozenset()
        """What the log was told of both at the last look: the same is not said again."""
        self._below, self._spare = below, spare
        self._leftover_seconds = leftover_seconds
        self._began = env.monotonic()
        self._clock: float | None = None
        """What the store's clock showed a little before `_began`."""

    async def run(self, seconds: float) -> None:
        """Sweep for ever, with pauses of `seconds`; where nothing can be deleted, which may last for years, only look
        for what is lost. A crash in here leaves everything to the next writer.
        """
        while True:
            with suppress(*REFUSALS):  # the next turn asks again
                await (self.sweep() if self._garbage.failing is None else self.look())
            await asyncio.sleep(seconds)

    async def sweep(self) -> Leftovers:
        """Every leftover that may go is garbage. REFUSALS: the store does not say what there is. A crash leaves what is
        not deleted yet to the next sweep.
        """
        found = await self.find()
        self._garbage.add(await self.dead_copies())
        if found.old:
            # What was dropped by this writer must not be forgotten for them: no sweep of this writer finds that.
            swept = found.old[: max(self._garbage.room_at_half, 0)]
            names = [info.name for info in swept]
            self._garbage.add(names)
            count = sum(info.size for info in swept)
            said = {"count": len(names), "bytes": count, "names": names[:NAMES_SAID_MAX]}
            _log.info("leftovers_swept", extra=said)
        return found

    async def find(self) -> Leftovers:
        """What lies there now, of each kind; nothing is written. REFUSALS: the store does not say it."""
        await self._ask_for_the_time()
        found = Leftovers()
        await self._ssts(found)
        await self._objects_of_the_log(found)
        return found

    async def look(self) -> None:
        """Say what is gone that the manifest names. REFUSALS: the store does not say what there is."""
        await self._ask_for_the_time()
        await self._call_the_roll()

    async def _ask_for_the_time(self) -> None:
        if self._clock is None:
            listed = await list_manifests(self._store, above=self._takeover - 1)
            self._clock = listed[self._takeover].modified if self._takeover in listed else None

    def store_clock(self) -> float | None:
        """What the store's clock shows now, or a little less, in seconds since 1970; None: not known yet."""
        return None if self._clock is None else self._clock + self._env.monotonic() - self._began

    def _is_old(self, info: ObjectInfo) -> bool:
        now = self.store_clock()
        return now is not None and info.modified is not None and now - info.modified >= self._leftover_seconds

    async def _ssts(self, found: Leftovers) -> None:
        """SSTs of crashed and fenced writers."""
        call = await self._call_the_roll()
        for sst, info in call.others.items():
            if sst in self._named or epoch_of(sst) >= self._epoch:
                continue
            if not self._is_old(info):
                found.young.append(info)
                continue
            try:
                number = await acknowledged_by(self._store, sst, self._store_id)
            except REFUSALS:
                found.unclear.append(info)  # the next sweep asks again
                continue
            if number is None:
                continue
            if number > self._fence:
                # It came after we had opened: somebody is still copying into this store.
                if info.name not in self._said_foreign:
                    _log.error("foreign_history", extra={"object": info.name, "acknowledged": number})
                found.foreign.append(info)
                continue
            found.old.append(info)
        self._said_foreign = frozenset(info.name for info in found.foreign)

    async def _call_the_roll(self) -> RollCall:
        """All SSTs that are there."""
        call = RollCall(self._listed())
        there = await list_all_ssts(self._store)
        # In a thread, since there may be a million: nobody else has what it changes.
        await self._env.run("codec", call.note, there)
        await self._look_for_lost(call)
        return call

    async def _look_for_lost(self, there: RollCall) -> None:
        """Say what is gone of that which was named before and is named now: the listing came in between."""
        now, lost = self._listed(), []
        resized = dict(there.resized)
        for sst, size in there.missing():
            if sst in now:
                try:
                    resized[sst] = (await self._store.head(sst_name(sst))).size, size
                except NotFound:
                    lost.append(f"{sst_name(sst)} is missing, though the manifest names it")
        for sst, (size, named) in resized.items():
            if size != named and sst in now:
                lost.append(f"{sst_name(sst)} has {size} bytes, and the manifest names one of {named}")
        self.lost = sorted(lost)[:NAMES_SAID_MAX]
        if lost and set(lost) != self._said_lost:
            _log.error("objects_lost", extra={"count": len(lost), "objects": self.lost})
        self._said_lost = frozenset(lost)

    async def _objects_of_the_log(self, found: Leftovers) -> None:
        """What lies below the replay point, but never a fence."""
        replay, fences = self._below()
        kept = frozenset(fences)
        for number, info in (await list_log(self._store)).items():
            if number < replay and number not in kept:
                (found.old if self._is_old(info) else found.young).append(info)

    async def dead_copies(self) -> list[str]:
        """Copies of older manifests, and of keys that older passwords open: they landed late, or a crash left them."""
        infos = await self._store.list(SPARES)
        manifest, keys = self._spare()  # now: what was listed may be older, and is never newer
        dead = []
        for info in infos:
            number, of_keys = spare_manifest_number(info.name), spare_keys_number(info.name)
            if (number is not None and number < manifest) or (of_keys is not None and of_keys < keys):
                dead.append(info.name)
        return dead
