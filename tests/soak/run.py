"""Soaks from the command line:  python -m tests.soak --seeds 10 --seconds 120 [--first K] [--store minio|file]

One seed is one plan of faults and clients; `--plan` prints it. Every seed is run on each store unless one is named.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.soak.faults import FaultyFolder, FaultyMinio, bound
from tests.soak.plan import Plan, plan
from tests.soak.rules import WAIT_SECONDS
from tests.soak.soak import Broken, Soak
from tests.support.minio import RunningMinio
from tests.support.program import COMMAND
from tests.support.wayward import WaywardProxy

STORES = ("minio", "file")
SECONDS = 48.0


def soak_on_minio(
    what: Plan,
    work: Path,
    minio: RunningMinio,
    *,
    program: Sequence[str] = COMMAND,
    wait_seconds: float = WAIT_SECONDS,
) -> Counter[str]:
    """One soak on a prefix of its own; what happened in it. Broken: a rule was."""
    with WaywardProxy(minio.endpoint) as proxy:
        store = FaultyMinio(minio, proxy, f"soak-{work.name}", what.seed)
        soak = Soak(what, store, work, program=program, wait_seconds=wait_seconds)
        soak.run()
        return soak.seen


def soak_on_folder(
    what: Plan, work: Path, *, program: Sequence[str] | None = None, wait_seconds: float = WAIT_SECONDS
) -> Counter[str]:
    """The same on a folder below `work`. A `program` of one's own has a disk that takes what is written."""
    store = FaultyFolder(work)
    soak = Soak(what, store, work, prefix=bound(), program=program or store.program, wait_seconds=wait_seconds)
    soak.run()
    return soak.seen


def run(what: Plan) -> Counter[str]:
    """One soak with everything it needs."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        work = Path(folder)
        if what.store == "file":
            return soak_on_folder(what, work)
        minio = RunningMinio(work)
        minio.start()
        try:
            return soak_on_minio(what, work, minio)
        finally:
            minio.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description="Soak the real server on a store that fails.")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--first", type=int, help="the first of them (a fresh one)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each soak, about")
    parser.add_argument("--store", choices=STORES, help="only on this one")
    parser.add_argument("--plan", action="store_true", help="print what would happen")
    arguments = parser.parse_args()
    first = random.SystemRandom().randrange(10**9) if arguments.first is None else arguments.first
    seen: Counter[str] = Counter()
    broken = 0
    for seed in range(first, first + arguments.seeds):
        for store in [arguments.store] if arguments.store else STORES:
            planned = plan(seed, store, arguments.seconds)
            if arguments.plan:
                print(*planned.lives, sep="\n")
                continue
            started = time.monotonic()
            try:
                seen += run(planned)
                said = "all well"
            except Broken as error:
                broken += 1
                said = str(error)
            print(f"seed {seed} on {store}, {time.monotonic() - started:.0f} s: {said}", flush=True)
    for what, times in sorted(seen.items()):
        print(f"{times:9d} {what}")
    return int(broken > 0)
