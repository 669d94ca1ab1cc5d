"""The fuzzer: `python -m tests.fuzz --inputs 1000000 [--jobs 2] [--seed 1] [--corpus FOLDER]`.

Coverage-guided (atheris, that is libFuzzer) over handshake and transmission, from the seeds in the tree. The
last line has the figures. Status 0: no exception but ProtocolError, and memory did not grow. A finding is
left in a file, named on standard error; run it again with `python -m tests.fuzz FILE`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["nbdserver.protocol"], enable_loader_override=False):
    from tests.fuzz import seeds, target

SEEDS, CORPUS, DICTIONARY = "seeds", "corpus", "words.dict"
"""What lies in a fuzzer's folder."""

GROWTH_BYTES_MAX = 16 << 20
"""Of resident memory from the middle to the end: libFuzzer keeps the inputs that it likes, nothing more."""

LOOK_EVERY = 100
"""Inputs from one look at memory to the next."""


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


class Figures:
    """Counts inputs, and looks at memory in the middle and at the end of the run.

    What counts is the least of each time: an input with a payload of 32 MiB has them while it runs.
    """

    def __init__(self, inputs: int) -> None:
        self.done = 0
        self._inputs = inputs
        self._began = time.monotonic()
        self._middle: list[int] = []
        self._end: list[int] = []

    def one(self, data: bytes) -> None:
        target.run(data)
        self.done += 1
        if not self.done % LOOK_EVERY:
            tenth = self.done * 10 // self._inputs
            if tenth == 4:
                self._middle.append(resident_bytes())
            elif tenth >= 9:
                self._end.append(resident_bytes())
        if self.done == self._inputs:
            self._report()

    def _report(self) -> None:
        seconds = time.monotonic() - self._began
        growth = min(self._end, default=0) - min(self._middle, default=0)
        print(
            f"{self.done} inputs, 0 exceptions but ProtocolError, {self.done / seconds:.0f} inputs/s, "
            f"{min(self._end, default=0) >> 20} MiB resident, {growth >> 10} KiB more than in the middle",
            flush=True,
        )
        if growth > GROWTH_BYTES_MAX:
            raise MemoryError(f"resident memory grew by {growth >> 20} MiB from the middle to the end")


def fuzz(inputs: int, seed: int, work: Path) -> None:
    """Run one fuzzer, whose process ends with it. `work` holds the seeds, the dictionary, and what it finds."""
    options = [
        f"-atheris_runs={inputs}",
        f"-seed={seed}",
        f"-max_len={target.INPUT_BYTES_MAX}",
        f"-dict={work / DICTIONARY}",
        f"-artifact_prefix={tempfile.gettempdir()}/nbd-fuzz-",
        "-len_control=0",
        "-timeout=30",
        "-rss_limit_mb=2048",
        "-verbosity=0",
        "-print_final_stats=0",
    ]
    figures = Figures(inputs)
    atheris.Setup([sys.argv[0], *options, str(work / CORPUS), str(work / SEEDS)], figures.one)
    atheris.Fuzz()


def prepare(work: Path) -> None:
    """Make what a fuzzer begins with."""
    (work / CORPUS).mkdir(exist_ok=True)
    (work / SEEDS).mkdir()
    for number, data in enumerate((*seeds.rows(), *seeds.found())):
        (work / SEEDS / f"{number:05}").write_bytes(data)
    words = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.HEADS)
    (work / DICTIONARY).write_text("".join(words))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=100_000, help="in all")
    parser.add_argument("--jobs", type=int, default=1, help="processes among which they are shared")
    parser.add_argument("--seed", type=int, default=1, help="of the first process; not 0")
    parser.add_argument("--corpus", type=Path, help="a folder where inputs that found something new are kept")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("file", nargs="*", type=Path, help="run these inputs once, instead")
    arguments = parser.parse_args()
    for file in arguments.file:
        target.run(file.read_bytes())
    if arguments.file:
        return 0
    if arguments.work:
        fuzz(arguments.inputs, arguments.seed, arguments.work)
    with tempfile.TemporaryDirectory(prefix="nbd-fuzz-") as folder:
        jobs = []
        for job in range(arguments.jobs):
            work = Path(folder, str(job))
            work.mkdir()
            if arguments.corpus:
                arguments.corpus.mkdir(exist_ok=True)
                (work / CORPUS).symlink_to(arguments.corpus.absolute())
            prepare(work)
            command = [sys.executable, "-m", "tests.fuzz", f"--inputs={arguments.inputs // arguments.jobs}"]
            jobs.append(subprocess.Popen([*command, f"--seed={arguments.seed + job}", f"--work={work}"]))
        statuses = [job.wait() for job in jobs]
    return 0 if statuses == [0] * len(jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
