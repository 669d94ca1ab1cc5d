"""A bucket that misbehaves as real ones do, shared by all simulated processes.

Each request takes a random time to arrive and another for its reply. It may fail before anything happened; it may
happen and lose its reply; it may be reported as failed and happen *later*: after the retry, after its process died,
after a take-over, after the object that had its name was collected, at the very end. Deletions likewise, also in part.
A request that was answered may arrive once more (a proxy sent it again). It may get no answer at all, until the
transport gives it up.

Reads and listings are strongly consistent, as the race probe demands of a store. In some worlds a listing may be a
little old where the commit protocol (decision 1) needs no fresh one: reading the log, and finding the newest manifest,
which both ask for the next number by itself.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from storage.buffers import Buffer
from storage.errors import AccessDenied, AlreadyExists, NotFound, OutOfSpace, StorageError, Unavailable
from storage.objects.base import ANSWER_BYTES_MAX, Capabilities, Listing, ObjectInfo, answer_length
from tests.simulation.loop import Process, VirtualLoop
from tests.support.nonces import Nonces

URL = "sim://bucket"

JOURNAL_SECONDS = 5.0
"""How far back a stale listing may lie, at most."""

HANG_SECONDS = 60.0
"""When a request that gets no answer is given up, at most. The transport allows 10 s to one with a small body, and up
to a minute where the link was slow lately. What became of it is not known then.
"""

MISBEHAVIOUR = (
    *("slow", "fail", "lose", "late", "echo", "hang", "outage", "stale listing"),
    *("full", "access denied", "asks for a pause", "a create sent twice"),
)
"""Everything that `Observer.misbehaved` is told of."""

HIDDEN_MAX = 10
"""Changes that a stale listing may hide: fewer than the manifests that are kept, by which the newest is found."""


@dataclass
class Faults:
    """How a bucket misbehaves; all but the times are probabilities of one request."""

    seconds: float = 0.01
    slow: float = 0.0
    fail: float = 0.0
    lose: float = 0.0
    late: float = 0.0
    echo: float = 0.0
    hang: float = 0.0
    log_factor: float = 1.0
    """How much longer a request takes that concerns the log: a store slows down parts of a bucket, not the whole."""
    stale_seconds: float = 0.0
    outages: list[tuple[float, float]] = field(default_factory=list)
    remote: bool = False
    """Behind a network, as S3 is: creates are hedged, and what is said to be missing is asked for again."""


@dataclass
class Ghost:
    """A request that was reported as failed, or answered before, and has yet to arrive."""

    label: str
    name: str
    land: Callable[[], object]
    trigger: str


class Observer(Protocol):
    """Who watches the bucket: the world."""

    def happened(self, process: Process, verb: str, name: str, outcome: str) -> None: ...

    def misbehaved(self, kind: str) -> None: ...

    def changed(self, process: Process, verb: str, name: str) -> None: ...


class Bucket:
    """The objects, and the requests on their way to them."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, faults: Faults, observer: Observer) -> None:
        self.objects: dict[str, bytes] = {}
        self.modified: dict[str, float] = {}
        self.faults = faults
        self.ghosts: list[Ghost] = []
        self.unreadable: dict[str, StorageError] = {}
        """Objects that are there and cannot be read, and what a GET of them is answered for ever."""
        self.nonces: Nonces | None = None
        """Looks at everything that is sent, if it is watched at all."""
        self._loop = loop
        self._chance = chance
        self._observer = observer
        self._journal: deque[tuple[float, str, int | None]] = deque()
        """(time, name, size before) of each change, for stale listings; a size of None: was not there."""

    # --- requests

    def request(
        self, process: Process, verb: str, name: str, effect: Callable[[], Any], *, changes: bool
    ) -> asyncio.Future[tuple[StorageError | None, Any]]:
        """Send a request. The future gets (error, value), so that nobody needs to look at it."""
        future = self._loop.create_future()
        chance, faults = self._chance, self.faults
        fate = self._fate(changes=changes)
        there = faults.seconds * chance.expovariate(1.0)
        back = faults.seconds * chance.expovariate(1.0)
        if name.startswith("wal/"):
            there *= faults.log_factor
        if chance.random() < faults.slow:
            there *= 30
            self._observer.misbehaved("slow")
        if chance.random() < faults.slow:
            back *= 30

        def answer(error: StorageError | None, value: object = None) -> None:
            if not future.done():
                future.set_result((error, value))

        def arrive(*, lose: bool, answers: bool = True) -> None:
            error, value = None, None
            try:
                value = effect()
            except StorageError as refused:
                error = refused
            outcome = "lost" if lose else "ok" if error is None else type(error).__name__
            self._observer.happened(process, verb, name, outcome)
            if lose:
                error, value = Unavailable("the reply was lost"), None
            if answers:
                self._loop.outside(back, answer, error, value)

        if fate != "well":
            self._observer.misbehaved(fate)
        if fate in ("fail", "outage"):
            self._observer.happened(process, verb, name, "fail")
            self._loop.outside(there, answer, self._refusal(verb))
        elif fate == "late":
            self._observer.happened(process, verb, name, "late")
            self._haunt(process, verb, name, effect)
            self._loop.outside(there, answer, Unavailable("the store did not answer in time"))
        elif fate == "hang":
            self._observer.happened(process, verb, name, "hang")
            if chance.random() < 0.5:
                self._loop.outside(there, lambda: arrive(lose=True, answers=False))
            else:
                self._haunt(process, verb, name, effect)
            self._loop.outside(chance.choice([10.0, HANG_SECONDS]), answer, Unavailable("the store does not answer"))
        else:
            self._loop.outside(there, lambda: arrive(lose=fate == "lose"))
            if fate == "echo":
                self._haunt(process, verb, name, effect)
        return future

    def misbehaved(self, kind: str) -> None:
        """Something went wrong for a client that the bucket itself does not see."""
        self._observer.misbehaved(kind)

    def _refusal(self, verb: str) -> StorageError:
        kind = self._chance.random()
        if kind < 0.1 and verb == "create":
            self._observer.misbehaved("full")
            return OutOfSpace("the bucket is full")
        if kind < 0.2:
            self._observer.misbehaved("access denied")
            return AccessDenied("the credentials have expired")
        if kind < 0.3:
            self._observer.misbehaved("asks for a pause")
            return Unavailable("slow down", retry_after=self._chance.choice([0.1, 5.0]))
        return Unavailable("the store did not answer")

    def _fate(self, *, changes: bool) -> str:
        faults = self.faults
        now = self._loop.time()
        if any(start <= now < end for start, end in faults.outages):
            return "outage"
        draw = self._chance.random()
        kinds = [("fail", faults.fail), ("lose", faults.lose), ("hang", faults.hang)]
        if changes:
            kinds += [("late", faults.late), ("echo", faults.echo)]
        for kind, share in kinds:
            if draw < share:
                return kind
            draw -= share
        return "well"

    # --- ghosts

    def _haunt(self, process: Process, verb: str, name: str, effect: Callable[[], Any]) -> None:
        def land() -> None:
            try:
                effect()
                outcome = "landed"
            except StorageError:
                outcome = "void"
            self._observer.happened(process, verb, name, outcome)

        trigger = self._chance.choice(["time", "time", "opened", "taken", "deleted", "end"])
        ghost = Ghost(f"{process} {verb} {name}", name, land, trigger)
        self.ghosts.append(ghost)
        if trigger == "time":
            self._loop.outside(10 ** self._chance.uniform(-2, 2.3), self._release, ghost)

    def _release(self, ghost: Ghost) -> None:
        if ghost in self.ghosts:
            self.ghosts.remove(ghost)
            ghost.land()

    def trigger(self, kind: str, name: str | None = None) -> None:
        """Something happened that some late requests were waiting for."""
        for ghost in [g for g in self.ghosts if g.trigger == kind and (name is None or g.name == name)]:
            wait = self.faults.seconds * self._chance.expovariate(1.0) * self._chance.choice([0, 1, 1, 10, 50])
            self._loop.outside(wait, self._release, ghost)

    def land_all(self) -> None:
        """Everything that is still on its way arrives now, in random order."""
        ghosts, self.ghosts = self.ghosts, []
        self._chance.shuffle(ghosts)
        for ghost in ghosts:
            ghost.land()

    # --- effects

    def create(self, process: Process, name: str, data: bytes) -> None:
        if name in self.objects:
            raise AlreadyExists(f"{name} is there already")
        self._note(name)
        self.objects[name] = data
        self.modified[name] = self._loop.time()
        self._observer.changed(process, "create", name)

    def delete(self, process: Process, names: Sequence[str]) -> None:
        for name in names:
            if name in self.objects:
                self._note(name)
                del self.objects[name]
                self._observer.changed(process, "delete", name)
                self.trigger("deleted", name)

    def get(self, name: str, offset: int, length: int | None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        if name not in self.objects:
            raise NotFound(f"there is no {name}")
        if name in self.unreadable:
            self._observer.misbehaved("unreadable")
            raise self.unreadable[name]
        data = self.objects[name]
        return data[offset : offset + answer_length(name, len(data), offset, length, limit)]

    def head(self, name: str) -> ObjectInfo:
        if name not in self.objects:
            raise NotFound(f"there is no {name}")
        return ObjectInfo(name, len(self.objects[name]), self.modified.get(name))

    def list(self, prefix: str, start_after: str, limit: int | None) -> list[ObjectInfo]:
        sizes = {name: len(data) for name, data in self.objects.items() if name.startswith(prefix)}
        if self.faults.stale_seconds and not (prefix == "manifest/" and start_after):
            since = self._loop.time() - self.faults.stale_seconds * self._chance.random()
            recent = [change for change in self._journal if change[0] >= since and change[1].startswith(prefix)]
            if recent:
                self._observer.misbehaved("stale listing")
            for _, name, size in reversed(recent[-HIDDEN_MAX:]):
                sizes.pop(name, None)
                if size is not None:
                    sizes[name] = size
        names = sorted(name for name in sizes if name > start_after)
        return [ObjectInfo(name, sizes[name], self.modified.get(name)) for name in names[:limit]]

    def _note(self, name: str) -> None:
        now = self._loop.time()
        before = self.objects.get(name)
        self._journal.append((now, name, None if before is None else len(before)))
        while self._journal[0][0] < now - JOURNAL_SECONDS:
            self._journal.popleft()


class Client:
    """One process's connection to the bucket: an `ObjectStore`."""

    def __init__(self, bucket: Bucket, process: Process) -> None:
        self._bucket = bucket
        self._process = process
        self._creating: Counter[str] = Counter()
        """How many creates of a name are under way."""

    @property
    def url(self) -> str:
        return URL

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_create=True, remote=self._bucket.faults.remote)

    async def _ask(self, verb: str, name: str, effect: Callable[[], Any], *, changes: bool = False) -> Any:
        error, value = await self._bucket.request(self._process, verb, name, effect, changes=changes)
        if error is not None:
            raise error
        return value

    async def create(self, name: str, data: Buffer) -> None:
        bucket, process, content = self._bucket, self._process, bytes(data)
        if bucket.nonces is not None:
            bucket.nonces.sent(name, content)
        if name in self._creating:
            bucket.misbehaved("a create sent twice")
        self._creating[name] += 1
        try:
            await self._ask("create", name, lambda: bucket.create(process, name, content), changes=True)
        finally:
            self._creating -= Counter({name: 1})

    async def put(self, name: str, data: Buffer) -> None:
        raise AssertionError("the engine replaces nothing")

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        return await self._ask("get", name, lambda: self._bucket.get(name, offset, length, limit))  # type: ignore[no-any-return]

    async def head(self, name: str) -> ObjectInfo:
        return await self._ask("head", name, lambda: self._bucket.head(name))  # type: ignore[no-any-return]

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        return await self._ask(  # type: ignore[no-any-return]
            "list", f"{prefix} after {start_after}", lambda: self._bucket.list(prefix, start_after, limit)
        )

    async def delete(self, names: Sequence[str]) -> None:
        """A deletion of many is many deletions, each with its own fate; the first failure is the answer to all."""
        bucket, process = self._bucket, self._process
        replies = [
            bucket.request(process, "delete", name, partial(bucket.delete, process, [name]), changes=True)
            for name in names
        ]
        for reply in replies:
            error, _ = await reply
            if error is not None:
                raise error

    async def close(self) -> None:
        pass
