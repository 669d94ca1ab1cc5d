"""A reader beside whatever goes on: what it sees when it opens the store is a state that this had, and stays so."""

import asyncio
import random
from collections.abc import Callable

from storage.errors import Closed, StorageError
from storage.fs.store import Store
from tests.simulation.disk_history import Violation
from tests.simulation.env import SimEnv
from tests.simulation.happenings import Happenings
from tests.simulation.loop import Process
from tests.simulation.oracle import View
from tests.simulation.reading import look, open_engine
from tests.simulation.rotation import came_too_late
from tests.simulation.store import Client
from tests.simulation.tree import Tree
from tests.simulation.writer import TROUBLES
from tests.support.inside import engine_of


class Reader:
    """One of them; `committed` tells whether anybody has committed a manifest since a moment."""

    def __init__(
        self,
        world: Happenings,
        process: Process,
        env: SimEnv,
        chance: random.Random,
        committed: Callable[[float], bool],
    ) -> None:
        self._world = world
        self._process = process
        self._env = env
        self._chance = chance
        self._committed = committed

    async def read(self) -> None:
        """Open the store to read it, look, and look again after a while."""
        world = self._world
        since, floor = world.loop.time(), world.oracle.floor(world.oracle.newest())
        world.note(f"{self._process} starts, {floor.session.name} is the newest")
        try:
            client = Client(world.bucket, self._process)
            store, tree = await open_engine(client, self._env, world.profile, read_only=True)
            view = await look(store, tree, world.oracle, self._chance, world.damage)
            if view.lost:
                world.count("reader cannot read everything")
            else:
                world.oracle.read(str(self._process), view, floor)
                world.count("reader saw a state")
                await self._look_again(store, tree, view)
        except Violation as broken:
            world.violate(str(broken))
        except StorageError as error:
            excused = isinstance(error, TROUBLES) and since < world.calm_since
            # What it was to read was put elsewhere, and is gone from where it was.
            excused = excused or (isinstance(error, Closed) and self._committed(since))
            excused = excused or (came_too_late(error) and self._committed(since))
            if not excused and not world.damage.excuses_refusal(error):
                world.violate(f"{self._process} failed with {type(error).__name__}: {error}")
        except Exception as error:
            world.violate(f"{self._process} failed with {type(error).__name__}: {error}")

    async def _look_again(self, store: Store, tree: Tree, before: View) -> None:
        """The writer may have written, put elsewhere and deleted: a view shows what it did, or an error."""
        world = self._world
        await asyncio.sleep(10 ** self._chance.uniform(-1, 1.5))
        cache = engine_of(store).cache
        for location in list(cache.entries):
            cache.discard(location)  # it could not tell otherwise
        try:
            after = await look(store, tree, world.oracle, self._chance, world.damage)
        except Closed:
            world.count("what a reader saw was deleted")
            raise
        if after.lost:
            return
        if after.devices != before.devices:
            raise Violation(f"the view that {self._process} has of the devices has changed")
        for layer, blocks in before.contents.items():
            if any(after.contents[layer][block] != data for block, data in blocks.items()):
                raise Violation(f"the view that {self._process} has of layer {layer} has changed")
        world.count("reader saw the same again")
