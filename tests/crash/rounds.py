"""Kill -9 under stamped writes, round after round:  python -m tests.crash.rounds --rounds 50 --store
file|minio

With a journal in memory (--journal FOLDER) every answered one must be there.

Each round the server is killed at a random moment under a mix of requests, sometimes again while it recovers,
and started again; then the whole disk is read and must be a prefix of its writes, in order, that holds every
flushed one. What it holds is where the next round begins. Rounds take turns with one connection and with four
on areas of their own.
"""

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.crash.history import check, zeros
from tests.crash.stamps import SECTOR_BYTES, Numbers, decode
from tests.crash.workload import Workload
from tests.support.minio import RunningMinio
from tests.support.program import Host, Server
from tests.support.stores import StoreUnderTest, folder_store, minio_store

DISK_MIB = 64
DISK_SECTORS = DISK_MIB * 1024 * 1024 // SECTOR_BYTES
READ_SECTORS = 2048
DEVICE = 7
"""The number that the stamps carry; anything would do."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one round did: operations sent, flushed (must be there) and found, flushes answered, seconds to
    recover.
    """

    connections: int
    sent: int
    flushed: int
    found: int
    flushes: int
    kills_in_recovery: int
    start_seconds: float


def read_disk(server: Server, *, first: int = 0, count: int = DISK_SECTORS) -> Numbers:
    """Which write each sector of the disk came from."""
    with server.connect() as client:
        parts = []
        for start in range(first, first + count, READ_SECTORS):
            data = client.read(start * SECTOR_BYTES, READ_SECTORS * SECTOR_BYTES)
            parts.append(decode(data, device=DEVICE, first=start))
    return np.concatenate(parts)


class Rounds:
    """One store and its server through many crashes; `holds` is what the disk held when last looked at."""

    def __init__(self, host: Host, store: StoreUnderTest, *, seed: int, journal: Path | None = None) -> None:
        """`journal`: a folder in memory. Then nothing that was answered may be lost, flushed or not."""
        arguments = ["--journal", "off" if journal is None else str(journal)]
        self.server = Server(host, store.location, create={"disk": f"{DISK_MIB}MiB"}, arguments=arguments)
        self._keeps_all = journal is not None
        self.holds = zeros(DISK_SECTORS)
        self._chance = random.Random(seed)
        self._number = 1

    def _begin(self, connections: int) -> Workload:
        states = np.split(self.holds, connections)
        work = Workload(
            connect=self.server.connect,
            device=DEVICE,
            states=states,
            first_number=self._number,
            seed=self._chance.randrange(1 << 30),
        )
        work.start()
        time.sleep(self._chance.uniform(0.05, 1.5))  # the random moment of the crash, not a wait for anything
        return work

    def _compare(self, work: Workload) -> tuple[int, Numbers]:
        """How many operations the disk holds, and all of it; Lost or Damaged if that breaks the promise."""
        seen = read_disk(self.server)
        found = check(work.lanes, np.split(seen, len(work.lanes)))
        self._number = work.next_number
        self.holds = seen
        return sum(found), seen

    def crash(self, *, connections: int) -> Outcome:
        """One round: kill -9 under load, start, compare. The server runs afterwards."""
        if not self.server.running():
            self.server.start()
        work = self._begin(connections)
        self.server.kill()
        work.join()
        for lane in work.lanes if self._keeps_all else ():
            lane.floor = max(lane.floor, lane.completed)
        kills_in_recovery = self._chance.choices((0, 1, 2), (7, 2, 1))[0]
        for _ in range(kills_in_recovery):
            self.server.spawn()
            time.sleep(self._chance.uniform(0.1, 1.5))
            self.server.kill()
        seconds = self.server.start()
        found, _ = self._compare(work)
        return Outcome(
            connections=connections,
            sent=sum(len(lane.operations) for lane in work.lanes),
            flushed=sum(lane.floor for lane in work.lanes),
            found=found,
            flushes=work.flushes,
            kills_in_recovery=kills_in_recovery,
            start_seconds=seconds,
        )

    def stop_cleanly(self, *, connections: int) -> None:
        """SIGTERM under load: the server ends with 0, and afterwards every completed write is there."""
        if not self.server.running():
            self.server.start()
        work = self._begin(connections)
        assert self.server.stop() == 0, self.server.said()[-2000:]
        work.join()
        self.server.start()
        for lane in work.lanes:
            lane.floor = max(lane.floor, lane.completed)
        self._compare(work)

    def close(self) -> None:
        self.server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9 under stamped writes, round after round")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--store", choices=["file", "minio"], default="file")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--journal", type=Path)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="nbd-") as name:
        folder = Path(name)
        minio = RunningMinio(folder) if arguments.store == "minio" else None
        if minio is not None:
            minio.start()
        store = folder_store(folder) if minio is None else minio_store(minio, "rounds")
        rounds = Rounds(Host(folder, store.environment), store, seed=arguments.seed, journal=arguments.journal)
        failed = False
        try:
            for number in range(1, arguments.rounds + 1):
                outcome = rounds.crash(connections=1 if number % 2 else 4)
                print(f"round {number}: {outcome}", flush=True)
            rounds.stop_cleanly(connections=4)
            print(f"{arguments.rounds} rounds passed, and a clean stop after them")
        except AssertionError as error:
            failed = True
            print(f"FAILED: {error}\n{rounds.server.said()[-3000:]}")
        finally:
            rounds.close()
            if minio is not None:
                minio.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
