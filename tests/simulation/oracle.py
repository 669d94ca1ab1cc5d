"""What a store may hold and say: the promise of docs/durability.md, as the world outside can check it.

Every session (an opened writer) starts from a state that the oracle has compared byte by byte, and adds operations to
it. What a later session finds must be, disk by disk, what an earlier one started from plus a *prefix* of its
operations that holds all that were acknowledged; and for the tree of names the same, as one more history. A session
may learn late that it was superseded: whatever it acknowledges until then must be in the state its successor found.

Contents are held as bytes of the blocks that were ever written (everything else is zeros), so comparisons need no
knowledge of the engine.
"""

from dataclasses import dataclass, field

from tests.simulation.disk_history import Disk, Image, Op, Violation
from tests.simulation.names import Change, Devices, after, cut_off


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
            disks[layer] = Disk(layer, Image(dict(seen)))
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
