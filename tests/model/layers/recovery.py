"""What a start makes of the newest manifest and the log, and what must hold in every state."""

from tests.model.explore import Violation
from tests.model.layers.index import Frames, Index, changed, layers
from tests.model.layers.rules import (
    FULL,
    SECTORS,
    Bounds,
    Chain,
    Content,
    Entry,
    Logged,
    Manifest,
    Memtable,
    Piece,
    Place,
    Rules,
    State,
    Trunks,
    Written,
)


def remember(memtable: Memtable, write: Written) -> Memtable:
    """A write in a memtable."""
    at = (write.layer, write.block)
    old = next((piece.content for piece in memtable.blocks if piece[:2] == at), (None,) * len(SECTORS))
    content = tuple(write.value if write.mask >> sector & 1 else old[sector] for sector in SECTORS)
    others = [piece for piece in memtable.blocks if piece[:2] != at]
    return memtable._replace(blocks=tuple(sorted([*others, Piece(*at, write.sequence, content)])))


def forget(memtable: Memtable, layer: int) -> Memtable:
    """A memtable without the writes of a layer that goes."""
    return memtable._replace(blocks=tuple(piece for piece in memtable.blocks if piece.layer != layer))


class Recovery:
    """A start, and the checks that rest on it."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        self.rules, self.bounds = rules, bounds

    def reload(self, manifest: Manifest, log: tuple[Logged | Written, ...]) -> tuple[Trunks, Index, Memtable]:
        """The tree, the indexes, and the memtable that the log makes."""
        index = self.rebuild(manifest)
        tree, memtable = manifest.tree, Memtable()
        for record in log:
            if isinstance(record, Written):
                if record.layer in layers(tree):
                    memtable = remember(memtable, record)
                continue
            op = record.op
            tree = changed(tree, op)
            if self.rules.roll_memtable == "forgotten" or op.kind != "roll":
                memtable = forget(memtable, op.gone)
            memtable = memtable._replace(operations=(*memtable.operations, record))
            if op.kind == "make" or (op.kind == "drop" and (op.on,) in index.trunks):
                index.operate(op)
        return tree, index, memtable

    def rebuild(self, manifest: Manifest) -> Index:
        """The indexes: a checkpoint, and what SSTs and operations since say."""
        rules, image = self.rules, manifest.image
        moved: dict[Place, Place] = {}
        for sst in manifest.ssts if rules.moved == "followed" else ():
            moved.update(() if sst.merged else sst.moved)

        def place_of(chain: Chain | None) -> Chain | None:
            return None if chain is None else tuple((mask, moved.get(place, place)) for mask, place in chain)

        maps = tuple((layer, tuple(place_of(chain) for chain in own)) for layer, own in image.maps)
        index = Index(rules, image.trunks, maps, self.bounds.blocks)
        operations = [one.op for one in manifest.operations if one.sequence > image.at or rules.again == "all"]
        gone = {op.gone for op in operations} if rules.dead == "ignored" else set()
        rows = [
            (row.sequence, number, row, moved.get(place, place))
            for number, sst in enumerate(manifest.ssts)
            if not sst.merged
            for row in sst.entries
            for place in [None if row.frame is None else (sst.number, row.frame)]
            if row.layer not in gone
        ]
        rows.sort(key=lambda row: row[:2])

        def put(which: set[int]) -> None:
            for layer in sorted(which):
                for _, _, row, place in rows:
                    if row.layer == layer:
                        index.entry(layer, row.block, row.mask, place)

        if rules.rows != "last":
            put(set(index.maps))
        for op in operations:
            there = set(index.maps)
            index.operate(op)
            if rules.rows == "turn":
                put(set(index.maps) - there)
        if rules.rows == "last":
            put(set(index.maps))
        return index

    # --- what must hold

    def frames(self, state: State) -> Frames:
        return {sst.number: sst.frames for sst in state.manifest.ssts}

    def index(self, state: State) -> Index:
        return Index(self.rules, state.trunks, state.maps, self.bounds.blocks)

    def check(self, state: State) -> None:
        """Each layer that lives shows what was written to it: in memory, and after a start."""
        frames = dict(self.frames(state))
        tree, index, memtable = self.reload(state.manifest, state.log)
        self._check("a start", state, tree, index, (memtable,), frames)
        if state.job and state.job.gone:
            frames[state.job.gone.number] = state.job.gone.frames
        memtables = (state.active, *([state.flush.memtable] if state.flush else []))
        self._check("memory", state, state.tree, self.index(state), memtables, frames)
        if self.bounds.tidy:
            self.tidy(state)

    def _check(
        self, who: str, state: State, tree: Trunks, index: Index, memtables: tuple[Memtable, ...], frames: Frames
    ) -> None:
        if tree != state.tree or set(index.maps) != layers(index.trunks):
            raise Violation(f"{who}: {tree}, maps of {sorted(index.maps)}; named are {state.tree}")
        for layer, blocks in state.truth:
            for block, want in enumerate(blocks):
                try:
                    got = index.read(layer, block, memtables, frames)
                except Violation as violation:
                    raise Violation(f"{who}: {violation}") from None
                if got != want:
                    raise Violation(f"{who}: layer {layer} block {block} reads {got}, written was {want}")

    def tidy(self, state: State) -> None:
        raise NotImplementedError


def entries_of(memtable: Memtable, living: set[int]) -> tuple[tuple[Entry, ...], tuple[Content, ...]]:
    """What a memtable becomes in an SST: rows, zeros of a block before its data, and frames."""
    rows: list[Entry] = []
    frames: list[Content] = []
    for layer, block, sequence, content in memtable.blocks:
        if layer not in living:
            continue
        zeros = sum(1 << sector for sector in SECTORS if content[sector] == 0)
        data = sum(1 << sector for sector in SECTORS if content[sector])
        if zeros and zeros | data == FULL:
            zeros = FULL
        if zeros:
            rows.append(Entry(layer, block, zeros, sequence, None))
        if data:
            rows.append(Entry(layer, block, data, sequence, len(frames)))
            frames.append(tuple(each or None for each in content))
    return tuple(rows), tuple(frames)
