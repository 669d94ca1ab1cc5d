"""What a disk may hold after a crash, given what was sent and what was answered before it.

The promise: a prefix of the writes in order of admission that includes every write completed before the last
acknowledged FLUSH or FUA. One connection admits in the order of sending, so each connection here has an area
of its own and its own order; a FLUSH on one connection covers what had completed on all, and a write sent
after another had completed, on whichever connection, comes after it.
"""

from dataclasses import dataclass, field

import numpy as np

from tests.crash.stamps import ZEROS, Numbers


class Lost(AssertionError):
    """The disk holds no state that the promise allows."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One write, trim or zeroing: afterwards its sectors say `value` (its own number, or ZEROS).

    `after` holds, for every connection, how many of its operations are known to come before this one.
    """

    first: int
    count: int
    value: int
    after: tuple[int, ...]


@dataclass
class Lane:
    """One connection's area (sectors from `first` on), what it held at the start, and the operations sent in
    order.

    `floor`: how many of the operations must be there after a crash.
    """

    first: int
    state: Numbers
    operations: list[Operation] = field(default_factory=list)
    completed: int = 0
    floor: int = 0

    def prefixes(self, seen: Numbers) -> list[int]:
        """All lengths of prefixes of the operations after which the area would look as `seen`."""
        state = self.state.copy()
        different = int(np.count_nonzero(state != seen))
        matching = [0] if different == 0 else []
        for length, operation in enumerate(self.operations, 1):
            start = operation.first - self.first
            part = slice(start, start + operation.count)
            different -= int(np.count_nonzero(state[part] != seen[part]))
            state[part] = operation.value
            different += int(np.count_nonzero(operation.value != seen[part]))
            if different == 0:
                matching.append(length)
        return matching

    def describe(self, seen: Numbers) -> str:
        """Where the area differs from the state that must at least be there, for a failure's message."""
        state = self.state.copy()
        touched: dict[int, list[int]] = {}
        for length, operation in enumerate(self.operations, 1):
            start = operation.first - self.first
            if length <= self.floor:
                state[start : start + operation.count] = operation.value
        wrong = np.flatnonzero(state != seen)
        for length, operation in enumerate(self.operations, 1):
            for sector in wrong[:4]:
                if operation.first <= self.first + sector < operation.first + operation.count:
                    touched.setdefault(int(sector), []).append(length)
        examples = "; ".join(
            f"sector {self.first + int(sector)} says write {seen[sector]}, after operation {self.floor} "
            f"it said {state[sector]}; touched by operations {touched.get(int(sector), [])[-8:]}"
            for sector in wrong[:4]
        )
        return (
            f"{len(self.operations)} operations sent, {self.completed} completed, {self.floor} must be there "
            f"and {len(wrong)} sectors differ from that state: {examples}"
        )


def check(lanes: list[Lane], seen: list[Numbers]) -> list[int]:
    """The lengths of the prefixes that the disk holds, one for each lane; Lost: it holds no state that is
    allowed.

    Among the prefixes that match, the shortest ones are taken that hold what was flushed, then longer ones as
    far as the order between lanes demands: that search finds an allowed combination whenever there is one.
    """
    matching = []
    for index, (lane, area) in enumerate(zip(lanes, seen, strict=True)):
        lengths = [length for length in lane.prefixes(area) if length >= lane.floor]
        if not lengths:
            raise Lost(f"area {index} holds no prefix of its writes: {lane.describe(area)}")
        matching.append(lengths)
    chosen = [lengths[0] for lengths in matching]
    while True:
        needed = list(chosen)
        for lane, length in zip(lanes, chosen, strict=True):
            if length:
                after = lane.operations[length - 1].after
                needed = [max(pair) for pair in zip(needed, after, strict=True)]
        if needed == chosen:
            return chosen
        for index, lengths in enumerate(matching):
            longer = [length for length in lengths if length >= needed[index]]
            if not longer:
                raise Lost(
                    f"area {index} holds {matching[index]} operations, but another area holds one "
                    f"sent after operation {needed[index]} here had completed"
                )
            chosen[index] = longer[0]


def zeros(count: int) -> Numbers:
    """What a new device of so many sectors holds."""
    return np.full(count, ZEROS, np.int64)
