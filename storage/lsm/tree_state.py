"""The tree of names as the engine needs it: opaque state, changed by opaque records; and a change of it on its way.

A record is logged like a write. Applied live and in replay by the same call, it may say that blocks of a layer are
zeroed, or that something is done to trunks of layers; the engine does that in the same step, so no crash can fall in
between.
"""

from collections.abc import Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from storage.errors import BrokenInvariant, StorageError
from storage.format.trunks import Operation


@dataclass(frozen=True, slots=True)
class TreeEffects:
    """What a tree change means for blocks: (layer, byte offset, bytes) zeroed, and what is done to trunks, in order."""

    zeroed: list[tuple[int, int, int]] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)


class TreeState(Protocol):
    """The tree of names, as the engine knows it: an image in bytes, and records that change it. Owned by the event
    loop.
    """

    def load(self, image: bytes) -> None:
        """Become the tree whose image this is, as `encode` gave it. Corrupt: it is none; Unsupported: it is of
        another version.
        """

    def encode(self) -> bytes:
        """The image of the whole tree: bytes that only `load` reads, stored with a memtable flush if it has changed."""

    def apply(self, record: bytes) -> TreeEffects:
        """Change the tree by one record, all or nothing; gives what that does to layers. Corrupt: it does not fit the
        tree, Unsupported: it is of another version.
        """

    def trunks(self) -> Iterable[list[int]]:
        """The layers that exist, as trunks: of each device its snapshots, oldest first, and its head."""


@dataclass(frozen=True, slots=True)
class TreeChange:
    """A change of the tree that was applied. Awaited, it is durable; who does not wait for that may let it go."""

    durable: Callable[[], Awaitable[None]]

    def __await__(self) -> Generator[Any, Any, None]:
        return self.durable().__await__()


TrunkPlan = Callable[[], tuple[bytes, list[int]]]
"""Gives a record that does something to trunks, and their heads, at the moment when it is applied. It changes
nothing of the tree or of a layer itself.
"""


Logged = list[tuple[Any, int]]
"""What has to be in the log: queues of it, and up to which sequence."""


class TrunkChange:
    """A change of trunks that is planned and made in one step, when its turn comes. A crash before its record is in the
    log leaves all as it was; after that a replay does it.
    """

    def __init__(
        self, plan: TrunkPlan, apply: Callable[[bytes, list[int]], Logged], applied: Callable[[], None] | None
    ) -> None:
        """`apply` takes what `plan` gives, and gives what makes it durable; `applied` is called in the same step, if it
        was not refused.
        """
        self._plan = plan
        self._apply = apply
        self._applied = applied
        self._logged: Logged = []
        self._refused: Exception | None = None

    def __call__(self) -> None:
        """Make it, or refuse it: then nothing has changed. BrokenInvariant: it does not fit."""
        try:
            record, heads = self._plan()
        except BrokenInvariant:
            raise
        except Exception as error:
            # A mistake in planning is one of this change alone, as it is of a record for `Engine.change_tree`: nothing
            # was applied, and no later record rests on it. From here on it would be the end of the engine.
            self._refused = error
            return
        try:
            self._logged = self._apply(record, heads)
            if self._applied is not None:
                self._applied()
        except BrokenInvariant:
            raise
        except StorageError as error:
            self._refused = error

    @property
    def is_made(self) -> bool:
        """Whether its turn came, and it was not refused."""
        return bool(self._logged)

    def logged(self) -> Logged:
        """What has to be in the log for it to be durable. Raises why it was refused, if it was."""
        if self._refused is not None:
            raise self._refused
        return self._logged
