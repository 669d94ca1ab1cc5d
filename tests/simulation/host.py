"""What a simulated host remembers: the anchor and the lock files of `storage.lsm.recovery.anchor`, in memory.

A lock is held as long as its process lives, stalled or not; a crash of the process leaves the host as it was.
"""

import msgspec

from storage.lsm.recovery.anchor import Anchor
from storage.lsm.recovery.locks import LockHolder
from tests.simulation.loop import Process


class SimLock:
    """One process's claim on an epoch."""

    def __init__(self, host: "SimHost", epoch: int, tag: bytes, process: Process) -> None:
        self.epoch = epoch
        self.tag = tag
        self.process = process
        self.confirmed = False
        self.held = True
        self._host = host

    def confirm(self) -> None:
        self.confirmed = True

    def release(self) -> None:
        self.held = False

    def discard(self) -> None:
        self.release()
        self._host.locks.remove(self)


class SimHost:
    """The state folder of one host."""

    def __init__(self) -> None:
        self.anchors: dict[int, Anchor] = {}
        self.locks: list[SimLock] = []
        self.marks: dict[int, int] = {}

    def of(self, process: Process) -> "HostView":
        return HostView(self, process)


class HostView:
    """The state folder as one process uses it; the interface of `HostState`."""

    def __init__(self, host: SimHost, process: Process) -> None:
        self._host = host
        self._process = process

    def load(self) -> Anchor | None:
        anchors = self._host.anchors
        if not anchors:
            return None
        anchor = anchors[max(anchors)]
        marked = self._host.marks.get(anchor.epoch, 0)
        return msgspec.structs.replace(anchor, wal_number=max(anchor.wal_number, marked))

    def mark(self, epoch: int) -> "SimMark":
        return SimMark(self._host, epoch, self._process)

    def save(self, anchor: Anchor) -> None:
        host = self._host
        host.anchors[anchor.epoch] = anchor
        host.anchors = {epoch: kept for epoch, kept in host.anchors.items() if epoch >= anchor.epoch}
        host.locks = [lock for lock in host.locks if lock.epoch >= anchor.epoch or _is_held(lock)]

    def forget(self) -> None:
        self._host.anchors.clear()
        self._host.marks.clear()

    def lock_epoch(self, epoch: int, takeover_tag: bytes) -> SimLock:
        lock = SimLock(self._host, epoch, takeover_tag, self._process)
        self._host.locks.append(lock)
        return lock

    def holder(self, epoch: int, newest_tag: bytes) -> LockHolder:
        for lock in self._host.locks:
            if lock.epoch == epoch and (lock.confirmed or lock.tag == newest_tag):
                return LockHolder("held", 1) if _is_held(lock) else LockHolder("gone")
        return LockHolder("elsewhere")


class SimMark:
    """What a writer acknowledged, known to its host at once."""

    def __init__(self, host: SimHost, epoch: int, process: Process) -> None:
        self._host = host
        self._epoch = epoch
        self._process = process

    def set(self, number: int) -> None:
        if self._process.alive:
            self._host.marks[self._epoch] = number

    def close(self) -> None:
        pass


def _is_held(lock: SimLock) -> bool:
    return lock.held and lock.process.alive
