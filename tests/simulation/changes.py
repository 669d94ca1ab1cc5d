"""An operator: makes, resizes, renames and deletes disks, imports one, and sometimes goes away in the midst of it.

Whatever he asked for happens wholly or not at all. What was cancelled may have happened; memory, the log and whoever
opens the store next agree on whether it did.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol

from storage.errors import AlreadyExists, Conflict, Invalid, NotFound, StorageError, Unreadable
from storage.fs.store import Store
from tests.simulation.damage import Damage
from tests.simulation.disk_history import BLOCK_BYTES
from tests.simulation.names import CLONE_UNDER_WAY, ON_TRUNKS, Change
from tests.simulation.oracle import Oracle, Session
from tests.simulation.profile import Profile

SECTOR = 4096
NAMES = ["alpha", "beta", "tenant/one"]
SNAPSHOTS = ["one", "two", "three"]
KINDS = ("create", "resize", "rename", "delete", "import", *ON_TRUNKS)
HOLDER = "an import"


class Work(Protocol):
    """What an operator knows of the session he lives in."""

    store: Store
    session: Session
    oracle: Oracle
    profile: Profile
    damage: Damage

    def seen(self, what: str) -> None: ...

    def violate(self, message: str) -> None: ...

    def note(self, text: str) -> None: ...

    def intend(self, task: asyncio.Task[None], changes: list[Change]) -> None: ...

    def tree_position(self, task: asyncio.Task[None]) -> int | None: ...

    def is_meant(self, name: str) -> bool: ...


class GaveUp(Exception):
    """An import that fails by itself."""


class Operator:
    """Changes the tree of names for one client. `fill` writes something to the disk of that name."""

    def __init__(self, work: Work, chance: random.Random, name: str, fill: Callable[[str], Awaitable[None]]) -> None:
        self._work = work
        self._chance = chance
        self._name = name
        self._fill = fill

    async def make(self, kind: str, names: list[str]) -> None:
        """One change, of one of `names` unless it makes a new disk; perhaps cancelled on its way."""
        work = self._work
        name = self._chance.choice(names if names and kind not in ("create", "import") else NAMES)
        changes, doing = self._plan(kind, name)
        task = asyncio.ensure_future(doing)
        work.intend(task, changes)
        cancels = self._chance.random() < work.profile.cancels
        if cancels:
            await self._go_away(task)
        await asyncio.wait({task})
        position = work.tree_position(task)
        if task.cancelled():
            if not cancels:
                work.violate(f"{self._name}: {kind} of {name} was cancelled by itself")
            work.seen("change cancelled")
            work.seen(f"change cancelled {'after' if position else 'before'} it was made")
            return
        error = task.exception()
        if kind in ON_TRUNKS and error is None:
            work.seen(f"tree: {kind}")
        if error is None:
            self._succeeded(f"{kind} {name}", position)
        elif isinstance(error, StorageError):
            excused = isinstance(error, AlreadyExists | Conflict | NotFound | Invalid)
            # What was written before a snapshot waits in memory for what is damaged, or for an answer that never comes.
            waits = bool(work.damage.name) or work.profile.faults.hang > 0
            excused |= kind in ON_TRUNKS and isinstance(error, Unreadable) and waits
            if not (excused or work.store.failed.done() or work.oracle.superseded(work.session)):
                work.violate(f"{self._name}: {kind} of {name} failed: {type(error).__name__}: {error}")
        elif not isinstance(error, GaveUp):
            work.violate(f"{self._name}: {kind} of {name} ended with {type(error).__name__}: {error}")

    def _succeeded(self, what: str, position: int | None) -> None:
        work = self._work
        if position is None and what.split()[0] in ON_TRUNKS:
            return  # somebody else meant the very same, and it counts as his
        if position is None:
            work.violate(f"{self._name}: {what} has returned and nothing has changed")
            return
        work.note(f"{self._name} {what} is durable as tree change {position}")
        try:
            work.oracle.tree_acknowledged(work.session, position)
        except Exception as broken:
            work.violate(str(broken))

    async def _go_away(self, task: asyncio.Task[None]) -> None:
        """Cancel it after some passes of the event loop, or some time."""
        if self._chance.random() < 0.5:
            for _ in range(self._chance.choice([0, 1, 2, 3, 5, 9])):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self._work.profile.faults.seconds * self._chance.expovariate(0.5))
        task.cancel()

    def _plan(self, kind: str, name: str) -> tuple[list[Change], Coroutine[None, None, None]]:
        store = self._work.store
        size = self._size()
        if kind == "create":
            return [Change(kind, name, size=size)], store.create_device(name, size)
        if kind == "resize":
            return [Change(kind, name, size=size)], store.resize_device(name, size, shrink=True)
        if kind == "rename":
            new = self._chance.choice(NAMES)
            return [Change(kind, name, new=new)], store.rename_device(name, new)
        if kind == "delete":
            return [Change(kind, name)], store.delete_device(name)
        if kind in ON_TRUNKS:
            return self._plan_on_trunks(kind, name)
        changes = [Change("create", name, size=size), Change("fill", name), Change("delete", name)]
        return changes, self._import(name, size)

    def _plan_on_trunks(self, kind: str, name: str) -> tuple[list[Change], Coroutine[None, None, None]]:
        snapshots, known = self._work.store.snapshots, self._work.session.devices[-1]
        if kind == "snapshot":
            others = [other for other in known if "@" not in other and self._chance.random() < 0.3]
            group = tuple(dict.fromkeys([name, *others]))
            new = self._chance.choice(SNAPSHOTS)
            return [Change(kind, name, new=new, group=group)], snapshots.create(group, new)
        there = [other for other in known if other.startswith(f"{name}@")]
        device, _, snapshot = self._chance.choice(there or [f"{name}@none"]).partition("@")
        if kind == "clone":
            new = self._chance.choice(NAMES)
            under_way = f"{name}@{CLONE_UNDER_WAY}"
            busy = self._work.is_meant(CLONE_UNDER_WAY) or under_way in known
            if self._chance.random() < 0.3 and not busy:
                taken = Change("snapshot", name, new=CLONE_UNDER_WAY, group=(name,))
                made = [Change(kind, under_way, new=new), Change("forget", under_way)]
                return [taken, *made], snapshots.clone(device, "", new)
            return [Change(kind, f"{device}@{snapshot}", new=new)], snapshots.clone(device, snapshot, new)
        if kind == "forget":
            return [Change(kind, f"{device}@{snapshot}")], snapshots.delete(device, snapshot)
        keep = self._chance.random() < 0.6
        change = Change(kind, f"{device}@{snapshot}", new="before-rollback" if keep else "")
        return [change], self._roll_back(device, snapshot, keep=keep)

    async def _roll_back(self, device: str, snapshot: str, *, keep: bool) -> None:
        await self._work.store.snapshots.roll_back(device, snapshot, keep=keep)

    async def _import(self, name: str, size: int) -> None:
        async with self._work.store.filling.new(name, size, HOLDER):
            await self._fill(name)
            if self._chance.random() < 0.3:
                raise GaveUp

    def _size(self) -> int:
        huge = self._work.profile.huge and self._chance.random() < 0.5
        blocks = self._chance.choice([4 * 1024 * 1024, 5000, 2**32 - 1]) if huge else self._chance.choice([3, 8, 20])
        return blocks * BLOCK_BYTES - self._chance.choice([0, 0, 512, 5 * SECTOR, 7 * 512]) * (blocks < 2**31)
