"""What happens in a world, seen from outside: commits, fences, epochs, and what the oracle is told of them."""

import asyncio
import hashlib
import logging
import random
import traceback
from collections import Counter
from collections.abc import Callable

from storage.format.envelope import HEADER_BYTES, ObjectKind, decode_header
from tests.simulation.audits import STEPS_MAX, Audits, completed
from tests.simulation.damage import Damage
from tests.simulation.keyring import KEY, first_keys, keys_in
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.oracle import Floor, Oracle, View
from tests.simulation.profile import profile_of
from tests.simulation.returning import ReturningClients
from tests.simulation.spoiling import strikeable
from tests.simulation.store import Bucket
from tests.simulation.writer import Writer
from tests.support.inside import engine_of
from tests.support.nonces import Nonces


class Happenings:
    """The bucket, the writers and what became of them."""

    def __init__(self, seed: int, *, trace: Callable[[str], None] | None = None) -> None:
        self.chance = random.Random(f"world {seed}")
        self.profile = profile_of(seed)
        self.loop = VirtualLoop(steps_max=STEPS_MAX, step_seconds=self.profile.step_seconds)
        self.oracle = Oracle()
        self.returning = ReturningClients()
        self.calm_since = float("inf")
        self.violation: str | None = None
        self.seen: Counter[str] = Counter()
        self.bucket = Bucket(self.loop, random.Random(f"bucket {seed}"), self.profile.faults, self)
        self._trace = trace
        self._digest = hashlib.blake2b(digest_size=16)
        self._writers: list[Writer] = []
        self._stamp = 0
        self._commits: list[tuple[float, Process, int, int]] = []
        """(time, process, number, epoch) of each manifest that became the newest, or landed late below it."""
        self._fences: set[str] = set()
        self.damage = Damage(self.bucket, KEY, random.Random(f"damage {seed}"))
        self._audits = Audits(self, random.Random(f"audits {seed}"), random.Random(f"spoiled {seed}"))
        self.loop.every = (self.profile.audit_steps, self._audits.stepped)
        self._nonces = self.bucket.nonces = Nonces(KEY)
        if self.profile.rotations:
            self.bucket.objects |= first_keys()

    def _strike(self) -> None:
        """Damage an object that the newest writer's manifest names, or that manifest, or the log, once there is one."""
        kind = self.profile.damage
        if not kind or self.calm_since < self.loop.time():
            return
        last = self.oracle.newest()
        serving = [w for w in self._writers if w.state in ("serving", "idle") and w.session is last]
        engine = engine_of(serving[0].store) if serving else None
        way, _, part = kind.partition(": ")
        if engine is None:
            struck = False
        elif part:
            newest, confirmed = engine.manifests.number, engine.log.position.acknowledged
            names = strikeable(self.bucket.objects, way, part, newest=newest, confirmed=confirmed)
            struck = self.damage.strike_part(way, names)
        else:
            tables = list(engine.manifests.listed())
            struck = self.damage.strike(way, tables, self.oracle.sessions)
        if struck:
            self.seen[f"fault: {kind}"] += 1
            self.seen["fault: an object that is not of data"] += bool(part)
            self.note(f"{self.damage.name} is struck ({kind}): {sorted(self.damage.blocks)}")
        else:
            self.loop.outside(self.profile.handover_seconds * self.chance.random(), self._strike)

    # --- what others tell

    def note(self, text: str) -> None:
        """One event of this world."""
        line = f"{self.loop.time():.6f} {text}"
        self._digest.update(line.encode())
        if self._trace is not None:
            self._trace(line)

    def violate(self, message: str) -> None:
        """A promise was broken: the world ends. The first one counts."""
        if self.violation is None:
            self.note(f"VIOLATION {message}")
            self.violation = message
            self.loop.stopped = True

    def stamp(self) -> int:
        self._stamp += 1
        return self._stamp

    def count(self, what: str) -> None:
        """A situation that matters was reached."""
        self.seen[what] += 1

    def watch_closely(self) -> None:
        """Somebody has arranged for a narrow window: see whether all is well at the next manifest."""
        self._audits.watchful = True

    def happened(self, process: Process, verb: str, name: str, outcome: str) -> None:
        """A request arrived at the bucket, or was lost on its way."""
        self.note(f"{process}: {verb} {name}: {outcome}")
        if outcome == "landed" and verb == "create":
            self._notice_late(process, name)

    def _notice_late(self, process: Process, name: str) -> None:
        self.seen["late PUT landed"] += 1
        if not process.alive:
            self.seen["late PUT landed after its process had died"] += 1
        if name.startswith("wal/") and any(fence < name for fence in self._fences):
            self.seen["late WAL PUT landed behind a fence"] += 1

    def misbehaved(self, kind: str) -> None:
        """The store did to a request what it should not."""
        self.seen[f"fault: {kind}"] += 1

    def changed(self, process: Process, verb: str, name: str) -> None:
        """The bucket changed."""
        kind = name.partition("/")[0]
        self.seen[f"{verb} {kind}"] += 1
        if verb == "create" and kind in ("manifest", "wal"):
            self._notice(process, name)
        if verb == "delete" and name in self._fences:
            self.seen["fence deleted"] += 1
        if verb == "create" and kind == "keys":
            self._rotated()
        self._audits.changed(manifest=verb == "create" and kind == "manifest", keys=verb == "create" and kind == "keys")

    def _rotated(self) -> None:
        """New keys are there: a rotation of the data key has begun, or has ended."""
        key, _ = keys_in(self.bucket.objects)
        self._nonces.knows(key)
        self.seen["a data key was drawn" if key.older else "an older data key left"] += 1

    def _notice(self, process: Process, name: str) -> None:
        header = decode_header(
            name,
            self.bucket.objects[name][:HEADER_BYTES],
            store_id=KEY.store_id,
            kinds=(ObjectKind.MANIFEST, ObjectKind.WAL, ObjectKind.FENCE),
        )
        if header.kind is ObjectKind.FENCE:
            self._fences.add(name)
            self.seen["fence"] += 1
        if header.kind is ObjectKind.MANIFEST:
            for writer in self._writers:
                if writer.process is process:
                    self.loop.outside(0.0, writer.committed)
            if header.epoch > self._newest_epoch():
                self.seen["take-over manifest"] += 1
                for writer in self._writers:
                    if writer.process is not process and writer.process.alive:
                        self._cut_short("take-over", writer)
                self.bucket.trigger("taken")
            self._commits.append((self.loop.time(), process, header.number, header.epoch))

    def _cut_short(self, event: str, writer: Writer) -> None:
        """Something came over a writer: was it in the midst of a job?"""
        if writer.job is not None:
            self.seen[f"{event} inside a job"] += 1
            self.seen[f"{event} inside {writer.job}"] += 1

    def _heads(self) -> list[tuple[float, Process, int, int]]:
        """The commits that had the highest number when they landed: others are in nobody's way."""
        heads: list[tuple[float, Process, int, int]] = []
        for commit in self._commits:
            if not heads or commit[2] > heads[-1][2]:
                heads.append(commit)
        return heads

    def _newest_epoch(self) -> int:
        return max((epoch for *_, epoch in self._heads()), default=0)

    def superseded(self, process: Process, epoch: int) -> bool:
        """Whether another process has taken the store over with a higher epoch."""
        return any(taker is not process and taken > epoch for _, taker, _, taken in self._heads())

    def disturbed(self, process: Process, since: float) -> bool:
        """Whether another process has committed anything since then, or holds the store: a reason not to open it."""
        heads = self._heads()
        if any(other is not process and when >= since - 1e-9 for when, other, *_ in heads):
            return True
        return bool(heads) and heads[-1][3] > self.oracle.newest().epoch

    def floor(self) -> Floor:
        """What must be found if all died now."""
        newest = self.oracle.newest()
        for writer in self._writers:
            if writer.state != "opening" and writer.state != "refused" and writer.session is newest:
                return writer.floor()
        return self.oracle.floor(newest)

    def completed(self, view: View, objects: dict[str, bytes]) -> View:
        """A view with what could not be read put in."""
        return completed(self, view, objects)

    def has_journal_of_last(self, writer: Writer, epoch: int) -> bool:
        """Whether all that the session before `epoch` answered must be found: its process had died on this writer's
        host, with a journal that never lacked room, before this one began, whoever tried in between died there too, and
        nobody who tried before this one or them still had that journal.
        """
        last = self.oracle.newest(below=epoch)
        takers = {taken: taker for _, taker, _, taken in self._heads() if last.epoch <= taken < epoch}
        if len(takers) != epoch - last.epoch or not last.epoch:
            return False
        had = [each for each in self._writers if each.process in takers.values()]
        lasting = all(
            each.process in writer.gone
            and each.process.host == writer.process.host
            and each.journal is not None
            and not each.journal.full
            and not (each.journal.damaged or each.passed_a_journal_by)
            for each in had
        )
        own = writer.journal
        lasting = lasting and not last.closed and own is not None and not (own.damaged or writer.passed_a_journal_by)
        self.seen["opened with the journal of the last one"] += lasting
        behind = any(disk.answered > disk.acked for disk in last.disks.values())
        self.seen["opened with what was answered and not flushed"] += lasting and behind
        self.seen["opened so after others had died opening"] += lasting and behind and len(takers) > 1
        return lasting

    def opened(self, writer: Writer) -> None:
        """A writer serves."""
        self.seen["session"] += 1
        if writer.session.parent is not None and writer.session.parent.epoch:
            self.seen["take-over complete"] += 1
        if not writer.take_over:
            self._check_not_stolen(writer)
        self.bucket.trigger("opened")

    def _check_not_stolen(self, writer: Writer) -> None:
        """Without being told to, nobody takes the store from a process that is alive and has not closed it."""
        epoch = writer.session.epoch
        takers = [taker for _, taker, _, taken in self._heads() if taken == epoch - 1]
        for other in self._writers:
            lives = other.process.alive and not other.stopping and other.state in ("serving", "idle")
            if takers and other.process is takers[0] and lives:
                self.violate(f"{writer.process} took the store from {other.process} without being told to")

    def _hangs(self, where: str) -> None:
        self.violate(f"it hangs:\n{where}")

    def _resume(self, process: Process) -> None:
        if process.stalled:
            self.note(f"{process} goes on")
            self.loop.resume(process)

    async def _wait_for(self, writer: Writer, state: str, seconds_max: float) -> bool:
        """Wait until a writer has left a state, or is dead; False if it did not in time."""
        return await self._wait(lambda: writer.state != state or not writer.process.alive, seconds_max)

    async def _wait(self, condition: Callable[[], bool], seconds_max: float) -> bool:
        """Wait for a condition; False if it did not come true in time."""
        end = self.loop.time() + seconds_max
        pause = 0.001
        while not condition():
            if self.loop.time() >= end:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, 1.0)
        return True


class Poison(logging.Handler):
    """An engine that reports an unexpected exception has a bug."""

    def __init__(self, world: Happenings) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            text = "".join(traceback.format_exception(record.exc_info[1]))
            self._world.violate(f"{record.getMessage()}: {text}")
