"""All layers of a store with the tree that names them: how they come and go, how the log is replayed onto them, and how
their memtable is sealed.

A change of the tree takes effect on the layers in the same step, and is logged in a queue of its own.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from storage.cache.frame_cache import FrameCache
from storage.format.blocks import FrameRef
from storage.format.journal_batch import JournalEntry
from storage.format.wal import Located, Meta, Replayed, Uploaded, sequence_of
from storage.lsm.index.block_map import BlockMap
from storage.lsm.layer import Layer
from storage.lsm.memtable.link import Links
from storage.lsm.memtable.memtable import OPERATION_OVERHEAD, Memtable
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.metadata import TreeEffects, TreeState
from storage.lsm.sst.fetch import FrameSource
from storage.lsm.wal.group_commit import GroupCommit
from storage.lsm.wal.queue import TREE, LayerQueue


class Layers:
    """Owned by the event loop."""

    def __init__(
        self,
        *,
        tree: TreeState,
        tree_stored: bool,
        flushed: int,
        maps: Mapping[int, BlockMap],
        writes: WriteState,
        commit: GroupCommit,
        source: FrameSource,
        cache: FrameCache,
        kept_bytes_max: int,
    ) -> None:
        """`flushed`: the sequence up to which the manifest holds everything."""
        self.tree = tree
        self.tree_queue = LayerQueue(TREE, commit, sequence=flushed)
        self.tree_changed = not tree_stored
        """Whether the tree has to be written with the next memtable."""
        self.by_number: dict[int, Layer] = {}
        self._written_to_dropped = 0
        self._writes = writes
        self._commit = commit
        self._source = source
        self._cache = cache
        self._kept_bytes_max = kept_bytes_max
        self._zeroed: dict[int, deque[tuple[int, int, int]]] = {}
        """During a replay: (sequence, offset, length) of what tree changes zeroed, by layer."""
        for number in tree.layers():
            self._add(number, flushed, maps.get(number))

    def _add(self, number: int, sequence: int, index: BlockMap | None = None) -> None:
        """`sequence`: of the newest operation of this layer, or of the change of the tree that made it."""
        writes = self._writes
        links = Links(number, writes.memtable, sequence=writes.sequence)
        self.by_number[number] = Layer(
            number,
            writes=writes,
            links=links,
            queue=LayerQueue(number, self._commit, sequence=sequence, links=links),
            index=index or BlockMap(),
            source=self._source,
            cache=self._cache,
            kept_bytes_max=self._kept_bytes_max,
        )

    def replay_tree(self, ssts: Iterable[Uploaded], metas: Iterable[Meta], *, done: int) -> None:
        """Before anything else of the log: its SSTs, and the changes of the tree, in order of sequence.

        The log keeps that order for each queue only, and a tree change may stand behind operations that are newer. So
        layers come and go first: operations of those that were dropped find no layer, and take no memory. What a change
        zeroes waits until the operations of its layer have got there. What the manifest's SSTs hold already (up to
        sequence `done`) is passed over, here and in `replay`: the first object at the replay point may hold the last
        operations of the flushed memtable beside the first ones of the next, and a tree change fits only once.
        """
        self._writes.memtable.ssts += [item.sst for item in ssts if item.sequence > done]
        for meta in metas:
            if meta.sequence <= done:
                continue
            effects = self.tree.apply(meta.record)
            for layer, offset, length in effects.zeroed:
                self._zeroed.setdefault(layer, deque()).append((meta.sequence, offset, length))
            effects.zeroed.clear()
            self._take_effect(effects, meta.sequence)
            self.tree_queue.holds(meta.sequence)
            self.tree_changed = True

    def replay(self, records: Iterable[Replayed], *, done: int, location: Callable[[str, int], int]) -> None:
        """Put the operations of one object of the log on top of the index. Objects come in order of number; within a
        layer that is the order of sequence.
        """

        def reference(located: Located) -> FrameRef:
            entry = located.entry
            return FrameRef(location(located.sst, entry.offset), entry.length, entry.tag, entry.block, full=True)

        for number, record in records:
            sequence = sequence_of(record)
            layer = self.by_number.get(number)
            if sequence <= done:
                continue
            if layer is not None:
                self._zero_up_to(number, sequence)
                layer.replay(record, reference)  # type: ignore[arg-type]  # SST and META are taken before
                layer.queue.holds(sequence)

    def _zero_up_to(self, number: int, sequence: int) -> None:
        """What tree changes older than `sequence` zeroed in a layer."""
        waiting = self._zeroed.get(number)
        while waiting and waiting[0][0] < sequence:
            at, offset, length = waiting.popleft()
            self.by_number[number].zero_for_tree(offset, length, at)

    def replayed(self) -> None:
        """The whole log was replayed."""
        for number, layer in self.by_number.items():
            self._zero_up_to(number, self._writes.sequence + 1)
            layer.queue.replayed()
        self._zeroed.clear()
        self._writes.replayed()

    def queue(self, number: int) -> LayerQueue | None:
        """The queue of a layer, or of the tree; None: there is no such layer."""
        if number == TREE:
            return self.tree_queue
        layer = self.by_number.get(number)
        return None if layer is None else layer.queue

    def restore(self, entry: JournalEntry) -> None:
        """Do again what a journal holds beyond the log, under its own number, and queue it for the log.

        Its number tells the next start that the log has it, however far this one comes.
        """
        self._writes.sequence = max(self._writes.sequence, entry.sequence)
        if isinstance(entry.op, Meta):
            self._change_tree(entry.op)
        elif entry.layer in self.by_number:  # else it was dropped since
            self.by_number[entry.layer].restore(entry.op)

    def change_tree(self, record: bytes) -> int:
        """Apply one record to the tree and log it. Gives its sequence in the `tree_log`."""
        self._writes.sequence += 1
        self._change_tree(Meta(self._writes.sequence, record))
        return self._writes.sequence

    def _change_tree(self, meta: Meta) -> None:
        self._take_effect(self.tree.apply(meta.record), meta.sequence)
        self.tree_changed = True
        self.tree_queue.append(meta, len(meta.record) + OPERATION_OVERHEAD)

    def _take_effect(self, effects: TreeEffects, sequence: int) -> None:
        for number in self.tree.layers():
            if number not in self.by_number:
                self._add(number, sequence)
        for number, offset, length in effects.zeroed:
            self.by_number[number].zero_for_tree(offset, length, sequence)
        for number in effects.dropped:
            layer = self.by_number.pop(number, None)
            if layer is not None:
                self._written_to_dropped += layer.written_bytes
                table = self._writes.memtable.layers.pop(number, None)
                if table is not None:
                    self._writes.release(sum(entry.charged for entry in table.blocks.values()))

    @property
    def written_bytes(self) -> int:
        """By clients since the store was opened, to all layers that ever were."""
        return self._written_to_dropped + sum(layer.written_bytes for layer in self.by_number.values())

    def queues(self) -> list[LayerQueue]:
        """The queues of all layers and of the tree."""
        return [layer.queue for layer in self.by_number.values()] + [self.tree_queue]

    def seal(self) -> tuple[Memtable, list[tuple[LayerQueue, int]]]:
        """Put a new memtable in place of the active one. Gives the sealed one, and for each queue the sequence up to
        which that one holds it.

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
        return sealed, [(queue, queue.last_sequence) for queue in queues]

    def drop_sealed(self) -> None:
        """The sealed memtable is in the index now."""
        for layer in self.by_number.values():
            layer.drop_sealed()
        self._writes.flushed()
