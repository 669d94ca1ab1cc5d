"""What a store may hold and say: the promise of docs/durability.md, as the world outside can check it.

Every session (an opened writer) starts from a state that the oracle has compared byte by byte, and adds operations to
it. What a later session finds must be, disk by disk, what an earlier one started from plus a *prefix* of its
operations that holds all that were acknowledged; and for the tree of names the same, as one more history. A session
may learn late that it was superseded: whatever it acknowledges until then must be in the state its successor found.

Contents are held as bytes of the blocks that were ever written (everything else is zeros), so comparisons need no
knowledge of the engine.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.simulation.names import Change, Devices, after, cut_off

BLOCK_BYTES = 256 * 1024
ZEROS = bytes(BLOCK_BYTES)


class Violation(Exception):
    """A promise was broken."""


class Image:
    """The bytes of a disk; blocks that are not here are zeros."""

    def __init__(self, blocks: dict[int, bytearray] | None = None) -> None:
        self.blocks = blocks or {}

    def copy(self) -> "Image":
        return Image({block: bytearray(data) for block, data in self.blocks.items()})

    def block(self, block: int) -> bytes | bytearray:
        return self.blocks.get(block, ZEROS)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        for block, low, high, at in pieces(offset, len(data)):
            if block not in self.blocks:
                self.blocks[block] = bytearray(BLOCK_BYTES)
            self.blocks[block][low:high] = data[at : at + high - low]

    def zero(self, offset: int, length: int) -> None:
        for block in self.touched(offset, length):
            low = max(offset - block * BLOCK_BYTES, 0)
            high = min(offset + length - block * BLOCK_BYTES, BLOCK_BYTES)
            self.blocks[block][low:high] = ZEROS[low:high]

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


@dataclass(eq=False)
class Session:
    """A writer that opened and whose state was compared. `parent` and `positions` say what it was found to hold: of
    each disk of the parent, how many operations; `tree_position` the same for the tree.
    """

    name: str
    epoch: int
    parent: "Session | None"
    positions: dict[int, int]
    tree_position: int
    devices: list[Devices]
    disks: dict[int, Disk]
    tree_sequences: list[tuple[int, int]] = field(default_factory=list)
    """(sequence, position in `devices`) of each change of the tree."""
    tree_acked: int = 0
    tree_answered: int = 0
    """How much of the history of the tree was before the last write that was answered."""
    closed: bool = False
    children: list["Session"] = field(default_factory=list)

    def tree_changed(self, change: Change, shown: Devices, sequence: int) -> int:
        """The tree took another shape; gives the length of its history. Violation: it is not what was asked for.

        What a device loses that is made smaller is zeros from now on, also when it grows again.
        """
        before = self.devices[-1]
        devices = after(before, change, shown, self.disks.keys())
        if shown != devices:
            raise Violation(f"{change} made {before} into {shown} instead of {devices}")
        self.devices.append(devices)
        position = len(self.devices) - 1
        self.tree_sequences.append((sequence, position))
        for name, (layer, _) in devices.items():
            if layer not in self.disks:
                self.disks[layer] = self._new_disk(change, before, name, layer)
        for layer, (offset, length) in cut_off(before, devices).items():
            self.disks[layer].add(Op(offset, length, tree=position))
        return position

    def _new_disk(self, change: Change, before: Devices, name: str, layer: int) -> Disk:
        if change.verb == "snapshot":
            return self.disks[before[name][0]].child(layer)
        if change.verb in ("clone", "rollback"):
            origin = self.disks[before[change.name][0]]
            return Disk(layer, origin.live.copy(), origin=origin.layer)
        return Disk(layer, Image())


@dataclass(frozen=True)
class Floor:
    """What must at least be found, at some moment: a session, and what it had acknowledged."""

    session: Session
    tree: int
    disks: dict[int, int]


@dataclass(frozen=True)
class View:
    """What somebody found in the store."""

    devices: Devices
    contents: dict[int, dict[int, bytes]]
    """Layer to block to bytes."""
    lost: dict[int, set[int]] = field(default_factory=dict)
    """Layer to the blocks that could not be read."""


class Oracle:
    """All sessions of one store."""

    def __init__(self) -> None:
        self.root = Session("nothing", 0, None, {}, 0, [{}], {})
        self.sessions = [self.root]
        self.stale_acknowledgements = 0
        """Flushes that were answered by a writer after a later one had opened."""

    def newest(self, below: int | None = None) -> Session:
        """The session of the highest epoch (below one)."""
        return max(
            (session for session in self.sessions if below is None or session.epoch < below),
            key=lambda session: session.epoch,
        )

    def floor(self, session: Session) -> Floor:
        """What that session has acknowledged so far."""
        return Floor(session, session.tree_acked, {number: disk.acked for number, disk in session.disks.items()})

    def answered(self, session: Session, disk: Disk, count: int) -> None:
        """A client was told that its operation is done, the last of so many."""
        disk.answered = max(disk.answered, count)
        session.tree_answered = len(session.devices) - 1

    def kept(self, session: Session) -> Floor:
        """What the journal of that session's host holds, beside what was acknowledged: all that was answered."""
        disks = {number: max(disk.acked, disk.answered) for number, disk in session.disks.items()}
        return Floor(session, max(session.tree_acked, session.tree_answered), disks)

    def opened(self, name: str, epoch: int, view: View, *, whole: bool) -> Session:
        """A writer has opened and shown this; Violation unless it may. The new session is known from now on. `whole`:
        all that the session before answered must be there, since its host had the journal of it and nobody else had the
        store in between, or since clients are told so.
        """
        parent = self.newest(below=epoch)
        session = self.locate(name, epoch, view, self.kept(parent) if whole else self.floor(parent))
        for other in self.sessions:
            if other.epoch > epoch:
                self._check_holds(other, session, 0, {}, f"{name} opened (epoch {epoch})")
        self.sessions.append(session)
        parent.children.append(session)
        return session

    def locate(self, name: str, epoch: int, view: View, floor: Floor, *, exact: bool = False) -> Session:
        """The state of the floor's session that a view shows; Violation if it shows none, or one without what was
        acknowledged. `exact`: everything that session did must be there.
        """
        parent = floor.session
        least = len(parent.devices) - 1 if exact else floor.tree
        trees = [at for at in range(least, len(parent.devices)) if parent.devices[at] == view.devices]
        if not trees:
            raise Violation(
                f"{name} finds the devices {view.devices}; {parent.name} had {parent.devices[least]} acknowledged "
                f"and then made {parent.devices[least + 1 :]}"
            )
        tree = trees[-1]
        positions, disks = {}, {}
        matches: dict[int, list[int]] = {}
        for layer in [layer for layer, _ in view.devices.values()]:
            disk = parent.disks[layer]
            low = len(disk.ops) if exact else floor.disks.get(layer, 0)
            for at, op in enumerate(disk.ops):
                if op.tree is not None and op.tree <= tree:
                    # A disk is made smaller behind all its earlier writes, in the log too.
                    low = max(low, at + 1)
            seen = view.contents[layer]
            matching = disk.matches(seen, low, tree)
            if not matching:
                raise Violation(
                    f"{name} (epoch {epoch}) finds layer {layer} in a state it never had in {parent.name} "
                    f"(epoch {parent.epoch}), or in one before an acknowledged flush: {disk.explain(seen, low)}; "
                    f"matching at all: {disk.matches(seen, 0, tree)}"
                )
            positions[layer] = matching[-1]
            matches[layer] = matching
            blocks = {block: bytearray(data) for block, data in seen.items()}
            disks[layer] = Disk(layer, Image(blocks))
        self._check_forks(name, parent, matches)
        return Session(name, epoch, parent, positions, tree, [view.devices], disks)

    @staticmethod
    def _check_forks(name: str, session: Session, matches: dict[int, list[int]]) -> None:
        """Violation: a device does not go on from what its snapshot shows, operation by operation."""
        for layer, found in matches.items():
            disk = session.disks[layer]
            if disk.parent is None or disk.parent.layer not in matches:
                continue
            older = matches[disk.parent.layer]
            whole = disk.fork in older and any(count >= disk.fork for count in found)
            if not whole and not set(older) & set(found):
                raise Violation(
                    f"{name} finds layer {layer} after {found} operations, and the snapshot that it goes on from, "
                    f"layer {disk.parent.layer}, after {older} of {disk.fork}"
                )

    def read(self, name: str, view: View, floor: Floor) -> None:
        """A reader found this; Violation unless it is what the floor's session, or a later one, held at some time."""
        broken: Violation | None = None
        for session in self.sessions:
            if session.epoch >= floor.session.epoch:
                least = floor if session is floor.session else Floor(session, 0, {})
                try:
                    self.locate(name, 0, view, least)
                    return
                except Violation as violation:
                    broken = broken or violation
        assert broken is not None
        raise broken

    def acknowledged(self, session: Session, layer: int, count: int) -> None:
        """A flush was answered: the first `count` operations of a disk are durable."""
        disk = session.disks[layer]
        # A flush does not answer for a resize that has not returned, though memory shows it already.
        while count and (disk.ops[count - 1].tree or 0) > session.tree_acked:
            count -= 1
        if count <= disk.acked:
            return
        disk.acked = count
        self._acknowledge_kin(session, disk)
        self.stale_acknowledgements += self.superseded(session)
        self._check_successors(session, f"{session.name} acknowledged {count} operations of layer {layer}")

    def _acknowledge_kin(self, session: Session, disk: Disk) -> None:
        """What a device and its snapshots have in common is durable in each."""
        at = disk
        while at.parent is not None:
            at.parent.acked = max(at.parent.acked, min(disk.acked, at.fork))
            at = at.parent
        for other in sorted(session.disks.values(), key=lambda other: other.layer):
            if other.parent is not None:
                other.acked = max(other.acked, other.parent.acked)

    def tree_acknowledged(self, session: Session, count: int) -> None:
        """A change of the tree has returned: so many are durable."""
        session.tree_acked = max(session.tree_acked, count)
        self._check_successors(session, f"{session.name} acknowledged {count} tree changes")

    def closed(self, session: Session) -> None:
        """A clean stop: everything is durable."""
        session.closed = True
        session.tree_acked = len(session.devices) - 1
        for disk in session.disks.values():
            disk.acked = len(disk.ops)
        self._check_successors(session, f"{session.name} closed")

    def superseded(self, session: Session) -> bool:
        """Whether a later writer has opened."""
        return any(other.epoch > session.epoch for other in self.sessions)

    def _check_successors(self, session: Session, what: str) -> None:
        acked = {number: disk.acked for number, disk in session.disks.items()}
        for other in self.sessions:
            if other.epoch > session.epoch:
                self._check_holds(other, session, session.tree_acked, acked, what)

    def _check_holds(self, later: Session, earlier: Session, tree: int, disks: dict[int, int], what: str) -> None:
        """Violation unless the state that `later` found holds so much of what `earlier` did."""
        child = later
        while child.parent is not None and child.parent is not earlier and child.parent.epoch > 0:
            child = child.parent
        if child.parent is not earlier:
            # The later one does not stand on the earlier one: that must have added nothing to what both stand on.
            if tree or any(disks.values()):
                raise Violation(f"{what}, and {later.name} (epoch {later.epoch}) runs without it")
            if earlier.parent is not None and earlier.parent.epoch > 0:
                self._check_holds(later, earlier.parent, earlier.tree_position, earlier.positions, what)
            return
        if tree > child.tree_position:
            raise Violation(f"{what}, and {child.name} (epoch {child.epoch}) found only {child.tree_position}")
        for layer, count in disks.items():
            if layer in child.positions and count > child.positions[layer]:
                found = child.positions[layer]
                raise Violation(f"{what}, and {child.name} (epoch {child.epoch}) found only {found} of layer {layer}")
