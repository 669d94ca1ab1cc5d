"""All layers of a store with the tree that names them: how they come and go, and how their memtable is sealed.

A change of the tree takes effect on the layers in the same step, and is logged in a queue of its own. What it does to
trunks, their indexes show at its turn: when the memtable that it came in is installed (`installing`). Until then a
layer that is not in them yet shows the tables and the index of the one that it was made of.
"""

from collections.abc import Collection, Iterable, Iterator

from storage.cache.frame_cache import FrameCache
from storage.errors import BrokenInvariant, Unreadable
from storage.format.journal_batch import JournalEntry
from storage.format.trunks import (
    ON_TRUNKS,
    CloneSnapshot,
    DropLayer,
    DropSnapshot,
    FreezeHead,
    LoggedOperation,
    MakeLayer,
    Operation,
    RollBack,
    placed_by,
)
from storage.format.wal import TREE, Meta
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.forest import Forest, Writing
from storage.lsm.index.trunk import LayerIndex
from storage.lsm.layer import Layer
from storage.lsm.memtable.link import Links
from storage.lsm.memtable.memtable import OPERATION_OVERHEAD, Memtable
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.options import EngineOptions
from storage.lsm.sst.fetch import FrameSource
from storage.lsm.tree_state import TreeEffects, TreeState
from storage.lsm.wal.group_commit import GroupCommit
from storage.lsm.wal.queue import LayerQueue


class Layers:
    """The layers of a store that live, by number, and what changes of the tree do to them. Owned by the event loop."""

    def __init__(
        self,
        *,
        tree: TreeState,
        tree_stored: bool,
        flushed: int,
        forest: Forest,
        writes: WriteState,
        commit: GroupCommit,
        source: FrameSource,
        cache: FrameCache,
        options: EngineOptions,
    ) -> None:
        """`flushed`: the sequence up to which the manifest holds everything."""
        self.tree = tree
        self.tree_queue = LayerQueue(TREE, commit, sequence=flushed)
        self.tree_changed = not tree_stored
        """Whether the tree has to be written with the next memtable."""
        self.forest = forest
        """The indexes, up to the last memtable that was installed."""
        self.by_number: dict[int, Layer] = {}
        """The layers that live, the older ones of a trunk before the newer."""
        self._written_to_dropped = 0
        self._writes = writes
        self._commit = commit
        self._source = source
        self._cache = cache
        self._options = options
        self._unknown: set[int] = set()
        """Layers that the stored tree has and the indexes have not: the log must say that they were dropped."""
        for trunk in tree.trunks():
            for number in trunk:
                self._unknown |= set() if number in forest else {number}
                self._add(number, flushed, forest.index(number) if number in forest else BlockMap())

    def _add(self, number: int, sequence: int, index: LayerIndex) -> Layer:
        """`sequence`: of the newest operation of this layer, or of the change of the tree that made it."""
        writes = self._writes
        links = Links(number, writes.memtable, sequence=writes.sequence)
        layer = self.by_number[number] = Layer(
            number,
            writes=writes,
            links=links,
            queue=LayerQueue(number, self._commit, sequence=sequence, links=links),
            index=index,
            source=self._source,
            cache=self._cache,
            options=self._options,
        )
        return layer

    # --- replay

    def replay_change(self, meta: Meta) -> list[tuple[int, int, int]]:
        """A change of the tree that the log has. Gives what it zeroes, (layer, offset, length), which is not done."""
        effects = self.tree.apply(meta.record)
        zeroed = effects.zeroed.copy()
        effects.zeroed.clear()
        self._take_effect(effects, meta.sequence)
        self.tree_queue.holds(meta.sequence)
        self.tree_changed = True
        return zeroed

    def unknown(self) -> list[int]:
        """Layers of the tree that no index knows."""
        return sorted(self._unknown & self.by_number.keys())

    def show_memtables(self) -> None:
        """A replay has linked all it brings back: of a snapshot too, which shows in the layers that were made of it."""
        for layer in self.by_number.values():
            layer.show_memtables()

    def queue(self, number: int) -> LayerQueue | None:
        """The queue of the layer with this number, or that of changes of the tree for `TREE`. None: no such layer
        lives.
        """
        if number == TREE:
            return self.tree_queue
        layer = self.by_number.get(number)
        return None if layer is None else layer.queue

    def device_queues(self) -> dict[int, LayerQueue]:
        """Of each layer the queue of the device that it belongs to, as they are now. It looks at all layers."""
        trunks = self.tree.trunks()
        return {number: queue for trunk in trunks for queue in [self.by_number[trunk[-1]].queue] for number in trunk}

    def restore(self, entry: JournalEntry) -> None:
        """Do again what a journal holds beyond the log, under its own number, and queue it for the log.

        Its number tells the next start that the log has it, however far this one comes.
        """
        self._writes.has_taken(entry.sequence)
        if isinstance(entry.op, Meta):
            self._change_tree(entry.op)
        elif entry.layer in self.by_number:  # else it was dropped since
            self.by_number[entry.layer].restore(entry.op)

    # --- changes of the tree

    def change_tree(self, record: bytes) -> int:
        """Apply one record to the tree and log it. Gives its sequence in the `tree_queue`."""
        sequence = self._writes.take_sequence()
        self._change_tree(Meta(sequence, record))
        return sequence

    def _change_tree(self, meta: Meta) -> None:
        effects = self.tree.apply(meta.record)
        on_trunks = any(isinstance(operation, ON_TRUNKS) for operation in effects.operations)
        if on_trunks:
            # Before layers get other numbers: what is queued is of the old ones.
            self._commit.cut_all()
        self._take_effect(effects, meta.sequence)
        self.tree_changed = True
        self.tree_queue.append(meta, len(meta.record) + OPERATION_OVERHEAD)
        if on_trunks:
            # It is in the log before anything that is written to the new layers.
            self._commit.cut_all()

    def change_trunks(self, record: bytes, heads: Collection[int]) -> list[tuple[LayerQueue, int]]:
        """The same of a record that does something to the trunks of these heads. Gives what has to be in the log for it
        to be durable: queues, and up to which sequence. Unreadable: it has to wait, since something that was written
        before a snapshot is not in an SST yet.
        """
        if self._writes.sealed_has_to_be_installed or self._writes.memtable.changes_trunks:
            raise BrokenInvariant("something is done to trunks, and what was done before is not in the indexes yet")
        if self.keeping(heads):
            raise Unreadable(
                "parts of sectors that were written before the newest snapshot lie over what cannot be read: "
                "wait until the store gives that again"
            )
        written = [(head, self.by_number[head].queue, self.by_number[head].last_sequence) for head in heads]
        change = self.change_tree(record)
        # What a head held that is a snapshot now: a crash could take some of that away while it is not in the log.
        held = [(queue, sequence) for head, queue, sequence in written if head in self.by_number]
        return [(self.tree_queue, change), *held]

    def keeping(self, heads: Collection[int]) -> bool:
        """Whether a snapshot of one of these heads has something in memory still: parts of sectors that could not be
        put together when they were flushed last.
        """
        looked_at = frozenset(heads)  # a record may have those of a thousand devices: none is looked for in a list
        snapshots = (number for trunk in self.tree.trunks() if trunk[-1] in looked_at for number in trunk[:-1])
        return any(any(self.by_number[number].own_memtables) for number in snapshots)

    def _take_effect(self, effects: TreeEffects, sequence: int) -> None:
        for operation in effects.operations:
            self._writes.memtable.operations.append(LoggedOperation(sequence, operation))
            self._operate(operation, sequence)
        for number, offset, length in effects.zeroed:
            self.by_number[number].zero_for_tree(offset, length, sequence)

    def _operate(self, operation: Operation, sequence: int) -> None:
        """What an operation means for the layers that live."""
        layers = self.by_number
        match operation:
            case MakeLayer(number):
                self.forest.make(number)
                self._add(number, sequence, self.forest.index(number))
            case DropLayer(number):
                if number in layers:
                    self._written_to_dropped += layers.pop(number).written_bytes
                    self._drop_written(number)
                    self.forest.drop(number)
            case FreezeHead(head, child):
                device = layers.pop(head)
                frozen = self._add(head, device.queue.last_sequence, device.index)
                frozen.freeze(device)
                device.move_on(child, sequence)
                device.inherit(frozen)
                layers[child] = device
            case CloneSnapshot(snapshot, number):
                clone = self._add(number, sequence, layers[snapshot].index)
                clone.inherit(layers[snapshot])
            case RollBack(snapshot, head, child):
                device = layers.pop(head)
                self._drop_written(head)
                device.move_on(child, sequence)
                device.inherit(layers[snapshot])
                layers[child] = device
            case DropSnapshot(snapshot):
                layers.pop(snapshot)

    def _drop_written(self, number: int) -> None:
        """What is in the active memtable of a layer that goes."""
        table = self._writes.memtable.layers.pop(number, None)
        if table is not None:
            self._writes.release(sum(entry.charged for entry in table.blocks.values()))

    # --- the memtable

    @property
    def written_bytes(self) -> int:
        """By clients since the store was opened, to all layers that ever were."""
        return self._written_to_dropped + sum(layer.written_bytes for layer in self.by_number.values())

    def heads(self) -> dict[int, Layer]:
        """The layers that are written to."""
        return {trunk[-1]: self.by_number[trunk[-1]] for trunk in self.tree.trunks()}

    def queues(self) -> list[LayerQueue]:
        """The queues of all layers and of the tree."""
        return [layer.queue for layer in self.by_number.values()] + [self.tree_queue]

    def seal(self) -> tuple[Memtable, list[tuple[LayerQueue, int]]]:
        """Put a new memtable in place of the active one, in one step. Gives the sealed one, and of each queue of which
        the log lacks anything the sequence up to which that one holds its operations: once the log has those, it may be
        flushed. (What the log has it has for ever.) BrokenInvariant: one is sealed already.

        A cut never spans two memtables (Q2), so everything queued is cut first. Queues of dropped layers count as
        long as anything of them is on its way: the log is truncated behind it.
        """
        self._commit.cut_all()
        sealed = self._writes.seal()
        if self.tree_changed:
            sealed.tree = self.tree.encode()
            self.tree_changed = False
        for layer in self.by_number.values():
            layer.rotate()
        queues = dict.fromkeys([*self.queues(), *self._commit.under_way()])
        return sealed, [(queue, queue.last_sequence) for queue in queues if not queue.is_durable]

    def installing(self, sealed: Memtable) -> Iterator[dict[int, BlockMap | Writing]]:
        """The indexes that entries of a sealed memtable go into, turn by turn: each layer follows the older ones of its
        trunk, and what is done to a trunk what was written before. An empty dictionary: others may have their turn.
        """
        forest, tables = self.forest, sealed.layers
        heads = forest.heads()
        for number in sorted(tables):
            if number in forest and number not in heads and tables[number]:
                yield {number: forest.writing(number)}
                # What was put together of it, and of newer snapshots that show it too, lacks that.
                self._show_indexes(forest.trunk(number).layers)
        yield dict(heads)
        for logged in sealed.operations:
            for _ in forest.steps(logged.operation):
                yield {}
            placed = placed_by(logged.operation)
            self._show_indexes(placed)
            made = [number for number in placed[-1:] if number in forest and number not in heads]
            yield {number: forest.trunk(number).flat for number in made}

    def _show_indexes(self, numbers: Iterable[int]) -> None:
        """Readers of layers whose place in a trunk is another now get what that says. No others are looked at: a record
        may have an operation for each device of the store.
        """
        for number in numbers:
            if number in self.by_number and number in self.forest:
                self.by_number[number].index = self.forest.index(number)

    def drop_sealed(self) -> None:
        """The sealed memtable is in the index now."""
        for layer in self.by_number.values():
            layer.drop_sealed()
        self._writes.flushed()
