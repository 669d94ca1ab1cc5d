"""One simulated server: a process that opens the store as its writer, shows what it found, and serves its clients."""

import asyncio
import random
from typing import Protocol

from storage.errors import AccessDenied, Closed, Conflict, Fenced, OutOfSpace, StorageError, Unavailable
from storage.format.journal_batch import append
from storage.fs.store import Store
from storage.lsm.recovery.view import ViewAhead
from storage.objects.base import ObjectStore
from tests.simulation.actors import Actor
from tests.simulation.damage import Damage
from tests.simulation.disk_history import Violation
from tests.simulation.env import SimEnv
from tests.simulation.host import HostView, SimFiles
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.names import ON_TRUNKS, Change
from tests.simulation.oracle import Floor, Oracle, Session, View
from tests.simulation.profile import Profile
from tests.simulation.reading import look, open_engine
from tests.simulation.returning import ReturningClients
from tests.simulation.rotation import came_too_late, rotate_now_and_then
from tests.simulation.tree import Tree
from tests.support.inside import engine_of, layers_of, next_batch, place_of

TROUBLES = (Unavailable, OutOfSpace, AccessDenied)
"""What opening may end with while the store misbehaves. Once open, a store is asked for ever."""


class Surroundings(Protocol):
    """What a writer knows of its world."""

    loop: VirtualLoop
    oracle: Oracle
    profile: Profile
    damage: Damage
    returning: ReturningClients
    calm_since: float

    def violate(self, message: str) -> None: ...

    def note(self, text: str) -> None: ...

    def stamp(self) -> int: ...

    def count(self, what: str) -> None: ...

    def watch_closely(self) -> None: ...

    def superseded(self, process: Process, epoch: int) -> bool: ...

    def disturbed(self, process: Process, since: float) -> bool: ...

    def opened(self, writer: "Writer") -> None: ...

    def has_journal_of_last(self, writer: "Writer", epoch: int) -> bool: ...

    def completed(self, view: View, objects: dict[str, bytes]) -> View: ...


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
        journal: SimFiles | None,
        gone: frozenset[Process],
        ahead: ViewAhead | None,
    ) -> None:
        """`gone`: the processes that had died before it began. `ahead`: what was read before that."""
        self._ahead = ahead
        self.journal = journal
        self.gone = gone
        self.world = world
        self.process = process
        self.profile = world.profile
        self.oracle = world.oracle
        self.take_over = take_over
        self.state = "opening"
        self.users: dict[str, int] = {}
        self.stopping = False
        self.unanswered = 0
        self.damage = world.damage
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

    def seen(self, what: str) -> None:
        self.world.count(what)

    def watch_closely(self) -> None:
        self.world.watch_closely()

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

    def floor(self) -> Floor:
        """What must be found if all died now: what flushes were answered for, and what memory takes for durable."""
        floor = self.oracle.floor(self.session)
        layers = engine_of(self.store).layers
        # A snapshot has what its device had: that goes on with the same queue.
        queues = {n: layers[trunk[-1]].queue for trunk in self._tree.trunks() for n in trunk}
        disks = {
            number: max(acked, self.session.disks[number].admitted(queues[number].acked_sequence))
            if number in queues
            else acked
            for number, acked in floor.disks.items()
        }
        tree = layers_of(engine_of(self.store)).tree_queue.acked_sequence
        known = [position for sequence, position in self.session.tree_sequences if sequence <= tree]
        return Floor(self.session, max([floor.tree, *known]), disks)

    def answers_unflushed(self) -> bool:
        """Whether it has answered what no flush covers."""
        return self.state == "serving" and any(disk.answered > disk.acked for disk in self.session.disks.values())

    def is_meant(self, name: str) -> bool:
        """Whether somebody is going to change something of that name."""
        meant = [change for changes in (*self._tree.intents.values(), self._tree.left) for change in changes]
        return any(name in (change.new, change.name.partition("@")[2]) for change in meant)

    def intend(self, task: asyncio.Task[None], changes: list[Change]) -> None:
        """This task is going to make some of these changes, in order."""
        self._tree.intents[task] = changes

    def tree_position(self, task: asyncio.Task[None]) -> int | None:
        """The last change a task made, as a length of the history; None if it made none. It makes no more."""
        left = self._tree.intents.pop(task)
        self._tree.left += [change for change in left if change.verb in ON_TRUNKS and task.cancelled()]
        return self._tree.positions.pop(task, None)

    @property
    def job(self) -> str | None:
        """The kind of job that its maintenance is busy with."""
        return engine_of(self.store).compactor.progress.job if hasattr(self, "store") else None

    def jobs(self) -> dict[str, int]:
        """How many of each kind its maintenance did."""
        return engine_of(self.store).compactor.progress.jobs if hasattr(self, "store") else {}

    def layer_of(self, name: str) -> int:
        return self.session.devices[-1][name][0]

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
            self._client,
            self._env,
            self.profile,
            host=self._host,
            take_over=self.take_over,
            journal=self.journal,
            ahead=self._ahead,
        )
        if self._ahead is not None:
            self.seen("what was read ahead was " + ("gone on with" if self._ahead.take([]) is None else "of no use"))
        if self.journal is not None:
            self.journal.tears(self._next_batch)
        self.store.open_devices.clients_of = lambda name: ["a client"] * self.users.get(name, 0)
        # What is damaged is looked up in what the bucket would be without: now, before others change it.
        sound = self.damage.healed()
        view = await look(self.store, self._tree, self.oracle, self._chance, self.damage)
        lost, opened = bool(view.lost), self.store.epoch
        if lost:
            self.seen("session opened that cannot read everything")
            view = self.world.completed(view, sound)
        try:
            self.session = self._compare(opened, view)
        except Violation:
            if not (lost and self.world.superseded(self.process, opened)):
                raise
            # What it could not read was looked up after the next writer had begun: it says nothing of this one's state.
            self.process.kill()
            return
        self._tree.session = self.session
        self._tree.violate = self.violate
        self._tree.sequence = lambda: engine_of(self.store).writes.sequence
        self.store.keep_up()
        self.state = "serving"
        self.note(
            f"opened with epoch {self.session.epoch} after {self.session.parent}"
            if self.session.parent is None
            else f"opened with epoch {self.session.epoch} after {self.session.parent.name}, "
            f"holds {self.session.positions} and tree {self.session.tree_position}"
        )
        self.world.opened(self)

    def _compare(self, opened: int, view: View) -> Session:
        """The session of that epoch, which shows this; Violation, also where it has lost what it says is there."""
        manifests, returning = engine_of(self.store).manifests, self.world.returning
        parent = self.oracle.newest(below=opened)
        journal = self.world.has_journal_of_last(self, opened)
        told = returning.ask(opened, manifests.is_unbroken_since)
        session = self.oracle.opened(str(self.process), opened, view, whole=journal or parent.epoch in told)
        whole = bool(parent.epoch) and (journal or (parent.closed and parent.epoch + 1 == opened))
        returning.attach(opened, manifests.incarnation, told, parent, whole=whole)
        if parent.epoch:
            self.seen("a client went on" if parent.epoch in told else "a client was told of a loss")
        return session

    def _next_batch(self) -> tuple[int, bytes, int]:
        """What this process, if it dies now, may have begun to write: a segment, how it would be then, and where in it
        the batch begins."""
        journal = engine_of(self.store).journal
        place = place_of(journal)
        batch = next_batch(journal)
        if place is None or batch is None or not journal.pending:
            return 0, b"", 0
        number, position, memory, at = batch
        _, end = append(memory, at, place.cipher, (number, position), journal.pending, 0)
        return (number, bytes(memory[:end]), at) if end > at else (0, b"", 0)

    def _judge_refusal(self, error: StorageError) -> None:
        """Was there a reason not to open?"""
        self.note(f"was refused: {type(error).__name__}: {error}")
        self.state = "refused"
        if isinstance(error, TROUBLES) and self._since < self.world.calm_since:
            return
        if self.profile.rotations and came_too_late(error) and self.world.disturbed(self.process, self._since):
            self.seen("refused for a data key that was drawn meanwhile")
            return
        if self.damage.excuses_refusal(error):
            self.seen(f"refused for what is damaged: {type(error).__name__}")
            return
        if isinstance(error, Fenced | Conflict):
            if isinstance(error, Fenced) and self.world.disturbed(self.process, self._since):
                return
            if not self.take_over and not self.oracle.newest().closed:
                return
        self.violate(f"opening failed with {type(error).__name__}: {error}")

    @property
    def passed_a_journal_by(self) -> bool:
        """Whether it was told to take the store, and another living process had a journal that it wanted."""
        return self.take_over and self.journal is not None and self.journal.withheld

    async def _serve(self) -> None:
        actors = [
            asyncio.create_task(Actor(self, random.Random(self._chance.random()), f"client{number}").run())
            for number in range(self.profile.actors)
        ]
        watching = asyncio.create_task(Actor(self, random.Random(self._chance.random()), "watcher").watch())
        beside = [watching]
        if self.profile.rotations:
            chance = random.Random(f"rotations of {self.process} {self._since}")
            beside.append(asyncio.create_task(rotate_now_and_then(self, self.profile.rotations, chance)))
        results = await asyncio.gather(*actors, return_exceptions=True)
        for task in beside:
            task.cancel()
        results += await asyncio.gather(*beside, return_exceptions=True)
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
