"""Scheduling: a server takes snapshots of all devices at one moment, and deletes its own old ones, as `retention` says.

Snapshots of anybody else are never touched. A crash at any moment leaves some that the next look, of this server or of
a later one with a schedule, deletes or does not need to take.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from storage.env import Env
from storage.errors import AlreadyExists, Conflict, NotFound, Unreadable
from storage.fs.metadata.inodes import SnapshotOrigin
from storage.fs.name_tree import NameTree
from storage.fs.snapshots.retention import Keep, is_due, retained
from storage.fs.snapshots.snapshots import Snapshots
from storage.lsm.engine import Engine

SCHEDULE_LOOK_SECONDS = 60.0
"""Between two looks: so late a snapshot may come."""

REFUSALS_OF_ONE = (AlreadyExists, Conflict, NotFound, Unreadable)

_log = logging.getLogger("nbdserver")


@dataclass(frozen=True, slots=True)
class Untaken:
    """A device of which the schedule takes no snapshot: since when, by the wall clock, and why it did not then."""

    since: float
    reason: str


class Scheduling:
    """Takes the snapshots that one writer's schedule asks for, and deletes its old ones. Owned by the event loop."""

    def __init__(
        self, keep: Keep, untaken: dict[str, Untaken], snapshots: Snapshots, engine: Engine, tree: NameTree, env: Env
    ) -> None:
        """`untaken` is kept by the names of devices as long as this runs, for people."""
        self._keep = keep
        self._untaken = untaken
        self._snapshots = snapshots
        self._engine = engine
        self._tree = tree
        self._env = env

    def start(self) -> asyncio.Task[None]:
        """Begin; the engine ends it with itself."""
        return self._engine.background.start("scheduled snapshots", self.run, on_failure=self._engine.fail)

    async def run(self) -> None:
        """Take and delete snapshots, for ever."""
        try:
            while True:
                await self.round()
                await asyncio.sleep(SCHEDULE_LOOK_SECONDS)
        finally:
            self._untaken.clear()

    async def round(self) -> None:
        """Take one if it is time, and delete what is not kept any more."""
        now = self._env.wall_clock()
        for gone in self._untaken.keys() - set(self._snapshots.free_devices()):
            del self._untaken[gone]
        moments = {moment for taken in self._taken().values() for moment in taken.values()}
        if is_due(self._keep, moments, now):
            await self._take(now)
        old: list[int] = []
        for taken in self._taken().values():
            still = retained(self._keep, taken.values(), now)
            old += [number for number, moment in taken.items() if moment not in still]
        # In use, or over what cannot be read now: the next look tries again.
        refused = await self._snapshots.delete_several(old)
        for number in old:
            if number not in refused:
                _log.info("scheduled_snapshot_deleted", extra={"layer": number})

    def _taken(self) -> dict[str, dict[int, float]]:
        """Of each device, when its snapshots of a schedule were taken, by number."""
        names = self._tree.namespace
        return {
            name: {
                layer.number: layer.born / 1e9
                for layer in names.table.trunk(inode.layer)[:-1]
                if layer.origin is SnapshotOrigin.SCHEDULE
            }
            for name, inode in names.devices()
        }

    async def _take(self, now: float) -> None:
        """Of all devices that nobody has for themselves, at one moment; of each by itself if not of all."""
        devices = self._snapshots.free_devices()
        name = datetime.fromtimestamp(now, UTC).strftime("auto-%Y%m%dT%H%M%SZ")
        if not devices:
            return
        try:
            await self._snapshots.create(devices, name, origin=SnapshotOrigin.SCHEDULE)
            self._untaken.clear()
            _log.info("scheduled_snapshot_taken", extra={"snapshot": name, "devices": len(devices)})
        except REFUSALS_OF_ONE:
            for device in devices:
                await self._take_of(device, name)

    async def _take_of(self, device: str, name: str) -> None:
        try:
            await self._snapshots.create([device], name, origin=SnapshotOrigin.SCHEDULE)
            self._untaken.pop(device, None)
        except REFUSALS_OF_ONE as error:
            if device not in self._untaken:  # not with each look, as long as it lasts
                said = {"device": device, "snapshot": name, "reason": str(error)}
                _log.warning("scheduled_snapshot_not_taken", extra=said)
                self._untaken[device] = Untaken(self._env.wall_clock(), str(error))
