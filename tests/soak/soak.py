"""One soak: the real program on a store that fails, with clients that are checked and clients that misbehave.

Four disks: three with a steady client each, and `bad`, whose first half is in objects of its own, which may be
withheld, and whose second half has a steady client too. A fifth is for the pests.
"""

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np

from tests.crash.history import Lane, Lost, check, zeros
from tests.crash.stamps import SECTOR_BYTES, Damaged, Numbers, decode, encode
from tests.soak.clients import UNSAID_BYTES_MAX, Actor, Misbehaving, Prober, Steady, WatchedClient
from tests.soak.faults import FaultyStore
from tests.soak.plan import AWAY, Life, Pest, Plan
from tests.soak.rules import WAIT_SECONDS, Rules
from tests.support.nbd import Address
from tests.support.processes import resident_bytes
from tests.support.program import Host, Server

MIB = 1 << 20
CACHE_BYTES = 64 * MIB
LOOK_SECONDS = 0.1
AREA_SECTORS = 8 * MIB // SECTOR_BYTES
PIECE_SECTORS = MIB // SECTOR_BYTES
DISKS = {"one": 1, "two": 2, "three": 3, "bad": 4}
"""Each with the number that its stamps carry."""

OLD_WRITE = 1
"""The write that filled the area that may be withheld."""


class Broken(AssertionError):
    """A rule was broken."""


class _Command(Server):
    """The server, by another way than its plain command."""

    def __init__(self, host: Host, location: str, prefix: Sequence[str], program: Sequence[str]) -> None:
        create = {**dict.fromkeys(DISKS, "16MiB"), "pests": "256MiB"}
        super().__init__(
            host, location, create=create, arguments=["--cache-size", str(CACHE_BYTES), "--journal", "off"]
        )
        self._prefix, self._program = prefix, program

    def command(self) -> list[str]:
        words = super().command()
        return [*self._prefix, *self._program, *words[words.index("serve") :]]


class Soak:
    """The lives of one server, one after the other."""

    def __init__(
        self,
        plan: Plan,
        store: FaultyStore,
        work: Path,
        *,
        prefix: Sequence[str] = (),
        program: Sequence[str],
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self.seen: Counter[str] = Counter()
        """How often what happened."""
        self.rules = Rules(wait_seconds=wait_seconds, cache_bytes=CACHE_BYTES)
        self.server = _Command(Host(work, store.under_test.environment), store.under_test.location, prefix, program)
        self._plan, self._store = plan, store
        self._numbers = count(OLD_WRITE + 1)
        self._states: dict[str, Numbers] = {disk: zeros(AREA_SECTORS) for disk in DISKS}
        self._withheld: list[str] = []
        self._steady: list[Steady] = []
        self._actors: list[Actor] = []
        self._began = 0.0

    def run(self) -> None:
        """All of it. Broken: what happened, with the seed."""
        try:
            self._set_up()
            for number, life in enumerate(self._plan.lives):
                self._live(number, life)
                self._demand()
        finally:
            self.rules.ending = True
            self._store.end()
            self._store.last((), ())
            for actor in self._actors:
                actor.leaving.set()
            self.server.close()
            for actor in self._actors:
                actor.join(60)

    def _demand(self) -> None:
        if self.rules.violations:
            listed = "\n".join(self.rules.violations[:10])
            raise Broken(f"seed {self._plan.seed} on {self._plan.store}: {listed}\n\n{self.server.said()[-4000:]}")

    def _connect(self, who: str, disk: str) -> WatchedClient:
        return WatchedClient(self._address(tcp=len(self._actors) % 2 == 1), disk, who, self.rules)

    def _address(self, *, tcp: bool) -> Address:
        assert self.server.port is not None
        return ("127.0.0.1", self.server.port) if tcp else self.server.socket

    def _set_up(self) -> None:
        """A store with objects that hold nothing but the first half of `bad`."""
        self.server.start()
        with self.server.connect("bad") as client:
            for first in range(0, AREA_SECTORS, PIECE_SECTORS):
                data = encode(device=DISKS["bad"], number=OLD_WRITE, first=first, count=PIECE_SECTORS)
                client.write(first * SECTOR_BYTES, data)
        assert self.server.stop() == 0, self.server.said()
        self._withheld = self._store.data_objects()
        assert self._withheld, "nothing of it is in an object"

    # A life

    def _live(self, number: int, life: Life) -> None:
        rules = self.rules
        rules.ending = False
        rules.begin_life()
        self.server.start()
        rules.opened(resident_bytes(self.server.pid, "VmHWM"))
        if number:
            self._compare()
        self._store.last(life.lasting, self._withheld)
        self._began = time.monotonic()
        self._begin_clients(number, life)
        self._pass(life)
        if life.ending != "killed in an outage":
            self._calm()
        if not rules.violations:
            self._end(life)
        rules.ending = True
        for actor in self._actors:
            actor.leaving.set()
        if self.server.running():
            self.server.kill()
        self._store.end()
        for actor in self._actors:
            actor.join(60)
        rules.log(self.server.said())
        self._count()
        rules.store_answers(time.monotonic(), True)
        self._store.last((), ())

    def _begin_clients(self, number: int, life: Life) -> None:
        seed = f"{self._plan.seed} {number}"
        self._actors, self._steady = [], []
        for disk, device in DISKS.items():
            first = AREA_SECTORS if disk == "bad" else 0
            lane = Lane(first, self._states[disk])
            self._steady.append(
                Steady(
                    disk, disk, self._connect, lane=lane, device=device, numbers=self._numbers, seed=f"{seed} {disk}"
                )
            )
        prober = Prober("prober", "bad", self._connect, sectors=AREA_SECTORS, device=DISKS["bad"], seed=seed)
        prober.withheld = any(kind.startswith("withheld") for kind in life.lasting)
        for actor in (*self._steady, prober):
            self._actors.append(actor)
            actor.start()

    def _pass(self, life: Life) -> None:
        """The faults and pests of a life, each when it is due, while the rules are looked after."""
        pests = sorted(life.pests, key=lambda pest: pest.begins, reverse=True)
        faults = list(reversed(life.faults))
        current = None
        while not self.rules.violations:
            passed = time.monotonic() - self._began
            if current is not None and passed >= current.ends:
                self._well()
                current = None
            if current is None and faults and passed >= faults[-1].begins:
                current = faults.pop()
                self.rules.store_answers(time.monotonic(), current.kind not in AWAY[self._plan.store])
                self._store.begin(current)
            while pests and passed >= pests[-1].begins:
                self._pester(pests.pop())
            if passed >= life.seconds:
                break
            self._look()
        if life.ending != "killed in an outage":
            self._well()

    def _pester(self, pest: Pest) -> None:
        name = f"pest {len(self._actors)}, which {pest.kind}"
        address = self._address(tcp=pest.tcp)

        def connect(who: str, disk: str) -> WatchedClient:
            return WatchedClient(address, disk, who, self.rules)

        self.rules.may_hold(name, UNSAID_BYTES_MAX)
        actor = Misbehaving(name, "pests", connect, pest=pest, address=address)
        self._actors.append(actor)
        actor.start()

    def _well(self) -> None:
        """The store answers again, but for what lasts."""
        self._store.end()
        self.rules.store_answers(time.monotonic(), True)

    def _look(self) -> None:
        time.sleep(LOOK_SECONDS)
        self.rules.look(time.monotonic())
        if self.server.running():
            self.rules.memory("VmRSS", resident_bytes(self.server.pid))
        elif not self.rules.ending:
            self.rules.broken("the server ended by itself")

    def _calm(self) -> None:
        """Once the store answers, each steady client goes on: it does something whole that began after that."""
        before = [actor.rounds for actor in self._steady]
        until = time.monotonic() + self.rules.wait_seconds + 1
        while not self.rules.violations:
            waiting = [a.name for a, rounds in zip(self._steady, before, strict=True) if a.rounds < rounds + 2]
            if not waiting:
                return
            if time.monotonic() > until:
                self.rules.broken(f"{', '.join(waiting)} did not go on within {self.rules.wait_seconds} s")
            self._look()

    def _end(self, life: Life) -> None:
        self.rules.memory("VmHWM", resident_bytes(self.server.pid, "VmHWM"))
        if life.ending.startswith("killed"):
            self.rules.ending = True
            self.server.kill()
            return
        if life.ending == "stopped":
            for actor in self._actors:
                actor.leaving.set()
            for actor in self._steady:
                actor.join(self.rules.wait_seconds + 60)
        self.rules.ending = True
        began = time.monotonic()
        self.server.send(signal.SIGTERM)
        try:
            status = self.server.wait(self.rules.wait_seconds)
        except subprocess.TimeoutExpired:
            self.rules.stopped(None, None)
            return
        self.rules.stopped(time.monotonic() - began, status)
        for steady in self._steady:  # what was answered before a clean stop is durable
            steady.lane.floor = steady.lane.completed

    def _count(self) -> None:
        for steady in self._steady:
            self.seen["flushes answered"] += steady.flushes
            self.seen["operations"] += len(steady.lane.operations)
        for actor in self._actors:
            if isinstance(actor, Misbehaving):
                self.seen[actor.name.split(", which ")[1]] += 1
            elif isinstance(actor, Prober):
                self.seen["reads of what is withheld refused"] += actor.refused
        for kind, times in self._store.met.items():
            self.seen[f"fault: {kind}"] = times

    # After it

    def _compare(self) -> None:
        """The disks hold what the promise allows; where the next life begins."""
        for steady in self._steady:
            seen = self._read(steady.name, steady.lane.first)
            if seen is None:
                continue
            try:
                check([steady.lane], [seen])
            except Lost as error:
                self.rules.broken(f"{steady.name}: {error}")
            self._states[steady.name] = seen
        old = self._read("bad", 0)
        if old is not None and np.any(old != OLD_WRITE):
            self.rules.broken("what was never written again changed")
        self._demand()
        self.seen["disks compared"] += len(self._steady)

    def _read(self, disk: str, first: int) -> Numbers | None:
        parts = []
        with self.server.connect(disk) as client:
            for start in range(first, first + AREA_SECTORS, PIECE_SECTORS):
                data = client.read(start * SECTOR_BYTES, PIECE_SECTORS * SECTOR_BYTES)
                try:
                    parts.append(decode(data, device=DISKS[disk], first=start))
                except Damaged as error:
                    self.rules.broken(f"{disk}: {error}")
                    return None
        return np.concatenate(parts)
