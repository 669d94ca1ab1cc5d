"""When each SST was last read to its end and was sound: what lets a run go on where it was cut short, and what a scrub
goes by.

It is this host's own memory, kept in its state folder: without it more is read than need be, and nothing else. It
holds times of the host's clock, which may be wrong for a while: a time that is yet to come says nothing, and what was
read then counts as not read, as long as it is yet to come. So a clock that was ahead and was set right keeps nothing
from being read, and one that is behind for a while does not have all of it read again.
"""

from collections.abc import Collection
from functools import partial

import msgspec

from storage.env import Env
from storage.format.names import sst_name
from storage.lsm.recovery.anchor import HostState


class _ReadTimesFile(msgspec.Struct, frozen=True, array_like=True):
    version: int
    began: float
    read: dict[str, float]
    damaged: dict[str, str]


VERSION = 1


class ReadTimes:
    """Times in seconds since 1970, by id of the SST."""

    def __init__(self) -> None:
        self.began = 0.0
        """When the run began that was not ended; 0: the last one was."""
        self.read: dict[str, float] = {}
        """When each SST was last read and was sound."""
        self.damaged: dict[str, str] = {}
        """What was wrong with those that were not, when last read."""

    @classmethod
    def decode(cls, raw: bytes | None) -> "ReadTimes":
        """What `encode` gave; nothing, if it was damaged: it is only a memory."""
        found = cls()
        if raw is None:
            return found
        try:
            file = msgspec.msgpack.decode(raw, type=_ReadTimesFile)
        except msgspec.MsgspecError:
            return found
        if file.version == VERSION:
            found.began, found.read, found.damaged = file.began, dict(file.read), dict(file.damaged)
        return found

    def encode(self) -> bytes:
        """What is kept between two runs of a server, as the bytes of a file."""
        return msgspec.msgpack.encode(_ReadTimesFile(VERSION, self.began, self.read, self.damaged))

    def sound(self, sst: str, now: float) -> None:
        """An SST was read to its end."""
        self.read[sst] = now
        self.damaged.pop(sst, None)

    def wrong(self, sst: str, sentence: str) -> None:
        """An SST was read, and is damaged: it is not counted as read."""
        self.damaged[sst] = sentence
        self.read.pop(sst, None)

    def read_by(self, sst: str, now: float) -> float | None:
        """When an SST was last read, by a clock that shows `now`; None: never, or at a time that is yet to come."""
        at = self.read.get(sst)
        return None if at is None or at > now else at

    def forget_later_than(self, now: float) -> None:
        """A run begins at this time, which is not to take for its own what was read by a clock that was ahead."""
        for sst in [sst for sst, at in self.read.items() if at > now]:
            del self.read[sst]
        if self.began > now:
            self.began = 0.0

    def forget_all_but(self, listed: Collection[str]) -> None:
        """These are all there are."""
        for table in (self.read, self.damaged):
            for sst in [sst for sst in table if sst not in listed]:
                del table[sst]


class StoredReadTimes:
    """The reads of one store as this host keeps them, loaded when they are first asked for. Owned by the event loop."""

    def __init__(self, host: HostState | None, env: Env) -> None:
        """Without a `host` they end with the process."""
        self._host = host
        self._env = env
        self._reads: ReadTimes | None = None

    @property
    def damaged(self) -> list[str]:
        """What was wrong with SSTs when they were last read: a sentence for each."""
        found = {} if self._reads is None else self._reads.damaged
        return [f"{sst_name(sst)}: {sentence}" for sst, sentence in sorted(found.items())]

    async def load(self) -> ReadTimes:
        """What is known. What was read at a time that is yet to come stays: it may be the clock as it is now that is
        wrong, and will be set right.
        """
        if self._reads is None:
            raw = None
            if self._host is not None:
                load = partial(self._host.load_memory, "reads")
                raw = await self._host.unsaved.load(self._env, "reads", load)
            self._reads = self._reads or ReadTimes.decode(raw)
        return self._reads

    async def save(self) -> None:
        """Keep what is known now. Where that fails, a later process reads again what this one has read."""
        if self._host is None or self._reads is None:
            return
        save = partial(self._host.save_memory, "reads", self._reads.encode())
        await self._host.unsaved.attempt(self._env, "reads", save)
