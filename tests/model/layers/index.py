"""The indexes of all layers, what entries and operations do to them, and what a reader sees. The same in life and at a
start.
"""

from collections.abc import Iterable, Mapping, Sequence

from tests.model.explore import Violation
from tests.model.layers.rules import (
    FULL,
    SECTORS,
    ZEROS,
    Chain,
    Content,
    Entry,
    Logged,
    Map,
    Maps,
    Memtable,
    Op,
    Place,
    Rules,
    Trunks,
)

Frames = Mapping[int, tuple[Content, ...]]
"""Of each SST that is there."""


def push(chain: Chain, mask: int, place: Place) -> Chain:
    """An entry above a chain; what it hides is forgotten."""
    if mask == FULL:
        return ((FULL, place),) if place else ()
    out, seen = [(mask, place)], mask
    for element in chain:
        if element[0] & ~seen:
            out.append(element)
            seen |= element[0]
    while out and out[-1][1] is None:
        out.pop()
    return tuple(out)


def changed(trunks: Trunks, op: Op) -> Trunks:
    """The trunks after an operation, as names."""
    out = []
    for trunk in trunks:
        if op.kind == "freeze" and trunk[-1] == op.on:
            trunk = (*trunk, op.new)
        elif op.kind == "roll" and trunk[-1] == op.head:
            trunk = (*trunk[:-1], op.new)
        elif op.kind == "delete":
            trunk = tuple(layer for layer in trunk if layer != op.on)
        if (op.kind, trunk) != ("drop", (op.on,)):
            out.append(trunk)
    if op.kind == "clone" or (op.kind == "make" and (op.on,) not in out):
        out.append((op.new or op.on,))
    return tuple(sorted(out))


def layers(trunks: Trunks) -> set[int]:
    return {layer for trunk in trunks for layer in trunk}


class Index:
    """Trunks and their maps, to be changed in place."""

    def __init__(self, rules: Rules, trunks: Trunks, maps: Maps, blocks: int) -> None:
        self.rules, self.trunks, self.maps = rules, trunks, dict(maps)
        self.nothing: Map = (None,) * blocks
        self.holes: Map = ((),) * blocks
        self.blocks = range(blocks)

    def frozen(self) -> Maps:
        return tuple(sorted(self.maps.items()))

    def heads(self) -> set[int]:
        return {trunk[-1] for trunk in self.trunks}

    def put(self, layer: int, block: int, chain: Chain | None) -> None:
        old = self.maps[layer]
        self.maps[layer] = (*old[:block], chain, *old[block + 1 :])

    def trunk(self, layer: int) -> tuple[int, ...]:
        return next(trunk for trunk in self.trunks if layer in trunk)

    def holder(self, trunk: tuple[int, ...], block: int) -> int:
        """The layer of (the end of) a trunk whose map has what its first layer shows."""
        return next((layer for layer in trunk if self.maps[layer][block] is not None), trunk[-1])

    def chain(self, layer: int, block: int) -> Chain:
        trunk = self.trunk(layer)
        return self.maps[self.holder(trunk[trunk.index(layer) :], block)][block] or ()

    # --- changes

    def entry(self, layer: int, block: int, mask: int, place: Place) -> None:
        """A row of one layer, if it is there; what it replaces is kept for the next older snapshot."""
        if layer not in self.maps:
            return
        trunk = self.trunk(layer)
        at = trunk.index(layer)
        old = self.chain(layer, block)
        if at:
            self.keep(trunk[at - 1], block, old)
        self.put(self.holder(trunk[at:], block), block, push(old, mask, place))

    def keep(self, snapshot: int, block: int, chain: Chain) -> None:
        if self.maps[snapshot][block] is None or self.rules.record == "last":
            self.put(snapshot, block, chain if self.rules.keeps == "chain" else chain[:1])

    def operate(self, op: Op) -> None:
        """At its turn. Violation: it does not fit."""
        if op.kind == "make":
            self.maps.setdefault(op.on, self.holes)
        elif op.kind == "drop":
            if (op.on,) in self.trunks:
                del self.maps[op.on]
        elif not any(op.on in trunk for trunk in self.trunks):
            raise Violation(f"{op} does not fit: the indexes have {self.trunks}")
        elif op.kind == "freeze":
            self.maps[op.new], self.maps[op.on] = self.maps[op.on], self.nothing
        elif op.kind == "clone":
            self.maps[op.new] = tuple(self.chain(op.on, block) for block in self.blocks)
        elif op.kind == "roll":
            self._roll(op)
        else:
            self._delete(op.on)
        self.trunks = changed(self.trunks, op)

    def _roll(self, op: Op) -> None:
        newest = self.trunk(op.on)[-2]
        want = [self.chain(op.on, block) for block in self.blocks]
        flat = self.maps.pop(op.head)
        for block in self.blocks:
            lacks = self.maps[newest][block] is None and self.rules.roll == "record"
            if want[block] != flat[block] and (lacks or self.rules.roll == "over"):
                self.put(newest, block, flat[block])
        self.maps[op.new] = tuple(want)

    def _delete(self, snapshot: int) -> None:
        trunk = self.trunk(snapshot)
        at = trunk.index(snapshot)
        gone = self.maps.pop(snapshot)
        for block, chain in enumerate(gone if at else ()):
            older = trunk[at - 1]
            lacks = self.maps[older][block] is None and self.rules.down == "lacking"
            if chain is not None and (lacks or self.rules.down == "over"):
                self.put(older, block, chain)

    def install(self, entries: Iterable[Entry], operations: Sequence[Logged], place: Mapping[int, Place]) -> None:
        """What a memtable held: what was written before an operation, that, and what was written after it."""
        rows = sorted(entries, key=lambda entry: entry.layer)
        if self.rules.turn == "before":
            for logged in operations:
                self.operate(logged.op)
        done = set(self.maps)
        self._put(rows, done, place)
        for logged in operations if self.rules.turn == "after" else ():
            self.operate(logged.op)
            if self.rules.made == "after":
                self._put(rows, set(self.maps) - done, place)
            done |= set(self.maps)

    def _put(self, rows: Sequence[Entry], which: set[int], place: Mapping[int, Place]) -> None:
        for row in rows:
            if row.layer in which:
                self.entry(row.layer, row.block, row.mask, None if row.frame is None else place[row.frame])

    # --- reading

    def shown(self, layer: int, block: int, frames: Frames) -> tuple[Content, set[tuple[int, int]]]:
        """What a layer shows of a block, and the places that it needs for that."""
        chain, got, places = self.chain(layer, block), [], set()
        for sector in SECTORS:
            place = next((place for mask, place in chain if mask >> sector & 1), None)
            if place is None:
                got.append(ZEROS)
                continue
            if place[0] not in frames:
                raise Violation(f"layer {layer} block {block} needs {place} of an SST that is gone")
            content = frames[place[0]][place[1]][sector]
            got.append(ZEROS if content is None else content)
            places.add(place)
        return tuple(got), places

    def read(self, layer: int, block: int, memtables: Sequence[Memtable], frames: Frames) -> Content:
        """What a reader gets: memtables, newest first, over the index. A layer that is not in the indexes yet shows
        what it was made of.
        """
        over: Content = (None,) * len(SECTORS)
        made = {logged.op.new: logged.op for part in memtables for logged in part.operations}
        inherited = True
        while True:
            if inherited:
                over = self._over(over, layer, block, memtables)
            if layer in self.maps:
                break
            if layer not in made:
                raise Violation(f"nothing says what layer {layer} shows")
            op = made[layer]
            if op.kind == "roll" and self.rules.roll_memtable == "kept":
                over = self._over(over, op.head, block, memtables)
            layer, inherited = op.on, self.rules.inherit == "origin"
        below, _ = self.shown(layer, block, frames)
        return tuple(old if new is None else new for old, new in zip(below, over, strict=True))

    @staticmethod
    def _over(over: Content, layer: int, block: int, memtables: Sequence[Memtable]) -> Content:
        """With what memtables know of a layer below it."""
        for piece in [piece for part in memtables for piece in part.blocks]:
            if (piece.layer, piece.block) == (layer, block):
                over = tuple(new if old is None else old for old, new in zip(over, piece.content, strict=True))
        return over
