"""One round of a replication: a device of one store is kept alike in another one, by snapshots.

Each side is served, or at rest and opened for the moment. `replication_plan` decides; this asks both stores and moves
the bytes. Nothing is written down beside the stores: what to do follows from the snapshots that both have, so a crash
of this process or of either server, at any moment, leaves what the next round goes on from. Until a stream has come
whole the replica shows what it showed, and a snapshot is deleted only when a newer one is durable on both sides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from nbdserver.cli.shared.backend import Way, perform_in_turn, way_to
from nbdserver.cli.shared.exit_status import CONFLICT, USAGE, CommandFailed
from nbdserver.cli.shared.parameters import Place
from nbdserver.cli.shared.streams import export_stream, import_stream
from nbdserver.cli.snapshots import replication_plan as plan
from nbdserver.cli.snapshots.pipe import Pipe, PipeClosed
from nbdserver.cli.snapshots.replication_plan import Held, Round

if TYPE_CHECKING:
    from nbdserver.admin.asked import Answer
    from nbdserver.admin.operations import Operation
    from storage.env import Env
    from storage.secret import Secret

T = TypeVar("T")

END_SECONDS = 10.0
"""How long both sides may take to end when somebody interrupts; what is under way then is as if it was killed."""


class Side:
    """One of the two stores. `password` gives its password where it has to be opened."""

    def __init__(self, place: Place, password: Callable[[], Secret]) -> None:
        self.place = place
        self._password = password
        self._was_served = False

    def way(self) -> Way:
        """Unavailable: its server was there before, and is gone. It is to find its store free when it comes back."""
        from storage.errors import Unavailable
        from storage.secret import Secret

        found = way_to(self.place)
        if found.server is not None:
            self._was_served = True
            return found
        if self._was_served:
            raise Unavailable(f"the server of {self.place.store} is gone")
        # Whoever opens the store wipes what it gets.
        return Way(self.place, None, Secret(self._password()))

    def ask(self, operation: Operation) -> Answer:
        """Have one operation carried out."""

        def asked() -> Generator[Operation, Answer, Answer]:
            return (yield operation)

        return perform_in_turn(self.way(), asked(), writes=operation.writes)

    def ask_in_turn(self, asked: Generator[Operation, Answer, T]) -> T:
        """Have operations carried out that may change the store, each chosen by the answer to the one before."""
        return perform_in_turn(self.way(), asked, writes=True)

    def look(self, asked: Callable[[], Generator[Operation, Answer, T]]) -> T:
        """Have operations carried out that change nothing. A store at rest is opened to be read: each opening as its
        writer leaves objects that stay for ever. Only where an import was cut short it is opened as its writer, who
        undoes that.
        """
        from storage.errors import Conflict

        way = self.way()
        try:
            return perform_in_turn(way, asked(), writes=False)
        except Conflict:
            if way.server is not None:
                raise
        return self.ask_in_turn(asked())


@dataclass(frozen=True, slots=True)
class _Replica:
    """What the target was found to have; None where there is no such device yet."""

    prefix: str
    snapshots: list[Held] | None = None
    common: tuple[Held, Held] | None = None
    shows: str = ""
    """The snapshot whose content the device has."""


class Replication:
    """Keeps the device `replica` of `target` like a device of `source`; there the newest `keep` that came stay."""

    def __init__(self, source: Side, target: Side, device: str, replica: str, keep: int, env: Env) -> None:
        self._env = env
        self._source = source
        self._target = target
        self._device = device
        self._replica = replica
        self._keep = keep
        self._unneeded: tuple[list[str], list[str]] = ([], [])
        self.as_of: float | None = None
        """The replica is as the device was at this time, in seconds since 1970; None: not known yet."""

    def round(self, advance: Callable[[int], None]) -> Round:
        """Make the replica as the device is; `advance` is told how many bytes were moved. CommandFailed: somebody has
        to do something first. What a store raises.
        """
        store_id, here = self._look_at_source()
        found = self._target.look(lambda: self._look_at_target(store_id, here))
        self._unneeded = plan.unneeded(here, found.snapshots, found.prefix, self._keep)
        as_of = self._env.wall_clock()
        if found.common and self._is_alike(found):
            self.as_of = as_of
            return Round(self._device, self._replica, found.common[0].name, as_of, None, 0.0)
        here, taken = self._source.ask_in_turn(self._take([*here, *(found.snapshots or [])], found.prefix))
        if found.common and found.shows != found.common[1].name:
            self._target.ask_in_turn(self._go_back(found.shows, found.common[1].name))
        began = self._env.monotonic()
        moved = self._carry(taken.name, found.common and found.common[0].name, advance)
        self.as_of = taken.created
        self._unneeded = plan.unneeded(here, [*(found.snapshots or []), taken], found.prefix, self._keep)
        seconds = self._env.monotonic() - began
        return Round(self._device, self._replica, taken.name, taken.created, moved, seconds)

    def tidy(self) -> None:
        """Delete what the last round found to be needed no more. What is in use stays until a later one. A crash before
        it does too.
        """
        from nbdserver.admin.replica_operations import DeleteUnneeded

        here, there = self._unneeded
        if here:
            self._source.ask(DeleteUnneeded(self._device, here))
        if there:
            self._target.ask(DeleteUnneeded(self._replica, there))
        self._unneeded = ([], [])

    def _look_at_source(self) -> tuple[str, list[Held]]:
        """The identity of the store, and the snapshots of the device. NotFound."""
        from nbdserver.admin.replica_operations import ShowHistory
        from storage.errors import NotFound

        answer = self._source.ask(ShowHistory(self._device))
        if answer["snapshots"] is None:
            raise NotFound(f"there is no device named {self._device!r} at {self._source.place.store}")
        return answer["store_id"], _held(answer)

    def _look_at_target(self, store_id: str, here: list[Held]) -> Generator[Operation, Answer, _Replica]:
        """CommandFailed: what is there cannot be gone on from."""
        from nbdserver.admin.replica_operations import ShowHistory

        where = f"{self._replica!r} at {self._target.place.store}"
        answer = yield ShowHistory(self._replica)
        if answer["store_id"] == store_id:
            raise same_store(self._target.place.store)
        prefix = plan.own_prefix(answer["store_id"], self._replica)
        if answer["snapshots"] is None:
            return _Replica(prefix)
        there = _held(answer)
        common = plan.newest_common(here, there)
        if common is None:
            raise CommandFailed(
                f"{where} has no snapshot in common with {self._device!r}, so there is nothing to go on from: "
                "make a new replica with --as NAME, or delete that device",
                status=CONFLICT,
            )
        shows = (yield _find_held(self._replica, plan.brought(here, there, prefix)))["snapshot"]
        if shows is None:
            raise CommandFailed(
                f"{where} was written to by somebody, and is no replica any more: "
                f"take that back with: nbdserver snapshot rollback {self._replica}@{common[1].name}, "
                "or make a new replica with --as NAME",
                status=CONFLICT,
            )
        return _Replica(prefix, there, common, shows)

    def _is_alike(self, found: _Replica) -> bool:
        """Whether the device still holds what the replica shows, by a snapshot that nobody else deletes."""
        if found.common is None or found.shows != found.common[1].name or not plan.own([found.common[0]], found.prefix):
            return False
        held = self._source.ask(_find_held(self._device, [found.common[0].name]))
        return held["snapshot"] is not None

    def _take(self, both: list[Held], prefix: str) -> Generator[Operation, Answer, tuple[list[Held], Held]]:
        """Take a snapshot of the device, by a name that none of `both` sides has: all that it has then, and that one.
        A crash from here on leaves one that the next round deletes before it takes one: rounds that fail do not pile
        them up.
        """
        from nbdserver.admin.replica_operations import DeleteUnneeded, ShowHistory
        from nbdserver.admin.snapshot_operations import CreateSnapshot

        if self._unneeded[0]:
            yield DeleteUnneeded(self._device, self._unneeded[0])
        name = plan.new_name(prefix, self._env.wall_clock(), both)
        yield CreateSnapshot([self._device], name)
        found = _held((yield ShowHistory(self._device)))
        return found, next(one for one in found if one.name == name)

    def _go_back(self, shows: str, common: str) -> Generator[Operation, Answer, None]:
        """The replica holds what an older snapshot holds, whose successor the source has no more. What it held goes
        into a snapshot, in case somebody wrote to it just now, and that is deleted if it is what `shows` holds: that
        one is still there. A crash in between leaves it to people.
        """
        from nbdserver.admin.replica_operations import DeleteUnneeded
        from nbdserver.admin.snapshot_operations import DiffSnapshot, RollBackDevice

        kept = (yield RollBackDevice(self._replica, common, keep=True))["kept"].partition("@")[2]
        if not (yield DiffSnapshot(self._replica, shows, kept, 0))["ranges"]:
            yield DeleteUnneeded(self._replica, [kept])

    def _carry(self, snapshot: str, base: str | None, advance: Callable[[int], None]) -> int:
        """Bring a snapshot to the target; durable there on return. How many bytes that took. A crash of any of the
        three processes before that leaves the replica as it was, and none if there was none.
        """
        source, target = self._source.way(), self._target.way()

        def export(take: Callable[[bytes], None]) -> None:
            export_stream(source, (self._device, snapshot), base, take)

        def fill(parts: Iterator[bytes]) -> None:
            import_stream(target, self._replica, parts)

        return carry(export, fill, advance)


def carry(
    export: Callable[[Callable[[bytes], None]], None],
    fill: Callable[[Iterator[bytes]], None],
    advance: Callable[[int], None],
) -> int:
    """Have `fill` take what `export` gives, each in a thread of its own; how many bytes that was. Raises what either of
    them raises; then the other one is ended too.
    """
    pipe, moved = Pipe(), 0
    failures: list[BaseException] = []

    def take(part: bytes) -> None:
        nonlocal moved
        pipe.put(part)
        moved += len(part)
        advance(moved)

    def exporting() -> None:
        export(take)
        pipe.finish()

    def run(what: Callable[[], None]) -> None:
        try:
            what()
        except BaseException as error:
            failures.append(error)
            pipe.close()

    threads = [threading.Thread(target=run, args=(each,), daemon=True) for each in (exporting, lambda: fill(pipe))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        pipe.close()
        for thread in threads:
            thread.join(END_SECONDS)
        raise
    for failure in failures:
        if not isinstance(failure, PipeClosed):
            raise failure
    return moved


def same_store(store: str) -> CommandFailed:
    """The error for a store that is to be replicated into itself."""
    return CommandFailed(
        f"{store} is the same store, or a copy of it: a replica has to be in another one", status=USAGE
    )


def _find_held(device: str, snapshots: list[str]) -> Operation:
    from nbdserver.admin.replica_operations import FindHeld

    return FindHeld(device, snapshots)


def _held(answer: Answer) -> list[Held]:
    return [Held(one["name"], one["identity"], one["created"]) for one in answer["snapshots"]]
