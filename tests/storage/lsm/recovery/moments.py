"""All that a crash can leave in the bucket during a short history: each moment, and each part of what was under way.

A writer's memory is lost in a crash; what is left is the bucket. At any moment that holds what was done so far and any
part of the requests that are on their way, and those may still arrive later, when the next writer has begun. A history
records these moments as it runs, each with what may be found then: of each trunk the state of one moment between the
last one that was acknowledged and the newest one that was asked for.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations

from storage.buffers import Buffer
from storage.check.findings import Kind
from storage.check.subject import Subject
from storage.check.survey import survey
from storage.lsm.compaction.plan import WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from tests.simulation.keyring import keys_in
from tests.simulation.reading import LACKS_COPY
from tests.storage.lsm.compaction.test_jobs import possible
from tests.storage.lsm.worlds import Layers, StageStore, World, durable, read, record
from tests.support.inside import contents

BLOCK = 256 * 1024
SECTOR = 4096
SIZE = 2 * BLOCK

TREE = 0
"""No layer has this number."""

NEXT = b"n" * SECTOR
"""What the next writer writes."""

Objects = dict[str, bytes]


@dataclass(frozen=True)
class State:
    """What the store shows: its trunks of layers, and what each layer holds."""

    trunks: tuple[tuple[int, ...], ...]
    layers: dict[int, bytes]
    changed: dict[int, int]
    """By layer: the number of the newest state that changed its trunk."""


@dataclass(frozen=True, eq=False)
class Request:
    """One that changes the bucket. `data` None: it deletes."""

    name: str
    data: bytes | None

    def on(self, objects: Objects) -> Objects:
        """What it leaves; an object that is there is not written again."""
        if self.data is None:
            return {name: data for name, data in objects.items() if name != self.name}
        return {self.name: self.data} | objects


@dataclass(frozen=True)
class Moment:
    """A crash now finds `objects` and any part of `coming`; and a state from `acknowledged` to `newest`, of each layer
    none before that in `floors`, and of the trunks none before that of TREE.
    """

    objects: Objects
    coming: tuple[Request, ...]
    acknowledged: int
    newest: int
    floors: dict[int, int]

    def left(self) -> Iterator[tuple[Objects, tuple[Request, ...]]]:
        """Each bucket that a crash may leave, and what may arrive later."""
        for count in range(len(self.coming) + 1):
            for part in combinations(self.coming, count):
                objects = self.objects
                for request in part:
                    objects = request.on(objects)
                yield objects, tuple(request for request in self.coming if request not in part)


class RecordingStore(StageStore):
    """Each request that changes something takes a while, and is a moment when it begins."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.passes = lambda: passes
        self.coming: list[Request] = []
        self.on_request: Callable[[], None] = lambda: None

    async def create(self, name: str, data: Buffer) -> None:
        await self._changing([Request(name, bytes(data))], super().create(name, data))

    async def put(self, name: str, data: Buffer) -> None:
        await self._changing([Request(name, bytes(data))], super().put(name, data))

    async def delete(self, names: Sequence[str]) -> None:
        await self._changing([Request(name, None) for name in names], super().delete(names))

    async def _changing(self, requests: list[Request], change: Awaitable[None]) -> None:
        self.coming += requests
        self.on_request()
        try:
            await change
        finally:
            for request in requests:
                self.coming.remove(request)


@dataclass
class History:
    """A writer with everything that it does, one step after the other."""

    world: World
    engine: Engine
    store: RecordingStore
    states: list[State]
    acknowledged: int = 0
    floors: dict[int, int] = field(default_factory=dict)
    """By layer: the state up to which what was written to it was acknowledged."""
    moments: list[Moment] = field(default_factory=list)

    @classmethod
    async def begin(cls, passes: int) -> "History":
        """With one layer, number 1."""
        world = World()
        world.store = store = RecordingStore(passes)
        engine, _ = await world.start()
        history = cls(world, engine, store, [State(((1,),), {1: bytes(SIZE)}, {1: 0})])
        store.on_request = history.note
        return history

    def note(self) -> None:
        """A crash might come now."""
        self.moments.append(
            Moment(
                contents(self.store.inner).copy(),
                tuple(self.store.coming),
                self.acknowledged,
                len(self.states) - 1,
                dict(self.floors),
            )
        )

    def layer(self, number: int) -> Layer:
        return self.engine.layers[number]

    def write(self, number: int, offset: int, letter: bytes, length: int = SECTOR) -> None:
        """Nobody is told of it yet."""
        self._held(number, offset, letter * length)
        self.layer(number).write(offset, letter * length)

    def zero(self, number: int, offset: int, length: int) -> None:
        self._held(number, offset, bytes(length))
        self.layer(number).zero(offset, length, allocated=False)

    def _held(self, number: int, offset: int, data: bytes) -> None:
        last = self.states[-1]
        before = last.layers[number]
        layers = last.layers | {number: before[:offset] + data + before[offset + len(data) :]}
        self.states.append(State(last.trunks, layers, last.changed))

    async def flush(self) -> None:
        """Everything is durable."""
        for layer in list(self.engine.layers.values()):
            await durable(self.engine, layer)
        self._all_is_acknowledged()

    async def flush_one(self, number: int) -> None:
        """What was written to one layer until now is durable; others may write meanwhile."""
        upto, layer = len(self.states) - 1, self.layer(number)
        await durable(self.engine, layer)
        self.floors[number] = max(self.floors.get(number, 0), upto)
        self.note()

    async def create(self, number: int) -> None:
        """A device of its own, beside whatever goes on."""
        last = self.states[-1]
        made = len(self.states)
        layers, changed = last.layers | {number: bytes(SIZE)}, last.changed | {number: made}
        self.states.append(State((*last.trunks, (number,)), layers, changed))
        await self.engine.change_tree(record("create", number))
        self.floors[TREE] = max(self.floors.get(TREE, 0), made)
        self.note()

    async def flush_memtable(self) -> None:
        await self.engine.flush_memtable(always=True)
        self._all_is_acknowledged()

    def _all_is_acknowledged(self) -> None:
        self.acknowledged = len(self.states) - 1
        self.note()

    async def change(self, verb: str, number: int, new: int = 0) -> None:
        """Something is done to a trunk: freeze, clone, rollback, delete."""
        last = self.states[-1]
        trunks = [list(trunk) for trunk in last.trunks]
        (trunk,) = (trunk for trunk in trunks if number in trunk)
        layers = dict(last.layers)
        if verb == "freeze":
            trunk.append(new)
            layers[new] = layers[number]
        elif verb == "clone":
            trunks.append([new])
            layers[new] = layers[number]
        elif verb == "rollback":
            del layers[trunk[-1]]
            trunk[-1], layers[new] = new, layers[number]
        else:
            trunk.remove(number)
            del layers[number]
        touched = [*trunk, new] if new else trunk
        changed = last.changed | dict.fromkeys(touched, len(self.states))
        self.states.append(State(tuple(map(tuple, trunks)), layers, changed))
        await self.world.change_trunks(self.engine, verb, number, new)
        self.note()

    async def jobs(self, *kinds: type) -> None:
        """Each job of these kinds that would be right, worth it or not, and what is not needed any more goes."""
        for kind in kinds:
            async with self.engine.compactor.working:
                for job in [job for job in await possible(self.engine) if isinstance(job, kind)][:1]:
                    await self.engine.compactor.do(job)
            self.engine.compactor.delete_replaced()
        await asyncio.sleep(0)
        self.note()

    async def checkpoint(self) -> None:
        await self.jobs(WriteCheckpoint)


async def recovered(objects: Objects, late: Sequence[Request]) -> State:
    """What the next writer finds. It writes itself; the one after it finds that too, also when what was still on its
    way has arrived meanwhile. A crash is no damage; one right behind a commit leaves a manifest without its copy.
    """
    world = World()
    store = contents(world.store.inner)
    store.update(objects)
    key, number = keys_in(store)
    surveyed = await survey(Subject(world.store, key, number, world.env, Layers, None))
    found_wrong = [
        str(each)
        for each in surveyed.findings.all
        if each.kind is not Kind.COPY or not LACKS_COPY.search(each.sentence)
    ]
    assert not found_wrong
    engine = await world.open(key=key, keys_number=number)
    found = await shown(world, engine)
    want = dict(found.layers)
    for trunk in found.trunks:
        layer = engine.layers[trunk[-1]]
        layer.write(SIZE - SECTOR, NEXT)
        want[trunk[-1]] = want[trunk[-1]][:-SECTOR] + NEXT
        await durable(engine, layer)
    await world.crash(engine)
    for request in late:
        after = request.on(store)
        store.clear()
        store.update(after)
    key, number = keys_in(store)
    engine = await world.open(key=key, keys_number=number)
    assert await shown(world, engine) == State(found.trunks, want, {})
    await world.crash(engine)
    return found


async def shown(world: World, engine: Engine) -> State:
    layers = {number: await read(layer, 0, SIZE) for number, layer in engine.layers.items()}
    return State(tuple(map(tuple, world.tree.trunks())), layers, {})


def unfit(moment: Moment, states: list[State], found: State) -> str | None:
    """Why that may not be found at that moment; None: it may.

    The trunks are those of one of the moment's states; each layer holds what it held in one of them, and not in one
    from before the change that made its trunk what it is: what had been written by then came before it. A snapshot
    never holds anything else.
    """
    reasons = []
    for number in range(max(moment.acknowledged, moment.floors.get(TREE, 0)), moment.newest + 1):
        state = states[number]
        if state.trunks != found.trunks:
            continue
        heads = {trunk[-1] for trunk in state.trunks}
        wrong = [
            layer
            for layer, content in found.layers.items()
            if not any(
                states[one].layers.get(layer) == content
                for one in (
                    range(
                        max(moment.acknowledged, state.changed[layer], moment.floors.get(layer, 0)), moment.newest + 1
                    )
                    if layer in heads
                    else [number]
                )
            )
        ]
        if not wrong:
            return None
        reasons.append(f"layers {wrong} of the trunks {state.trunks} hold what they may not")
    return "; ".join(reasons) or f"there are the trunks {found.trunks}"


def digest(objects: Objects, late: Sequence[Request], moment: Moment) -> bytes:
    """The same for what need not be tried twice."""
    hashed = hashlib.sha256(repr((moment.acknowledged, moment.newest, sorted(moment.floors.items()))).encode())
    for name in sorted(objects):
        hashed.update(name.encode() + _fingerprint(objects[name]))
    for request in late:
        hashed.update(f"late {request.name} {request.data is None}".encode())
    return hashed.digest()


@lru_cache(maxsize=1024)
def _fingerprint(data: bytes) -> bytes:
    """Moments share their objects, and Python keeps the hash by which one is found again."""
    return hashlib.sha256(data).digest()
