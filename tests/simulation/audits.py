"""A store is rebuilt from what lies in the bucket, as if all died at this moment, and compared with what was promised.

That is done at random changes of the bucket, and every so many steps of the event loop. What must be there is what any
flush was answered for, and what the newest writer's memory takes for durable, whether anybody asked or not.
"""

import gc
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Protocol, TypeVar

from storage.check.subject import Subject
from storage.check.survey import survey
from storage.errors import StorageError
from storage.objects.retry import RetryingStore
from tests.simulation.damage import Damage
from tests.simulation.disk_history import ZEROS, Violation
from tests.simulation.env import SimEnv
from tests.simulation.keyring import keys_in
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.oracle import Floor, Oracle, View
from tests.simulation.profile import Profile
from tests.simulation.reading import OPEN_SECONDS, complain, look, open_engine
from tests.simulation.spoiling import spoil
from tests.simulation.store import Bucket, Client, Faults
from tests.simulation.tree import Tree

T = TypeVar("T")

STEPS_MAX = 600_000
"""Steps of one world; the busiest take a tenth of that."""

AUDITS_MAX = 14
"""Recoveries from a copy in one world: the busiest worlds would try hundreds, and others are better tried instead."""

STEPS_AUDITS_MAX = 5
"""Of those, at most so many because of the number of steps."""

SPOILED_SHARE = 0.4
"""Of the recoveries, so many are tried again with one object spoiled."""

AT_MANIFEST = 4
"""How much likelier a recovery is tried at a new manifest: what it holds and the log behind it may overlap."""


class Audited(Protocol):
    """What is known of the world whose bucket is looked at."""

    loop: VirtualLoop
    oracle: Oracle
    profile: Profile
    bucket: Bucket
    damage: Damage
    violation: str | None

    def violate(self, message: str) -> None: ...

    def count(self, what: str) -> None: ...

    def floor(self) -> Floor: ...


class Audits:
    """When to look at one world's bucket, and what must be found."""

    def __init__(self, world: Audited, chance: random.Random, spoiling: random.Random) -> None:
        """`spoiling` decides what is spoiled in copies, apart from all else."""
        self._world = world
        self._chance = chance
        self._spoiling = spoiling
        self.watchful = False
        """The next manifest is looked at in any case."""
        self._done = 0
        self._by_steps = 0

    def changed(self, *, manifest: bool, keys: bool = False) -> None:
        """The bucket changed; perhaps a new manifest, or new keys, at which one is tried in any case."""
        share = 1.0 if keys else self._world.profile.audits * (AT_MANIFEST if manifest else 1)
        watched = self.watchful and manifest
        if self._done < AUDITS_MAX and (self._chance.random() < share or watched):
            self.watchful = self.watchful and not watched
            self._audit()

    def stepped(self) -> None:
        """So many steps were made again."""
        if self._by_steps < STEPS_AUDITS_MAX and self._done < AUDITS_MAX:
            self._by_steps += 1
            self._audit()

    def _audit(self) -> None:
        """Recover a copy of the bucket as it is now, or as it would be if nothing were damaged."""
        world = self._world
        if world.violation is not None:
            return
        self._done += 1
        world.count("recovery from a copy")
        damaged = bool(world.damage.name) and self._chance.random() < 0.5
        try:
            inspect(world)
            view = recover(world, read_only=self._chance.random() < 0.3, damaged=damaged)
            floor = world.floor()
            if floor.session.epoch:
                world.oracle.locate("a recovery at this moment", 0, view, floor)
            if self._spoiling.random() < SPOILED_SHARE:
                open_spoiled(world, floor, self._spoiling)
        except Violation as broken:
            world.violate(str(broken))
        except StorageError as error:
            if damaged and world.damage.excuses_refusal(error):
                world.count(f"refused for what is damaged: {type(error).__name__}")
                return
            world.violate(f"a recovery at this moment fails with {type(error).__name__}: {error}")
        except Exception as error:
            world.violate(f"a recovery at this moment fails with {type(error).__name__}: {error}")


def recover(world: Audited, *, read_only: bool, damaged: bool = False) -> View:
    """What a store shows that is opened on a copy of the bucket; without what is damaged, or with it."""
    if not damaged:
        return open_copy(world, world.damage.healed(), read_only=read_only)
    view = open_copy(
        world,
        dict(world.bucket.objects),
        read_only=read_only,
        damage=world.damage,
        unreadable=world.bucket.unreadable,
    )
    return completed(world, view, world.damage.healed())


def inspect(world: Audited) -> None:
    """Violation: a check finds something in a copy of the bucket, in which nothing is damaged."""
    world.count("check of a copy")

    objects = world.damage.healed()
    key, number = keys_in(objects)

    async def work(client: Client, env: SimEnv) -> None:
        store = RetryingStore(client, env, OPEN_SECONDS)
        found = await survey(Subject(store, key, number, env, Tree, options=world.profile.options))
        complain("a copy", found)

    in_copy(world, objects, work)


def open_spoiled(world: Audited, floor: Floor, chance: random.Random) -> None:
    """Open a copy in which one object is spoiled. Violation: that is neither refused as it has to be, nor whole."""
    spoiled = spoil(world.damage.healed(), chance)
    if spoiled is None:
        return
    objects = dict(spoiled.objects)
    try:
        view = open_copy(world, objects, read_only=chance.random() < 0.5, unreadable=spoiled.unreadable)
    except StorageError as error:
        spoiled.judge_refusal(error)
        if objects != spoiled.objects:
            raise Violation(f"a store with {spoiled} is refused, and something was written to it") from error
        world.count(f"refused for what is spoiled: {spoiled.part}, {spoiled.way}")
        return
    if spoiled.must_refuse:
        raise Violation(f"a store opens with {spoiled}")
    if spoiled.may_be_older:
        world.oracle.read(f"a store with {spoiled}", view, Floor(world.oracle.root, 0, {}))
    elif floor.session.epoch:
        world.oracle.locate(f"a store with {spoiled}", 0, view, floor)
    world.count(f"opened with what is spoiled: {spoiled.part}, {spoiled.way}")


def completed(world: Audited, view: View, objects: dict[str, bytes]) -> View:
    """A view with what could not be read put in, from sound objects of the same moment."""
    if not view.lost:
        return view
    world.count("recovery that cannot read everything")
    sound = open_copy(world, objects, read_only=True)
    contents = {
        layer: found | {block: sound.contents.get(layer, {}).get(block, ZEROS) for block in view.lost.get(layer, ())}
        for layer, found in view.contents.items()
    }
    return View(view.devices, contents)


def open_copy(
    world: Audited,
    objects: dict[str, bytes],
    *,
    read_only: bool,
    damage: Damage | None = None,
    unreadable: Mapping[str, StorageError] | None = None,
) -> View:
    """Open a copy of a bucket in a world of its own, in which nothing else goes wrong, and look."""

    async def work(client: Client, env: SimEnv) -> View:
        store, tree = await open_engine(client, env, world.profile, take_over=True, read_only=read_only)
        return await look(store, tree, world.oracle, random.Random(f"look {world.loop.time()}"), damage)

    return in_copy(world, objects, work, unreadable or {})


def in_copy(
    world: Audited,
    objects: dict[str, bytes],
    work: Callable[[Client, SimEnv], Coroutine[None, None, T]],
    unreadable: Mapping[str, StorageError] | None = None,
) -> T:
    """Do something with a copy of a bucket, in a world of its own."""
    loop = VirtualLoop(steps_max=STEPS_MAX)
    chance = random.Random(f"copy {world.loop.time()}")
    bucket = Bucket(loop, chance, Faults(seconds=0.0001), Unseen())
    bucket.objects = objects
    bucket.modified = dict(world.bucket.modified)
    bucket.unreadable = dict(unreadable or {})
    process = Process("copy", "elsewhere")
    env = SimEnv(loop, chance, skew=0.0, thread_seconds=0.0)
    done: list[T] = []

    async def run() -> None:
        done.append(await work(Client(bucket, process), env))

    try:
        loop.run(run())
        return done[0]
    finally:
        loop.wind_up()
        # What is young is mostly this copy and its engine, which hold each other in memory.
        gc.collect(0)


class Unseen:
    """Watches a copy of a bucket: what happens to it is of no interest."""

    def happened(self, process: Process, verb: str, name: str, outcome: str) -> None:
        pass

    def misbehaved(self, kind: str) -> None:
        pass

    def changed(self, process: Process, verb: str, name: str) -> None:
        pass
