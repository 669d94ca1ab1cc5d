"""What one disk went through, and every content that it may have."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BLOCK_BYTES = 256 * 1024
ZEROS = bytes(BLOCK_BYTES)


class Violation(Exception):
    """A promise was broken."""


class Image:
    """The bytes of a disk; blocks that are not here are zeros. Copies share each block until one of them changes it."""

    def __init__(self, blocks: dict[int, bytes | bytearray] | None = None) -> None:
        self.blocks = blocks or {}
        self._own: dict[int, bytearray] = {}
        """The blocks that no other image shares."""

    def copy(self) -> "Image":
        self._own.clear()
        return Image(dict(self.blocks))

    def block(self, block: int) -> bytes | bytearray:
        return self.blocks.get(block, ZEROS)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        for block, low, high, at in pieces(offset, len(data)):
            self._changeable(block)[low:high] = data[at : at + high - low]

    def zero(self, offset: int, length: int) -> None:
        for block in self.touched(offset, length):
            low = max(offset - block * BLOCK_BYTES, 0)
            high = min(offset + length - block * BLOCK_BYTES, BLOCK_BYTES)
            self._changeable(block)[low:high] = ZEROS[low:high]

    def _changeable(self, block: int) -> bytearray:
        own = self._own.get(block)
        if own is None:
            own = self._own[block] = self.blocks[block] = bytearray(self.block(block))
        return own

    def touched(self, offset: int, length: int) -> list[int]:
        """The blocks in a range that may be other than zeros."""
        first, end = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1
        if end - first < len(self.blocks):
            return [block for block in range(first, end) if block in self.blocks]
        return [block for block in self.blocks if first <= block < end]

    def is_zero(self, offset: int, length: int) -> bool:
        """Whether a range holds nothing but zeros; any length is cheap."""
        for block in self.touched(offset, length):
            low = max(offset - block * BLOCK_BYTES, 0)
            high = min(offset + length - block * BLOCK_BYTES, BLOCK_BYTES)
            if self.blocks[block].count(0, low, high) < high - low:
                return False
        return True

    def read(self, offset: int, length: int) -> bytes:
        return b"".join(bytes(self.block(block)[low:high]) for block, low, high, _ in pieces(offset, length))


def pieces(offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
    """(block, low, high, position in the range) of each block a range touches."""
    at = 0
    while at < length:
        block, low = divmod(offset + at, BLOCK_BYTES)
        high = min(BLOCK_BYTES, low + length - at)
        yield block, low, high, at
        at += high - low


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on a disk: a write of `data`, or zeros if there is none. `tree` is set for what a shrink cut off:
    the position of that change in the history of the tree, with which it stands and falls.
    """

    offset: int
    length: int
    data: bytes | memoryview | None = None
    tree: int | None = None

    def apply(self, image: Image) -> None:
        if self.data is None:
            image.zero(self.offset, self.length)
        else:
            image.write(self.offset, self.data)

    def touches(self, image: Image) -> Iterable[int]:
        if self.data is None:
            return image.touched(self.offset, self.length)
        return [block for block, *_ in pieces(self.offset, self.length)]

    def __str__(self) -> str:
        kind = "zero" if self.data is None else "write"
        return f"{kind} {self.offset}+{self.length}"


class Disk:
    """One layer in one session: what it held when the session opened, and what was done since."""

    def __init__(self, layer: int, base: Image, *, origin: int | None = None) -> None:
        self.layer = layer
        self.origin = origin
        """The layer that it was made of."""
        self.base = base
        self.live = base.copy()
        self.ops: list[Op] = []
        self.sequences: list[tuple[int, int]] = []
        """(sequence, length of the history up to it) of each operation whose number is known, ascending."""
        self.acked = 0
        self.answered = 0
        """Operations that a client was told are done, and that a flush may not cover yet."""
        self.parent: Disk | None = None
        """The snapshot that this one goes on from: its history begins with all of that."""
        self.fork = 0
        """How long that is."""

    def child(self, layer: int) -> "Disk":
        """What goes on from here; this one is a snapshot from now on."""
        disk = Disk(layer, self.base, origin=self.layer)
        disk.live, disk.ops, disk.sequences = self.live.copy(), list(self.ops), list(self.sequences)
        disk.acked, disk.answered, disk.parent, disk.fork = self.acked, self.answered, self, len(self.ops)
        return disk

    def add(self, op: Op, sequence: int | None = None) -> int:
        """Admit an operation; gives the length of the history with it."""
        op.apply(self.live)
        self.ops.append(op)
        if sequence is not None:
            self.sequences.append((sequence, len(self.ops)))
        return len(self.ops)

    def admitted(self, sequence: int) -> int:
        """How long the history was when it had everything up to this sequence."""
        at = bisect_right(self.sequences, sequence, key=lambda known: known[0])
        return self.sequences[at - 1][1] if at else 0

    def blocks(self) -> set[int]:
        """Every block that was ever other than zeros."""
        return set(self.live.blocks) | set(self.base.blocks)

    def matches(self, seen: dict[int, bytes], low: int, tree: int) -> list[int]:
        """The lengths of history, from `low` on, after which the disk holds what was seen, if so much of the history of
        the tree has happened.
        """
        image = self.base.copy()
        wrong = {block for block in seen.keys() | image.blocks if image.block(block) != seen.get(block, ZEROS)}
        found = [0] if low == 0 and not wrong else []
        for length, op in enumerate(self.ops, 1):
            touched = list(op.touches(image)) if op.tree is None or op.tree <= tree else []
            if touched:
                op.apply(image)
            for block in touched:
                if image.block(block) == seen.get(block, ZEROS):
                    wrong.discard(block)
                else:
                    wrong.add(block)
            if length >= low and not wrong:
                found.append(length)
        return found

    def explain(self, seen: dict[int, bytes], low: int) -> str:
        """Where the disk differs from the least state it may hold."""
        image = self.base.copy()
        for op in self.ops[:low]:
            op.apply(image)
        lines = []
        for block in sorted(seen.keys() | image.blocks):
            want, got = image.block(block), seen.get(block, ZEROS)
            if want != got:
                at = next(i for i in range(BLOCK_BYTES) if want[i] != got[i])
                end = next(i for i in range(BLOCK_BYTES, 0, -1) if want[i - 1] != got[i - 1])
                place = block * BLOCK_BYTES + at
                stamp = bytes(got[at & ~15 : (at & ~15) + 16]).hex()
                near = [f"{n}:{op}" for n, op in enumerate(self.ops, 1) if op.offset <= place < op.offset + op.length]
                lines.append(f"block {block} bytes {at}..{end} say {stamp}, touched there by {near[-6:]}")
        return f"{low} of {len(self.ops)} operations must be there; " + ("; ".join(lines[:4]) or "equal to that state")
