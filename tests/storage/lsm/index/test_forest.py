"""The trunks of layers beside the simplest thing that could be right: of each layer a dictionary, copied as a whole."""

from itertools import takewhile
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from storage.format.blocks import ALLOCATED, HOLE, FrameRef
from storage.format.frame import SECTOR_BYTES
from storage.format.trunks import (
    CloneSnapshot,
    DropLayer,
    DropSnapshot,
    FreezeHead,
    MakeLayer,
    Operation,
    RollBack,
)
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.forest import Forest, done
from storage.lsm.index.image import PlaceReader, load_part, parts_of
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.index.rows import Found
from storage.lsm.read.changed import changed
from tests.support.examples import examples

SECTORS = (0, 1, 63)
BLOCKS = (0, 1, 2, PAGE_BLOCKS - 1, PAGE_BLOCKS, PAGE_BLOCKS + 1)
PAGES = 3
SST = 1

Content = dict[tuple[int, int], int]
"""(block, sector) to where it lies; nothing where it is a hole."""

blocks = st.sampled_from(BLOCKS)
masks = st.sampled_from([1, 2, 3, 1 << 63, 1 << 63 | 1])
kinds = st.sampled_from(["base", "patch", "hole", "allocated", "holes", "zeros"])


def holds(mask: int, sector: int) -> bool:
    return bool(mask >> sector & 1)


def shown(chain: list[Found], sector: int) -> int:
    content = next(found.content for found in chain if holds(found.mask, sector))
    return content.location if isinstance(content, FrameRef) else content


class Forests(RuleBasedStateMachine):
    """Entries, operations, moved frames, consolidations and checkpoints, in any order."""

    @initialize()
    def begin(self) -> None:
        self.forest = Forest()
        self.truth: dict[int, Content] = {}
        self.trunks: list[list[int]] = []
        self.own: dict[int, set[tuple[int, int]]] = {}
        """Of each head, what was written to it since it was made; None of those whose snapshot takes nothing late."""
        self.late: dict[int, set[int]] = {}
        """Snapshots that may have entries still, since nothing was done to their trunk: parts of sectors over a frame
        that could not be read. So only on pages where there is one. The layer that goes on has its own of those.
        """
        self.next_layer = 1
        self.next_offset = 2
        self.frozen: list[Any] = []
        self.make()

    def layer(self) -> int:
        self.next_layer += 1
        return self.next_layer - 1

    def place(self) -> int:
        self.next_offset += 1
        return SST << 32 | self.next_offset

    def operate(self, operation: Operation) -> None:
        going = self.truth.pop(operation.head) if isinstance(operation, RollBack) else None
        for _ in self.forest.steps(operation):
            self.check()
        if isinstance(operation, RollBack) and going is not None:
            self.truth[operation.head] = going

    @rule()
    def make(self) -> None:
        layer = self.layer()
        self.operate(MakeLayer(layer))
        self.trunks.append([layer])
        self.truth[layer] = {}
        self.own[layer] = set()

    @rule(data=st.data(), several=st.lists(st.tuples(kinds, blocks, masks), min_size=1, max_size=8))
    def write(self, data: st.DataObject, several: list[tuple[str, int, int]]) -> None:
        for kind, block, mask in several:
            self.write_one(data, kind, block, mask)

    def write_one(self, data: st.DataObject, kind: str, block: int, mask: int) -> None:
        layer = data.draw(st.sampled_from(sorted({trunk[-1] for trunk in self.trunks} | self.late.keys())))
        trunk = next(trunk for trunk in self.trunks if layer in trunk)
        writing = self.forest.writing(layer)
        if layer in self.late and block // PAGE_BLOCKS not in self.late[layer]:
            return
        place = {"hole": HOLE, "allocated": ALLOCATED, "holes": HOLE, "zeros": ALLOCATED}.get(kind) or 0
        if kind in ("base", "patch"):
            place = self.place()
        touched = {(block, sector) for sector in SECTORS if kind in ("base", "allocated") or holds(mask, sector)}
        if kind in ("holes", "zeros"):
            if writing.flat is None:
                return
            end = data.draw(st.sampled_from([block + 1, block + 2, PAGES * PAGE_BLOCKS]))
            writing.flat.zero_range(block, end, place)
            touched = {(b, s) for b in BLOCKS for s in SECTORS if block <= b < end}
        elif kind in ("base", "allocated"):
            writing.set_base(block, location=place, length=1, tag=place)
        else:
            writing.add_patch(block, mask=mask, location=place, length=1, tag=place)
        self.put(self.truth[layer], touched, place)
        if layer == trunk[-1]:
            self.own[layer] |= touched
        else:
            self.write_to_heir(trunk[-1], block, {sector for _, sector in touched - self.own[trunk[-1]]}, place)

    def write_to_heir(self, head: int, block: int, sectors: set[int], place: int) -> None:
        """The layer that goes on has what is written late to its snapshot as well, where it wrote nothing since: in a
        frame of its own, since each frame is of one layer.
        """
        mask = sum(1 << sector for sector in sectors)
        place = self.place() if place > ALLOCATED else place
        if mask:
            self.forest.writing(head).add_patch(block, mask=mask, location=place, length=1, tag=place)
            self.put(self.truth[head], {(block, sector) for sector in sectors}, place)

    @staticmethod
    def put(content: Content, touched: set[tuple[int, int]], place: int) -> None:
        for at in touched:
            content[at] = place

    def settled(self, trunk: list[int]) -> list[int]:
        """Nothing more is written late to a snapshot of a trunk."""
        for layer in trunk:
            self.late.pop(layer, None)
        return trunk

    @rule(data=st.data())
    def freeze(self, data: st.DataObject) -> None:
        trunk = self.settled(data.draw(st.sampled_from(self.trunks)))
        head, child = trunk[-1], self.layer()
        self.operate(FreezeHead(head, child))
        trunk.append(child)
        self.truth[child] = dict(self.truth[head])
        self.own[child] = set()
        self.late[head] = set(self.forest.heads()[child].pages)

    def snapshot(self, data: st.DataObject) -> tuple[list[int], int]:
        trunk = self.settled(data.draw(st.sampled_from([trunk for trunk in self.trunks if len(trunk) > 1])))
        return trunk, data.draw(st.sampled_from(trunk[:-1]))

    def has_snapshots(self) -> bool:
        return any(len(trunk) > 1 for trunk in self.trunks)

    @precondition(has_snapshots)
    @rule(data=st.data())
    def clone(self, data: st.DataObject) -> None:
        _, snapshot = self.snapshot(data)
        layer = self.layer()
        self.operate(CloneSnapshot(snapshot, layer))
        self.trunks.append([layer])
        self.truth[layer] = dict(self.truth[snapshot])
        self.own[layer] = set()

    @precondition(has_snapshots)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        trunk, snapshot = self.snapshot(data)
        child = self.layer()
        self.operate(RollBack(snapshot, trunk[-1], child))
        del self.truth[trunk[-1]]
        trunk[-1] = child
        self.truth[child] = dict(self.truth[snapshot])
        self.own[child] = set()

    @precondition(has_snapshots)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        trunk, snapshot = self.snapshot(data)
        self.operate(DropSnapshot(snapshot))
        trunk.remove(snapshot)
        del self.truth[snapshot]

    @precondition(lambda self: len([trunk for trunk in self.trunks if len(trunk) == 1]) > 1)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        trunk = data.draw(st.sampled_from([trunk for trunk in self.trunks if len(trunk) == 1]))
        self.operate(DropLayer(trunk[0]))
        self.trunks.remove(trunk)
        del self.truth[trunk[0]]

    @rule(data=st.data())
    def repack(self, data: st.DataObject) -> None:
        used = sorted({at for content in self.truth.values() for at in content.values() if at > ALLOCATED})
        if not used:
            return
        old, new = data.draw(st.sampled_from(used)), self.place()
        for part in self.forest.maps().values():
            for block in BLOCKS:
                part.move(block, old, new, 1)
        for content in self.truth.values():
            content.update({at: new for at, place in content.items() if place == old})

    def patched(self) -> list[tuple[int, int]]:
        return [
            (head, block) for head, flat in self.forest.heads().items() for block in BLOCKS if flat.is_patched(block)
        ]

    @precondition(lambda self: bool(self.patched()))
    @rule(data=st.data())
    def consolidate(self, data: st.DataObject) -> None:
        head, block = data.draw(st.sampled_from(self.patched()))
        flat, place = self.forest.heads()[head], self.place()
        chain = flat.take(block)
        assert flat.rebase(block, chain, location=place, length=1, tag=place)
        # Zeros that were newer than all frames stay above it.
        above = list(takewhile(lambda found: isinstance(found.content, int), chain[:-1]))
        left = {sector for sector in SECTORS if not any(holds(found.mask, sector) for found in above)}
        self.put(self.truth[head], {(block, sector) for sector in left}, place)
        self.own[head] |= {(block, sector) for sector in SECTORS}

    @rule(data=st.data(), block=blocks)
    def compare(self, data: st.DataObject, block: int) -> None:
        """What differs between two layers of a trunk is what is said to."""
        trunk = data.draw(st.sampled_from(self.trunks))
        low, high = sorted(data.draw(st.sampled_from(range(len(trunk)))) for _ in range(2))
        one, other = self.truth[trunk[low]], self.truth[trunk[high]]
        size = 64 * SECTOR_BYTES
        said: list[bool] = []
        for length, differs in changed(self.forest.trunk(trunk[low]), low, high, [], block * size, size):
            said += [differs] * (length // SECTOR_BYTES)
        assert len(said) == 64
        for sector in SECTORS:
            at = (block, sector)
            assert said[sector] == (one.get(at, HOLE) != other.get(at, HOLE))

    @rule()
    def checkpoint(self) -> None:
        """Go on with what a checkpoint of it says."""
        refs = [trunk.ref() for trunk in self.forest.trunks()]
        again = Forest.empty(refs)
        for layer, part in self.forest.maps().items():
            frozen = part.freeze()
            for kind, rows in parts_of(frozen, [SST]):
                load_part(again.maps()[layer], kind, rows, PlaceReader([SST], {}))
            frozen.thaw()
        again.hold()
        self.forest = again

    @rule()
    def freeze_pages(self) -> None:
        """What is frozen stays as it is."""
        frozen = {layer: part.freeze() for layer, part in self.forest.maps().items()}
        self.frozen.append((frozen, {layer: self.rows(index) for layer, index in frozen.items()}))

    @staticmethod
    def rows(frozen: Any) -> list[Any]:
        return [
            (kind, {name: column.tolist() for name, column in rows.items()}) for kind, rows in parts_of(frozen, [SST])
        ]

    @precondition(lambda self: self.frozen)
    @rule()
    def thaw(self) -> None:
        frozen, said = self.frozen.pop()
        assert {layer: self.rows(index) for layer, index in frozen.items()} == said
        for part in frozen.values():
            part.thaw()

    @invariant()
    def check(self) -> None:
        shape = sorted((trunk.layers for trunk in self.forest.trunks()), key=lambda layers: layers[-1])
        assert shape == sorted(self.trunks, key=lambda layers: layers[-1])
        for layer, content in self.truth.items():
            index = self.forest.index(layer)
            for block in BLOCKS:
                chain = list(index.find(block))
                for sector in SECTORS:
                    want = content.get((block, sector), HOLE)
                    assert shown(chain, sector) == want, (layer, block, sector)
                    assert index.locate(block, sector) == want
                assert index.is_patched(block) == (len(chain) > 1)
            for page in range(PAGES):
                uniform = index.uniform(page)
                inside = [content.get((b, s), HOLE) for b in BLOCKS for s in SECTORS if b // PAGE_BLOCKS == page]
                assert uniform is None or set(inside) <= {uniform}


TestForests = Forests.TestCase
TestForests.settings = settings(max_examples=examples(100), stateful_step_count=40, deadline=None)


def test_a_snapshot_costs_what_was_written_since() -> None:
    forest = Forest()
    done(forest.steps(MakeLayer(1)))
    for block in range(PAGE_BLOCKS):
        forest.heads()[1].set_base(block, location=SST << 32 | block + 2, length=1, tag=1)
    done(forest.steps(FreezeHead(1, 2)))
    forest.heads()[2].set_base(7, location=SST << 32 | 9999, length=1, tag=1)
    assert len(forest.maps()[1].pages[0].at) == 1  # type: ignore[union-attr]


def test_a_clone_shares_pages_until_it_is_written() -> None:
    forest = Forest()
    done(forest.steps(MakeLayer(1)))
    forest.heads()[1].set_base(7, location=SST << 32 | 5, length=1, tag=1)
    done(forest.steps(FreezeHead(1, 2)))
    done(forest.steps(CloneSnapshot(1, 3)))
    one, other = (part for part in (forest.heads()[2], forest.heads()[3]) if isinstance(part, BlockMap))
    assert one.pages[0] is other.pages[0]
    for part in (one, other):
        part.move(7, SST << 32 | 5, SST << 32 | 6, 1)
    assert one.pages[0] is other.pages[0]
    other.set_base(7, location=SST << 32 | 8, length=1, tag=1)
    assert one.pages[0] is not other.pages[0]
    assert one.locate(7, 0) == SST << 32 | 6


def test_what_was_dropped_ahead_of_its_turn_is_not_made_at_its_turn() -> None:
    """A device that is made, and deleted before the memtable with its making is installed: it had a map again until the
    next one, and a check said that memory is not what the store says.
    """
    forest = Forest()
    forest.make(1)
    forest.drop(1)
    done(forest.steps(MakeLayer(1)))
    assert 1 not in forest
    done(forest.steps(DropLayer(1)))
    done(forest.steps(MakeLayer(2)))
    assert list(forest.heads()) == [2]
