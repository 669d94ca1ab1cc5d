"""The steps of an engine: writes, memtable flushes, operations on trunks, crashes."""

from typing import Any

from tests.model.explore import Violation
from tests.model.layers.index import Index, changed
from tests.model.layers.recovery import Recovery, entries_of, forget, remember
from tests.model.layers.rules import (
    SECTORS,
    Bounds,
    Content,
    Flush,
    Image,
    Left,
    Logged,
    Manifest,
    Memtable,
    Op,
    Place,
    Rules,
    Sst,
    State,
    Written,
)

Steps = list[tuple[str, State | Violation]]


class Engine(Recovery):
    """A model for `explore`, without jobs."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        super().__init__(rules, bounds)
        self.out: Steps = []
        self.state: State

    def initial(self) -> State:
        bounds = self.bounds
        maps = ((1, ((),) * bounds.blocks),)
        trunks = ((1,),)
        zeros: Content = (0,) * len(SECTORS)
        manifest = Manifest(Image(trunks, maps, 0), (), (), 0, trunks)
        empty = ((1, (zeros,) * bounds.blocks),)
        many = Left(99, 99, 99, 99, 0)
        state = State(empty, trunks, trunks, maps, Memtable(), None, manifest, (), 0, None, (0, 0, 1), many)
        anything = type(self)(self.rules, bounds._replace(only="", tidy=False, masks=(3, 1, 2), trims=False))
        for beginning in bounds.start:
            steps = [new for label, new in anything.steps(state) if label.startswith(beginning)]
            state = next(new for new in steps if isinstance(new, State))
        return state._replace(left=Left(bounds.writes, bounds.trees, bounds.flushes, bounds.jobs, bounds.crashes))

    def steps(self, state: State) -> Steps:
        self.out, self.state = [], state
        try:
            if state.left.writes:
                self.write()
            self.flush()
            if state.left.trees:
                self.change_trees()
            self.jobs()
            if state.left.crashes:
                self.crash()
        except Violation as violation:
            self.out.append(("?", violation))
        return self.out

    def emit(self, label: str, *, spend: str = "", **changes: Any) -> None:
        """One possible next state."""
        left = self.state.left
        if spend:
            left = left._replace(**{spend: getattr(left, spend) - 1})
        self.out.append((label, self.state._replace(left=left, **changes)))

    def jobs(self) -> None:
        raise NotImplementedError

    def write(self) -> None:
        state, bounds = self.state, self.bounds
        sequence = state.numbers[0] + 1
        for head in [trunk[-1] for trunk in state.tree]:
            for block in range(bounds.blocks):
                for mask in bounds.masks:
                    for value in (sequence, 0) if bounds.trims else (sequence,):
                        self._write(Written(sequence, head, block, mask, value))

    def _write(self, record: Written) -> None:
        state = self.state
        truth = dict(state.truth)
        blocks = list(truth[record.layer])
        old = blocks[record.block]
        blocks[record.block] = tuple(record.value if record.mask >> n & 1 else old[n] for n in SECTORS)
        truth[record.layer] = tuple(blocks)
        self.emit(
            f"{'write' if record.value else 'trim'} layer {record.layer} block {record.block} sectors {record.mask}",
            spend="writes",
            truth=tuple(sorted(truth.items())),
            active=remember(state.active, record),
            log=(*state.log, record),
            numbers=(record.sequence, *state.numbers[1:]),
        )

    # --- memtable flushes

    def sealed(self, state: State) -> State:
        """The memtable is sealed."""
        living = {layer for trunk in state.tree for layer in trunk}
        number = state.numbers[1] + 1
        rows, frames = entries_of(state.active, living)
        flush = Flush(state.numbers[0], state.active, state.tree, Sst(number, frames, rows))
        return state._replace(active=Memtable(), flush=flush, numbers=(state.numbers[0], number, state.numbers[2]))

    def flush(self) -> None:
        state, flush = self.state, self.state.flush
        if flush is None:
            due = any(logged.op.on_trunks for logged in state.active.operations)
            if due or (state.left.flushes and (state.active.blocks or state.active.operations)):
                left = state.left._replace(flushes=state.left.flushes - (not due))
                self.out.append(("seal", self.sealed(state)._replace(left=left)))
        elif flush.committed:
            index = self.index(state)
            place: dict[int, Place] = {n: (flush.sst.number, n) for n in range(len(flush.sst.frames))}
            index.install(flush.sst.entries, flush.memtable.operations, place)
            self.emit("install", flush=None, cut=flush.sequence, trunks=index.trunks, maps=index.frozen())
        elif not state.locked:
            if self.rules.gone == "forgotten":
                living = {layer for trunk in state.tree for layer in trunk}
                rows = tuple(row for row in flush.sst.entries if row.layer in living)
                flush = flush._replace(sst=flush.sst._replace(entries=rows))
            old = state.manifest
            listed = flush.memtable.operations if self.rules.listed else ()
            manifest = old._replace(
                ssts=(*old.ssts, *([flush.sst] if flush.sst.entries else [])),
                operations=(*old.operations, *listed),
                sequence=flush.sequence,
                tree=flush.tree,
            )
            log = tuple(record for record in state.log if record.sequence > flush.sequence)
            self.emit("flush commits", flush=flush._replace(committed=True), manifest=manifest, log=log)

    # --- operations on trunks

    def allowed(self, letter: str) -> bool:
        return not self.bounds.only or letter in self.bounds.only

    def change_trees(self) -> None:
        state, new = self.state, self.state.numbers[2] + 1
        for trunk in state.tree:
            if trunk == (trunk[-1],) and len(state.tree) > 1 and self.allowed("x"):
                self.change(f"drop {trunk[-1]}", Op("drop", trunk[-1]))
        if self.allowed("m"):
            self.change(f"make {new}", Op("make", new))
        # One at a time: each is followed by the next one when its memtable is installed.
        waiting = list(state.active.operations) if self.rules.waits != "nothing" else []
        if state.flush and self.rules.waits == "operation":
            waiting += state.flush.memtable.operations
        if (state.flush and self.rules.roll_seals) or any(logged.op.on_trunks for logged in waiting):
            return
        for trunk in state.tree:
            if self.allowed("s"):
                self.change(f"freeze {trunk[-1]}", Op("freeze", trunk[-1], new))
            for snapshot in trunk[:-1]:
                if self.allowed("c"):
                    self.change(f"clone {snapshot}", Op("clone", snapshot, new))
                if self.allowed("r"):
                    self.change(f"roll {trunk[-1]} back to {snapshot}", Op("roll", snapshot, new, trunk[-1]))
                if self.allowed("d"):
                    self.change(f"delete {snapshot}", Op("delete", snapshot))

    def change(self, label: str, op: Op) -> None:
        """Do it to the names, now; to the indexes at its turn, but that a layer is made, or goes alone."""
        state, sequence = self.state, self.state.numbers[0] + 1
        truth = dict(state.truth)
        if op.new:
            truth[op.new] = truth[op.on]
        if op.kind == "make":
            truth[op.on] = ((0,) * len(SECTORS),) * self.bounds.blocks
        truth.pop(op.gone, None)
        active = state.active
        if self.rules.roll_memtable == "forgotten" or op.kind != "roll":
            active = forget(active, op.gone)
        logged = Logged(sequence, op)
        index = self.index(state)
        self.at_once(op, index)
        new = state._replace(
            truth=tuple(sorted(truth.items())),
            tree=changed(state.tree, op),
            trunks=index.trunks,
            maps=index.frozen(),
            active=active._replace(operations=(*active.operations, logged)),
            log=(*state.log, logged),
            numbers=(sequence, state.numbers[1], max(state.numbers[2], op.new, op.on)),
            left=state.left._replace(trees=state.left.trees - 1),
        )
        self.out.append((label, self.sealed(new) if op.on_trunks and self.rules.roll_seals else new))

    def at_once(self, op: Op, index: Index) -> None:
        if op.kind == "make":
            index.operate(op)
        elif op.kind == "drop":
            trunk = next((trunk for trunk in index.trunks if op.on in trunk), ())
            if trunk == (op.on,):
                index.operate(op)
            elif trunk and self.rules.drop == "always":
                for layer in trunk:
                    del index.maps[layer]
                index.trunks = tuple(each for each in index.trunks if each != trunk)

    def crash(self) -> None:
        """A crash at any moment, and a start."""
        tree, index, memtable = self.reload(self.state.manifest, self.state.log)
        self.emit(
            "crash",
            spend="crashes",
            tree=tree,
            trunks=index.trunks,
            maps=index.frozen(),
            active=memtable,
            flush=None,
            cut=self.state.manifest.sequence,
            job=None,
        )
