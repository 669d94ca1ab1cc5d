"""One simulated server: a process that opens the store as its writer, shows what it found, and serves its clients."""

import asyncio
import random
from collections.abc import Iterable
from typing import Protocol

from storage.errors import AccessDenied, Closed, Fenced, OutOfSpace, StorageError, Unavailable
from storage.fs.store import NameTree, Store, StoreOptions
from storage.keys import DataKey
from storage.lsm.engine import Engine
from storage.lsm.tree import TreeEffects
from storage.objects.base import ObjectStore
from storage.objects.counting import RequestStats
from storage.objects.retry import RetryingStore
from tests.simulation.actors import Actor, check_extents, joined
from tests.simulation.env import SimEnv
from tests.simulation.host import HostView
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.oracle import BLOCK_BYTES, Devices, Image, Op, Oracle, Session, View, Violation
from tests.simulation.profile import Profile

KEY = DataKey(store_id=bytes(range(16)), key=bytes(range(32)))
OPEN_SECONDS = 30.0
TROUBLES = (Unavailable, OutOfSpace, AccessDenied)
"""What opening may end with while the store misbehaves. Once open, a store is asked for ever."""

RUN_BLOCKS = 4


class Tree(NameTree):
    """The tree of names, which tells its session of every change at the moment it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.session: Session | None = None
        self.positions: dict[asyncio.Task[object] | None, int] = {}

    def shape(self) -> Devices:
        namespace = self.namespace
        return {name: (inode.layer, namespace.size(inode)) for name, inode in namespace.devices()}

    def apply(self, record: bytes) -> TreeEffects:
        effects = super().apply(record)
        if self.session is not None:
            position = self.session.tree_changed(self.shape())
            self.positions[asyncio.current_task()] = position
            for layer, offset, length in effects.zeroed:
                self.session.disks[layer].add(Op(offset, length, tree=position))
        return effects


async def open_engine(
    client: ObjectStore,
    env: SimEnv,
    profile: Profile,
    *,
    host: HostView | None = None,
    take_over: bool = False,
    read_only: bool = False,
) -> tuple[Store, Tree]:
    """Open the store as `storage.fs.opening._open` does, with the key given."""
    patient = RetryingStore(client, env, None)
    tree = Tree()
    engine = await Engine.open(
        store=patient,
        opening_store=patient.with_deadline(OPEN_SECONDS),
        single_store=patient.once(),
        key=KEY,
        keys_number=1,
        tree=tree,
        env=env,
        options=profile.options,
        host=host,  # type: ignore[arg-type]
        take_over=take_over,
        read_only=read_only,
    )
    store = Store(
        objects=patient,
        stats=RequestStats(),
        engine=engine,
        tree=tree,
        env=env,
        options=StoreOptions(engine=profile.options),
        created=False,
    )
    return store, tree


async def look(store: Store, tree: Tree, oracle: Oracle, chance: random.Random) -> View:
    """Everything a store shows: the tree, and every block that anybody ever wrote, and some others."""
    devices = tree.shape()
    contents = {}
    for name, (layer, size) in devices.items():
        blocks: set[int] = set()
        for session in oracle.sessions:
            if layer in session.disks:
                blocks |= session.disks[layer].blocks()
        blocks |= {0, 7, 4096, (size - 1) // BLOCK_BYTES}
        contents[layer] = await _read_blocks(store, name, sorted(blocks))
        if chance.random() < 0.3:
            _check_extents(store, name, contents[layer])
    return View(devices, contents)


async def _read_blocks(store: Store, name: str, blocks: list[int]) -> dict[int, bytes]:
    device = store.device(name)

    async def read(first: int, count: int) -> list[tuple[int, bytes]]:
        data = joined(await device.read(first * BLOCK_BYTES, count * BLOCK_BYTES))
        if len(data) != count * BLOCK_BYTES:
            raise Violation(f"a read of {count} blocks at {first} of {name} gave {len(data)} bytes")
        return [(first + i, data[i * BLOCK_BYTES : (i + 1) * BLOCK_BYTES]) for i in range(count)]

    parts = await asyncio.gather(*(read(first, count) for first, count in runs(blocks)))
    return {block: data for part in parts for block, data in part}


def runs(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """Neighbouring blocks together, a few at most."""
    found: list[tuple[int, int]] = []
    for block in blocks:
        if found and found[-1][0] + found[-1][1] == block and found[-1][1] < RUN_BLOCKS:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((block, 1))
    return found


def _check_extents(store: Store, name: str, seen: dict[int, bytes]) -> None:
    image = Image({block: bytearray(data) for block, data in seen.items()})

    def violate(message: str) -> None:
        raise Violation(message)

    for block in seen:
        offset = block * BLOCK_BYTES
        check_extents(store.device(name).extents(offset, BLOCK_BYTES), offset, BLOCK_BYTES, image, violate)


class Surroundings(Protocol):
    """What a writer knows of its world."""

    loop: VirtualLoop
    oracle: Oracle
    profile: Profile
    calm_since: float

    def violate(self, message: str) -> None: ...

    def note(self, text: str) -> None: ...

    def stamp(self) -> int: ...

    def superseded(self, process: Process, epoch: int) -> bool: ...

    def disturbed(self, process: Process, since: float) -> bool: ...

    def opened(self, writer: "Writer") -> None: ...


class Writer:
    """A server. `state` goes from opening to serving to idle (all its clients are done, the store is still open), or
    to refused.
    """

    def __init__(
        self,
        world: Surroundings,
        process: Process,
        client: ObjectStore,
        env: SimEnv,
        host: HostView,
        chance: random.Random,
        *,
        take_over: bool,
    ) -> None:
        self.world = world
        self.process = process
        self.profile = world.profile
        self.oracle = world.oracle
        self.take_over = take_over
        self.state = "opening"
        self.users: dict[str, int] = {}
        self.stopping = False
        self.unanswered = 0
        self.store: Store
        self.session: Session
        self._tree: Tree
        self._client = client
        self._env = env
        self._host = host
        self._chance = chance
        self._served = asyncio.Event()
        self._commits: list[asyncio.Future[None]] = []
        self._since = world.loop.time()
        self._budget = world.profile.operations

    # --- what actors ask for

    def violate(self, message: str) -> None:
        self.world.violate(f"{self.process}: {message}")

    def note(self, text: str) -> None:
        self.world.note(f"{self.process}/{text}")

    def stamp(self) -> int:
        return self.world.stamp()

    def spend(self, *, counts: bool) -> bool:
        self._budget -= counts
        return self._budget >= 0

    async def next_commit(self) -> None:
        """Wait until a manifest of this writer has landed."""
        commit = asyncio.get_running_loop().create_future()
        self._commits.append(commit)
        await commit

    def committed(self) -> None:
        """A manifest of this writer has landed."""
        waiting, self._commits = self._commits, []
        for commit in waiting:
            if not commit.done():
                commit.set_result(None)

    def tree_position(self) -> int:
        return self._tree.positions.pop(asyncio.current_task())

    def layer_of(self, name: str) -> int:
        return self._tree.shape()[name][0]

    # --- life

    async def run(self) -> None:
        """Open, show what is there, serve until told to stop or superseded."""
        try:
            await self._open()
        except Violation as broken:
            self.world.violate(str(broken))
        except StorageError as error:
            self._judge_refusal(error)
        except Exception as error:
            self.violate(f"opening ended with {type(error).__name__}: {error}")
        if self.state == "serving":
            await self._serve()
            self.state = "idle"
            self._served.set()

    async def _open(self) -> None:
        self.store, self._tree = await open_engine(
            self._client, self._env, self.profile, host=self._host, take_over=self.take_over
        )
        self.store.attached = lambda name: ["a client"] * self.users.get(name, 0)
        view = await look(self.store, self._tree, self.oracle, self._chance)
        self.session = self.oracle.opened(str(self.process), self.store.epoch, view)
        self._tree.session = self.session
        self.state = "serving"
        self.note(
            f"opened with epoch {self.session.epoch} after {self.session.parent}"
            if self.session.parent is None
            else f"opened with epoch {self.session.epoch} after {self.session.parent.name}, "
            f"holds {self.session.positions} and tree {self.session.tree_position}"
        )
        self.world.opened(self)

    def _judge_refusal(self, error: StorageError) -> None:
        """Was there a reason not to open?"""
        self.note(f"was refused: {type(error).__name__}: {error}")
        self.state = "refused"
        if isinstance(error, TROUBLES) and self._since < self.world.calm_since:
            return
        if isinstance(error, Fenced):
            if self.world.disturbed(self.process, self._since):
                return
            if not self.take_over and not self.oracle.newest().closed:
                return
        self.violate(f"opening failed with {type(error).__name__}: {error}")

    async def _serve(self) -> None:
        actors = [
            asyncio.create_task(Actor(self, random.Random(self._chance.random()), f"client{number}").run())
            for number in range(self.profile.actors)
        ]
        watching = asyncio.create_task(Actor(self, random.Random(self._chance.random()), "watcher").watch())
        results = await asyncio.gather(*actors, return_exceptions=True)
        watching.cancel()
        results += await asyncio.gather(watching, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                self.violate(f"a client failed with {type(result).__name__}: {result}")
        self.judge_failure()

    def judge_failure(self) -> None:
        """A store that has failed must have had a reason."""
        if not self.store.failed.done():
            return
        error = self.store.failed.result()
        self.note(f"failed: {type(error).__name__}: {error}")
        if isinstance(error, Fenced) and self.world.superseded(self.process, self.session.epoch):
            return
        if isinstance(error, Closed) and self.session.closed:
            return
        self.violate(f"the store failed with {type(error).__name__}: {error}")

    async def close(self) -> None:
        """A clean stop, as SIGTERM asks for. Everything written must be durable if it succeeds."""
        self.stopping = True
        await self._served.wait()
        try:
            # `Store.close` marks the end in one step with its return, so nothing can be admitted in between.
            await self.store.close()
        except StorageError as error:
            self.note(f"could not close: {error}")
            self.judge_failure()
            return
        except Exception as error:
            self.violate(f"closing ended with {type(error).__name__}: {error}")
            return
        if isinstance(self.store.failed.result(), Fenced):
            return
        self.note("closed")
        try:
            self.oracle.closed(self.session)
        except Violation as broken:
            self.violate(str(broken))
