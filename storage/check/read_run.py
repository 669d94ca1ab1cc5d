"""One run that reads all data of a store once, and can go on where it was cut short."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from storage.check.findings import Finding
from storage.check.read_data import DataReader, Pacer
from storage.check.read_times import ReadTimes
from storage.env import Env
from storage.format.blocks import SstRef

SAVE_SECONDS = 5.0
"""What a run that is killed reads again."""


@dataclass(slots=True)
class CheckProgress:
    """How far a check is, for whoever waits for it. Changed by the check, read by others."""

    step: str = "what the store refers to"
    done: int = 0
    """Bytes of frames that were read."""
    total: int = 0


class ReadRun:
    """Reads what is listed and was not read since the run began."""

    def __init__(
        self, reader: DataReader, reads: ReadTimes, env: Env, *, rate: float, save: Callable[[], Awaitable[None]]
    ) -> None:
        """`rate` is in bytes a second, 0 for as fast as it goes; `save` keeps `reads` for the next process."""
        self._reader = reader
        self._reads = reads
        self._env = env
        self._pacer = Pacer(env, rate)
        self._save = save

    async def run(self, listed: Sequence[SstRef], progress: CheckProgress, *, resume: bool) -> list[Finding]:
        """Read all of `listed`, but for what an earlier run that was cut short has read, if this one is to `resume` it.
        A crash anywhere leaves what was noted last, five seconds ago.
        """
        reads = self._reads
        now = self._env.wall_clock()
        reads.forget_later_than(now)  # else it would pass for read by this run
        if not (resume and reads.began):
            reads.began = now
        # Its own from here on: another run may end meanwhile, or the clock be set back, and both forget what is noted.
        began = reads.began
        reads.forget_all_but({ref.id for ref in listed})
        progress.step, progress.total = "data", sum(ref.index_offset for ref in listed)
        findings = []
        saved = self._env.monotonic()
        for ref in sorted(listed, key=lambda ref: ref.id):
            end = progress.done + ref.index_offset
            if reads.read.get(ref.id, 0.0) < began:
                finding = await self.one(ref, progress)
                if finding is not None:
                    findings.append(finding)
            progress.done = end
            if self._env.monotonic() - saved >= SAVE_SECONDS:
                await self._save()
                saved = self._env.monotonic()
        if reads.began == began:  # else a run that began later goes on, if it is cut short
            reads.began = 0.0
        await self._save()
        return findings

    async def one(self, ref: SstRef, progress: CheckProgress | None = None) -> Finding | None:
        """Read one SST, and note when."""

        def note(count: int) -> None:
            if progress is not None:
                progress.done += count

        finding = await self._reader.read(ref, self._pacer, note)
        if finding is None:
            self._reads.sound(ref.id, self._env.wall_clock())
        else:
            self._reads.wrong(ref.id, finding.sentence)
        return finding
