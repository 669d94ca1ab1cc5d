"""One seed, one world: a bucket, hosts, servers that come, stall, crash and are superseded, and what became of it.

A run has three parts. *Trouble*: writers follow one another, each take-over begins in some moment of the life of the
one before, which has crashed, stalls, or goes on unaware; in half of the worlds most writers have read the store's
indexes before that, as the successor in a restart does, and the one before has gone on for a while; readers look on; at
random changes of the bucket a recovery is tried on a copy of it, as if everybody died at that moment. *Calm*: faults
end and stalled processes go on; every process must come to an end of what it does in bounded virtual time, those that
were superseded notice, and the newest writer flushes and closes. *Aftermath*: the store is opened again and holds
exactly what was closed; then everything that is still on its way arrives, and it does so still.
"""

import asyncio
import gc
import logging
import random
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from storage.errors import Closed, Fenced
from storage.lsm.recovery.view import ViewAhead
from tests.simulation.audits import recover
from tests.simulation.disk_history import Violation
from tests.simulation.env import SimEnv
from tests.simulation.happenings import Happenings, Poison
from tests.simulation.host import SimHost
from tests.simulation.limit import WORLD_SECONDS_MAX, Hung, time_limit
from tests.simulation.loop import Process, Stuck
from tests.simulation.reader import Reader
from tests.simulation.reading import check_memory, read_ahead
from tests.simulation.rotation import has_ended
from tests.simulation.store import HANG_SECONDS, Client, Faults
from tests.simulation.writer import Writer

CALM_SECONDS_MAX = 400.0
"""Virtual seconds in which everything must come to its end once faults have ceased: the longest pause between two
tries of a request is 10 s, a watch comes every 10 s, and a memtable flush of a few MiB takes a few requests.
"""

HOSTS = ["host1", "host2"]

JOURNAL_ROOMS = (0, 400_000, 1 << 40, 1 << 40, 1 << 40, 1 << 40)
"""Bytes that there is room for in the journals of a world's hosts; 0: they have none."""

RESTARTS_SHARE = 0.4
"""Of the ends of writers, in worlds with journals."""

AHEAD_WORLDS_SHARE = 0.5
AHEAD_SHARE = 0.7
"""Of the worlds, and in those of the ends of writers: the next one has read ahead."""

AHEAD_SECONDS_MAX = 5.0
"""How long it does so at most."""

JOBS = ("Drop", "WriteCheckpoint", "Repack", "Consolidate", "Defragment")
"""The kinds of job that maintenance has."""


@dataclass
class Result:
    """What became of a world."""

    seed: int
    digest: str
    violation: str | None = None
    seen: Counter[str] = field(default_factory=Counter)
    """How often the situations that matter were reached."""


class World(Happenings):
    """Everything there is in one run."""

    def __init__(self, seed: int, *, trace: Callable[[str], None] | None = None) -> None:
        super().__init__(seed, trace=trace)
        self._seed = seed
        self._journal_room = random.Random(f"journal {seed}").choice(JOURNAL_ROOMS)
        self._restarts = random.Random(f"restarts {seed}")
        self._aim = random.Random(f"aim {seed}")
        self._early = random.Random(f"ahead {seed}")
        self._reads_ahead = self._early.random() < AHEAD_WORLDS_SHARE
        self._ahead: ViewAhead | None = None
        """What was read for the writer that starts next, while another one has the store."""
        self._hosts = {name: SimHost() for name in HOSTS}
        self._readers = 0

    def run(self) -> Result:
        """The whole life of this world."""
        collecting = gc.isenabled()
        gc.disable()
        handler = Poison(self)
        engine_log = logging.getLogger("nbdserver")
        propagated, engine_log.propagate = engine_log.propagate, False
        engine_log.addHandler(handler)
        try:
            try:
                with time_limit(WORLD_SECONDS_MAX, self._hangs):
                    self.loop.run(self._life())
            except Hung:
                pass
            except Stuck as stuck:
                self.violate(f"{stuck}: {[(str(w.process), w.state) for w in self._writers]}")
            if self.loop.complaints:
                self.violate(f"nobody looked at: {self.loop.complaints[0]}")
            self.seen["flush answered after a later writer had opened"] += self.oracle.stale_acknowledgements
            for writer in self._writers:
                self.seen.update({f"job: {job}": count for job, count in writer.jobs().items()})
            result = Result(self._seed, self._digest.hexdigest(), self.violation, self.seen)
            self.loop.wind_up()
        finally:
            engine_log.removeHandler(handler)
            engine_log.propagate = propagated
            if collecting:
                gc.enable()
        return result

    # --- life

    async def _life(self) -> None:
        try:
            await self._trouble()
            await self._calm()
            await self._aftermath()
        except Violation as broken:
            self.violate(str(broken))
        except Exception as error:
            self.violate(f"the world ended with {type(error).__name__}: {error}\n{traceback.format_exc()}")

    def _start(self, *, take_over: bool, host: str | None = None) -> Writer:
        number = len(self._writers) + 1
        process = Process(f"server{number}", host or self.chance.choice(HOSTS))
        chance = random.Random(f"{process} {self._seed}")
        profile = self.profile
        env = SimEnv(self.loop, chance, skew=profile.skew_seconds, thread_seconds=profile.thread_seconds)
        view = self._hosts[process.host].of(process)
        room = self._journal_room
        writer = Writer(
            self,
            process,
            Client(self.bucket, process),
            env,
            view,
            chance,
            take_over=take_over,
            journal=view.journals(random.Random(f"journal of {process} {self._seed}"), room) if room else None,
            gone=frozenset(each.process for each in self._writers if not each.process.alive),
            ahead=self._ahead,
        )
        self._ahead = None
        self._writers.append(writer)
        self.note(f"{process} starts on {process.host}, take-over {take_over}")
        self.loop.spawn(process, writer.run())
        return writer

    async def _trouble(self) -> None:
        chance, profile = self.chance, self.profile
        self.loop.outside(profile.handover_seconds * chance.random() * 3, self._strike)
        writer = self._start(take_over=False)
        for _ in range(profile.handovers):
            await asyncio.sleep(profile.handover_seconds * chance.expovariate(1.0))
            if chance.random() < 0.7:
                await self._wait_for(writer, "opening", 20.0)
                await asyncio.sleep(profile.handover_seconds * chance.expovariate(1.0))
            if chance.random() < 0.4:
                self._start_reader()
            how = chance.choices(list(profile.endings), list(profile.endings.values()))[0]
            if self._journal_room and self._restarts.random() < RESTARTS_SHARE:
                how = "restart"
            self.seen[f"ending: {how}"] += 1
            if self._reads_ahead and self._early.random() < AHEAD_SHARE:
                await self._read_ahead(writer)
            writer = await self._hand_over(writer, how)
        await asyncio.sleep(profile.handover_seconds * chance.expovariate(1.0) * 3)

    async def _hand_over(self, writer: Writer, how: str) -> Writer:
        chance, process = self.chance, writer.process
        if how == "restart":
            return await self._restart(writer)
        if self._aim.random() < 0.6:
            await self._in_a_job(writer)
        if how == "crash":
            process.crash_at = process.steps + 1 + int(chance.expovariate(1 / chance.choice([1, 30, 300])))
            await self._wait(lambda: not process.alive, 5.0)
            self._cut_short("crash", writer)
        elif how == "stall":
            await self._wait(lambda: False, 0.01 * chance.random())
            process.stalled = True
            self._cut_short("stall", writer)
            self.note(f"{process} stalls")
            self.loop.outside(10 ** chance.uniform(-2, 1.7), self._resume, process)
        elif how == "close" and writer.state in ("serving", "idle"):
            closing = self.loop.spawn(process, writer.close())
            if chance.random() < 0.3:
                process.crash_at = process.steps + int(chance.expovariate(1 / 100))
            await self._wait(lambda: closing.done() or not process.alive, chance.choice([0.05, 60.0, 60.0]))
        elif how == "race":
            self._start(take_over=True)
        alone = not process.alive or self.oracle.newest().closed
        take_over = not alone or chance.random() < 0.5
        successor = self._start(take_over=take_over, host=None if take_over else process.host)
        if not take_over:
            await self._wait_for(successor, "opening", 20.0)
            if successor.state == "refused":
                successor = self._start(take_over=True)
        return successor

    async def _read_ahead(self, writer: Writer) -> None:
        """Have the next writer read what it can while this one has the store, which goes on for a while."""
        chance, process = self._early, Process(f"{writer.process}'s successor", writer.process.host)
        own = random.Random(f"{process} {self._seed}")
        env = SimEnv(self.loop, own, skew=self.profile.skew_seconds, thread_seconds=self.profile.thread_seconds)
        if chance.random() < 0.5:
            await self._in_a_job(writer)
        reading = self.loop.spawn(process, read_ahead(Client(self.bucket, process), env, self.profile))
        if await self._wait(reading.done, AHEAD_SECONDS_MAX):
            self._ahead = reading.result()
            await asyncio.sleep(chance.choice([0.0, self.profile.handover_seconds * chance.expovariate(1.0)]))
        else:
            process.kill()

    async def _restart(self, writer: Writer) -> Writer:
        """A writer dies among its writes, and the next one begins on its host at once; some of those die opening."""
        chance = self._restarts
        for deaths in range(chance.choices((1, 2, 3), (5, 3, 2))[0]):
            process = writer.process
            steps = chance.choice([1, 30, 300]) if not deaths else chance.choice([100, 400, 1000])
            if not deaths and await self._wait_for(writer, "opening", 20.0):
                await self._wait(lambda: writer.answers_unflushed() or writer.state != "serving", 2.0)  # noqa: B023
            process.crash_at = process.steps + 1 + int(chance.expovariate(1 / steps))
            await self._wait(lambda: not process.alive, 1.0)  # noqa: B023
            process.kill()
            self._cut_short("crash", writer)
            writer = self._start(take_over=False, host=process.host)
        await self._wait_for(writer, "opening", 20.0)
        return writer if writer.state != "refused" else self._start(take_over=True)

    async def _in_a_job(self, writer: Writer) -> None:
        """Wait, for some seconds at most, until the maintenance of a writer is busy with a job of some kind."""
        job = self._aim.choice(JOBS)
        end = self.loop.time() + 5.0
        while writer.job != job and writer.process.alive and self.loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(self.loop.until_something(0.001, end))
        await asyncio.sleep(self._aim.choice([0.0, 0.0, 0.003]))

    def _start_reader(self) -> None:
        self._readers += 1
        process = Process(f"reader{self._readers}", self.chance.choice(HOSTS))
        chance = random.Random(f"{process} {self._seed}")
        env = SimEnv(self.loop, chance, skew=self.profile.skew_seconds, thread_seconds=self.profile.thread_seconds)
        reader = Reader(self, process, env, chance, lambda since: any(when >= since for when, *_ in self._commits))
        self.loop.spawn(process, reader.read())

    # --- the end of faults

    async def _calm(self) -> None:
        self.note("calm")
        self.calm_since = self.loop.time()
        self.bucket.faults = Faults(seconds=self.profile.faults.seconds)
        for writer in self._writers:
            writer.process.crash_at = None
            self._resume(writer.process)
        alive = [writer for writer in self._writers if writer.process.alive]
        for writer in alive:
            if not await self._wait_for(writer, "opening", CALM_SECONDS_MAX):
                raise Violation(f"{writer.process} does not come to an end of opening")
        for writer in alive:
            writer.stopping = True
        for writer in alive:
            if not await self._wait_for(writer, "serving", CALM_SECONDS_MAX):
                raise Violation(f"clients of {writer.process} wait for ever: {writer.unanswered} flushes unanswered")
        # A look for a newer writer may have been under way when the faults ceased.
        await asyncio.sleep(HANG_SECONDS + 25.0)
        for writer in alive:
            if writer.state == "idle":
                self._check_noticed(writer)

    def _check_noticed(self, writer: Writer) -> None:
        """A superseded writer asks every 10 s; and nobody else may have failed."""
        superseded = self.superseded(writer.process, writer.session.epoch)
        if superseded and not writer.store.failed.done():
            raise Violation(f"{writer.process} was superseded and does not notice")
        writer.judge_failure()

    async def _aftermath(self) -> None:
        last = [w for w in self._writers if w.process.alive and w.state == "idle" and not w.store.failed.done()]
        if last:
            await self._finish(last[-1])
        self.damage.heal()
        newest = self.oracle.newest()
        closed = newest.closed and newest.epoch == self._newest_epoch()
        for take_over in (not closed, True):
            writer = self._start(take_over=take_over)
            if not await self._wait_for(writer, "opening", CALM_SECONDS_MAX):
                raise Violation(f"{writer.process} cannot open the store at rest")
            if writer.state == "refused":
                raise Violation(f"{writer.process} was refused a store at rest")
            writer.stopping = self.chance.random() < 0.5
            await self._wait_for(writer, "serving", CALM_SECONDS_MAX)
            await self._rotation_ends(writer)
            await self._finish(writer)
            self.note("everything late arrives")
            self.bucket.land_all()

    async def _rotation_ends(self, writer: Writer) -> None:
        """Whoever has the newest data key seals everything anew, and then has the older ones leave."""
        if not await self._wait(lambda: has_ended(writer, self.bucket.objects), CALM_SECONDS_MAX):
            raise Violation(
                f"{writer.process} does not come to the end of a rotation: {writer.store.status().rotation}"
            )

    async def _finish(self, writer: Writer) -> None:
        """Flush, look, and close; then the store must hold exactly what it held."""
        work = self.loop.spawn(writer.process, self._flush_and_close(writer))
        if not await self._wait(work.done, CALM_SECONDS_MAX):
            raise Violation(f"{writer.process} cannot flush and close in {CALM_SECONDS_MAX:g} s without faults")
        work.result()
        if writer.session.closed:
            await self._compare(writer)

    async def _flush_and_close(self, writer: Writer) -> None:
        try:
            await writer.store.flush()
            if not self.damage.name:
                await check_memory(writer.store, self.profile)
                self.count("check of a running writer")
        except (Fenced, Closed):
            return
        for name, (_, size) in writer.session.devices[-1].items():
            shown = writer.store.device(name).size
            if shown != size:
                raise Violation(f"{writer.process} shows {shown} bytes of {name}, which has {size}, all of it durable")
        await writer.close()
        if not writer.session.closed:
            raise Violation(f"{writer.process} could not close without faults")
        if writer.unanswered:
            # Closing waits for deleted disks too, so it answers every flush there ever was.
            raise Violation(f"{writer.process}: {writer.unanswered} flushes are not answered though all is durable")

    async def _compare(self, writer: Writer) -> None:
        """The closed store, opened to be read, holds everything the session did."""
        view = recover(self, read_only=True)
        self.oracle.locate("the closed store", 0, view, self.oracle.floor(writer.session), exact=True)


def run_world(seed: int, *, trace: Callable[[str], None] | None = None) -> Result:
    """Run the world of a seed."""
    result = World(seed, trace=trace).run()
    gc.collect(1)
    return result
