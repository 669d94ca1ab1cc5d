"""Clearing: what is to go goes by itself: snapshots that have expired or that a clone has left, and what was not filled
to its end.

It acts on what `expired` and `Filling.left` say. What is in use, or cannot be cleared away now, is tried again. A crash
at any moment leaves it to the next writer.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from storage.env import Env
from storage.errors import Conflict, NotFound, Unreadable
from storage.fs.devices.filling import Filling
from storage.fs.metadata.snapshot_plans import expired
from storage.fs.name_tree import NameTree
from storage.fs.snapshots.snapshots import Snapshots
from storage.lsm.engine import Engine

AGAIN_SECONDS = 60.0
"""After which what could not be deleted is tried again."""

EXPIRY_LOOK_SECONDS = 600.0
"""At most, between two looks at the clock while something is to expire: it may jump."""

_log = logging.getLogger("nbdserver")


class Clearing:
    """Deletes what is to go by itself, of the store of one writer. Owned by the event loop."""

    def __init__(self, snapshots: Snapshots, filling: Filling, engine: Engine, tree: NameTree, env: Env) -> None:
        self._snapshots = snapshots
        self._filling = filling
        self._engine = engine
        self._tree = tree
        self._env = env
        self._changed = asyncio.Event()
        self._left: set[int] = set()
        """What could not be deleted, which was said."""
        snapshots.on_change = filling.on_cut_short = self._changed.set

    def start(self) -> None:
        """Begin; the engine ends it with itself."""
        self._engine.background.start("clearing", self.run, on_failure=self._engine.fail)

    async def run(self) -> None:
        """Clear away what is to go, for ever."""
        while True:
            self._changed.clear()
            pause = await self.round()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    async def round(self) -> float | None:
        """Clear away what is to go now; the seconds until the next look, None: until something changes."""
        cut_short = await self._undo()
        layers, now = self._tree.namespace.layers(), self._now()
        await self._delete(expired(layers.values(), now, self._snapshots.pins))
        layers = self._tree.namespace.layers()
        self._left &= layers.keys()
        times = [layer.expires / 1e9 for layer in layers.values() if layer.expires]
        if not times and not self._left and not cut_short:
            return None
        if now is None or self._left or cut_short:
            return AGAIN_SECONDS
        return min(max(min(times) - now, 1.0), EXPIRY_LOOK_SECONDS)

    async def _undo(self) -> bool:
        """Undo what was not filled to its end; whether something could not be."""
        for number in self._filling.left():
            try:
                await self._filling.undo(number)
            except NotFound:
                pass  # who filled it has undone it meanwhile
            except (Conflict, Unreadable) as error:
                _log.warning("import_not_undone", extra={"layer": number, "reason": str(error)})
            else:
                _log.warning("import_undone", extra={"layer": number})
        return bool(self._filling.left())

    def _now(self) -> float | None:
        """The time at which both this host and the store have arrived: none of them alone has data deleted."""
        store_time = self._engine.sweeper.store_clock()
        return None if store_time is None else min(store_time, self._env.wall_clock())

    async def _delete(self, numbers: Sequence[int]) -> None:
        """Delete what of these snapshots can be; a crash leaves each of them, or not."""
        layers = self._tree.namespace.layers()
        names = {number: layers[number].name for number in numbers}
        refused = await self._snapshots.delete_several(numbers)
        for number, name in names.items():
            said = {"layer": number, "snapshot": name}
            match refused.get(number):
                case None:
                    _log.info("snapshot_expired", extra=said)
                case NotFound():
                    pass  # somebody was faster
                case error if number not in self._left:
                    _log.warning("snapshot_not_deleted", extra={**said, "reason": str(error)})
                    self._left.add(number)
