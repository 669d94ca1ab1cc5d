"""A small world for the real engine: a store in memory whose requests can be held, counted and
failed, a tree of layers that is easy to read, and opening and crashing an engine in it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from storage.buffers import Buffer
from storage.crypto.data_key import DataKey
from storage.env import RealEnv
from storage.errors import Closed, Corrupt, StorageError
from storage.format.trunks import (
    CloneSnapshot,
    DropLayer,
    DropSnapshot,
    FreezeHead,
    MakeLayer,
    Operation,
    RollBack,
)
from storage.journal.files import JournalFiles
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import EngineOptions
from storage.lsm.read.assemble import Piece
from storage.lsm.recovery.anchor import HostState
from storage.lsm.tree_state import TreeEffects
from storage.objects.base import ANSWER_BYTES_MAX, Capabilities, Listing, ObjectInfo
from storage.objects.memory import MemoryStore
from storage.secret import Secret
from tests.support.idle import idle, turns
from tests.support.inside import contents
from tests.support.nonces import Nonces
from tests.support.waiting import until

T = TypeVar("T")

MIB = 1024 * 1024

KEY = DataKey(store_id=bytes(range(16)), key=Secret(bytes(range(32))))


class InlineEnv(RealEnv):
    """The real world, but what would run in a thread runs at once: no test depends on which thread is faster."""

    async def run(self, pool: str, function: Callable[..., T], *args: object) -> T:
        await asyncio.sleep(0)
        return function(*args)


class Layers:
    """A tree of names that holds nothing but its trunks of layers. It is as strict as the real one: a record that was
    applied before does not fit again.
    """

    def __init__(self) -> None:
        self._trunks: list[list[int]] = []
        self.next = 1

    def load(self, image: bytes) -> None:
        self.next, self._trunks = msgspec.msgpack.decode(image, type=tuple[int, list[list[int]]])

    def encode(self) -> bytes:
        return msgspec.msgpack.encode((self.next, self._trunks))

    def apply(self, record: bytes) -> TreeEffects:
        verb, number, offset, length = msgspec.msgpack.decode(record, type=tuple[str, int, int, int])
        if verb == "create":
            self._trunks.append([self._new(number)])
            return TreeEffects(operations=[MakeLayer(number)])
        trunk = next((trunk for trunk in self._trunks if number in trunk), None)
        if trunk is None:
            raise Corrupt("the tree", f"there is no layer {number}")
        if verb == "zero":
            return TreeEffects(zeroed=[(number, offset, length)])
        return TreeEffects(operations=[self._operate(verb, trunk, number, offset)])

    def _operate(self, verb: str, trunk: list[int], number: int, new: int) -> Operation:
        if verb == "drop":
            self._trunks.remove([number])
            return DropLayer(number)
        if verb == "delete":
            trunk.remove(number)
            return DropSnapshot(number)
        self._new(new)
        if verb == "freeze":
            trunk.append(new)
            return FreezeHead(number, new)
        if verb == "clone":
            self._trunks.append([new])
            return CloneSnapshot(number, new)
        head, trunk[-1] = trunk[-1], new
        return RollBack(number, head, new)

    def _new(self, number: int) -> int:
        if number != self.next:
            raise Corrupt("the tree", f"layer {number} is not the next one")
        self.next += 1
        return number

    def trunks(self) -> Iterable[list[int]]:
        return [list(trunk) for trunk in self._trunks]


def record(verb: str, number: int, offset: int = 0, length: int = 0) -> bytes:
    """A change of the tree: create, zero (a range) or drop a layer; freeze, clone, rollback (to a snapshot), each with
    the number of the new layer in place of the offset; delete a snapshot.
    """
    return msgspec.msgpack.encode((verb, number, offset, length))


@dataclass
class Hold:
    """Requests of `verb` to names with `prefix` wait from now on until `release`; `waiting` is how many do."""

    verb: str
    prefix: str
    waiting: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        self.released.set()

    async def someone_waits(self, count: int = 1) -> None:
        await until(lambda: self.waiting >= count)


class StageStore:
    """`inner`, whose requests are written down in `calls` as (verb, name, bytes) and may be held back or failed."""

    def __init__(self, inner: MemoryStore | None = None) -> None:
        self.inner = inner or MemoryStore()
        self.calls: list[tuple[str, str, int]] = []
        self.holds: list[Hold] = []
        self.failures: list[tuple[str, str, BaseException]] = []
        self.denials: list[tuple[str, str, StorageError]] = []
        self.nonces = Nonces(KEY)
        self.passes: Callable[[], int] = lambda: 1
        """How many passes of the event loop the next request takes."""

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    @property
    def objects(self) -> dict[str, bytes]:
        """Name to content: to look at and to tamper with."""
        return contents(self.inner)

    def hold(self, verb: str, prefix: str = "") -> Hold:
        held = Hold(verb, prefix)
        self.holds.append(held)
        return held

    def fail_once(self, verb: str, prefix: str, error: BaseException) -> None:
        self.failures.append((verb, prefix, error))

    def deny(self, verb: str, prefix: str, error: StorageError) -> None:
        """From now on requests of `verb` to names with `prefix` fail, until `denials` is cleared."""
        self.denials.append((verb, prefix, error))

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self.objects if name.startswith(prefix))

    def count(self, verb: str, prefix: str = "") -> int:
        return sum(call[0] == verb and call[1].startswith(prefix) for call in self.calls)

    def uploaded(self, prefix: str = "") -> int:
        return sum(size for verb, name, size in self.calls if verb == "create" and name.startswith(prefix))

    async def _asked(self, verb: str, name: str, size: int = 0) -> None:
        self.calls.append((verb, name, size))
        await turns(self.passes())
        for held in list(self.holds):
            if held.verb == verb and name.startswith(held.prefix) and not held.released.is_set():
                held.waiting += 1
                try:
                    await held.released.wait()
                finally:
                    held.waiting -= 1
        for denied in self.denials:
            if denied[0] == verb and name.startswith(denied[1]):
                raise denied[2]
        for failure in self.failures:
            if failure[0] == verb and name.startswith(failure[1]):
                self.failures.remove(failure)
                raise failure[2]

    async def create(self, name: str, data: Buffer) -> None:
        self.nonces.sent(name, bytes(data))
        await self._asked("create", name, len(data))
        await self.inner.create(name, data)

    async def put(self, name: str, data: Buffer) -> None:
        await self._asked("put", name, len(data))
        await self.inner.put(name, data)

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        await self._asked("get", name, length or 0)
        return await self.inner.get(name, offset, length, limit)

    async def head(self, name: str) -> ObjectInfo:
        await self._asked("head", name)
        return await self.inner.head(name)

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        await self._asked("list", prefix)
        return await self.inner.list(prefix, start_after, limit)

    async def delete(self, names: Sequence[str]) -> None:
        for name in names:
            await self._asked("delete", name)
        await self.inner.delete(names)

    async def close(self) -> None:
        pass


class World:
    """A store and the engines that come and go on it."""

    def __init__(
        self, *, host: HostState | None = None, options: EngineOptions | None = None, threads: bool = False
    ) -> None:
        self.now = 0.0
        """Seconds on the store's clock."""
        self.store = StageStore(MemoryStore(clock=lambda: self.now))
        self.host = host
        self.options = options or EngineOptions(cache_bytes=16 * MIB)
        self.env = RealEnv() if threads else InlineEnv()
        self.journals: Callable[[], JournalFiles] | None = None
        """Where writers have their journals; None: they have none."""
        self.tree = Layers()

    async def open(
        self,
        *,
        take_over: bool = True,
        accept_rollback: bool = False,
        adopt: bool = False,
        read_only: bool = False,
        prepare: Callable[[], Awaitable[None]] | None = None,
        keys_number: int = 1,
        key: DataKey = KEY,
    ) -> Engine:
        self.tree = Layers()
        return await Engine.open(
            store=self.store,
            key=key,
            keys_number=keys_number,
            tree=self.tree,
            env=self.env,
            options=self.options,
            host=self.host,
            take_over=take_over,
            accept_rollback=accept_rollback,
            adopt=adopt,
            read_only=read_only,
            prepare=prepare,
            journal=None if self.journals is None else self.journals(),
        )

    async def start(self) -> tuple[Engine, Layer]:
        """A new engine with one layer, number 1."""
        engine = await self.open()
        await engine.change_tree(record("create", 1))
        return engine, engine.layers[1]

    async def change_trunks(self, engine: Engine, verb: str, number: int, new: int = 0) -> None:
        """Something that is done to the trunk of layer `number`: freeze, clone, rollback, delete; in the indexes when
        this returns.
        """
        await engine.change_trunks(lambda: self.plan(verb, number, new))
        await engine.flush_memtable()

    def plan(self, verb: str, number: int, new: int = 0) -> tuple[bytes, list[int]]:
        """The record of that, and the heads that it is about."""
        return record(verb, number, new), [trunk[-1] for trunk in self.tree.trunks() if number in trunk]

    async def crash(self, engine: Engine) -> None:
        """End an engine as kill -9 does: nothing more is sent, nothing is given back, what was held back is gone."""
        for task in asyncio.all_tasks():
            # Nobody is left to look at what becomes of it.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        engine.fail(Closed("killed by the test"))
        self.store.holds.clear()
        await idle()

    async def reopen(self, engine: Engine) -> tuple[Engine, Layer]:
        await self.crash(engine)
        opened = await self.open()
        return opened, opened.layers[1]


def join(pieces: list[Piece]) -> bytes:
    """The bytes of an answer."""
    return b"".join(bytes(piece) for piece in pieces)


async def read(layer: Layer, offset: int, length: int) -> bytes:
    """Read both ways: what memory answers must be what a full read answers."""
    whole = join(await layer.read(offset, length))
    cached = layer.read_cached(offset, length)
    assert cached is None or join(cached) == whole
    return whole


async def durable(engine: Engine, layer: Layer) -> None:
    await engine.durable(layer.queue, layer.last_sequence)


def when_durable(layer: Layer, sequence: int, callback: Callable[[], None]) -> bool:
    """Whether everything up to `sequence` is durable; if not, `callback` is called once it is."""
    log = layer.queue

    def listener(upto: int) -> None:
        if upto >= sequence:
            log.unlisten(listener)
            callback()

    if log.want_durable(sequence):
        return True
    log.listen(listener)
    return False


def known_to_be_fast(engine: Engine) -> None:
    """As if a large object had just arrived at once: sizes are what they are on a fast store."""
    engine.commit.pace.sent(16 * MIB)
    engine.commit.pace.confirmed(16 * MIB)
