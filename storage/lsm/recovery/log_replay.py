"""Replay of the log: what it holds beyond the manifest is put on top of the index, when a store is opened.

Nothing is written, so a crash changes nothing. In memory are the objects as they lie in the store (`log_bytes_max` at
most), one of them opened, and the memtable, no larger than when the log was written: it was charged for all that a
replay brings back.

The log keeps the order of each queue only, and a tree change may stand behind operations that are newer. So layers come
and go first: operations of those that were dropped find no layer, and take no memory. What a change zeroes waits until
the operations of its layer have got there. What the manifest's SSTs hold already is passed over: the first object at
the replay point may hold the last operations of the flushed memtable beside the first ones of the next, and a tree
change fits only once.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from storage.env import Env
from storage.errors import Corrupt
from storage.format.blocks import FrameRef
from storage.format.envelope import NO_LINK
from storage.format.names import MANIFESTS
from storage.format.wal import Located, Meta, Replayed, Uploaded, sequence_of
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.layers import Layers
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.recovery.take_over import Opened
from storage.lsm.wal.position import LoggedObject, LogPosition
from storage.lsm.wal.reader import RESUME


async def replay_log(
    opened: Opened, layers: Layers, writes: WriteState, *, store_id: bytes, sst_numbers: SstNumbers, env: Env
) -> None:
    """Put the log that was found on top of the index, one object at a time. Corrupt: it does not fit."""
    replay = LogReplay(layers, writes, done=opened.manifests.manifest.sequence, location=sst_numbers.location)
    replay.begin(opened.replay.ssts, opened.replay.metas)
    for item in opened.replay.objects:
        records = await env.run("codec", partial(item.records, opened.ciphers.wal, store_id=store_id))
        item.raw = b""
        replay.replay(records)
    replay.end()


class LogReplay:
    """One replay: `begin`, then `replay` with each object in order of number, then `end`."""

    def __init__(self, layers: Layers, writes: WriteState, *, done: int, location: Callable[[str, int], int]) -> None:
        """`done`: the sequence up to which the manifest's SSTs hold everything. `location` of a frame in an SST."""
        self._layers = layers
        self._writes = writes
        self._done = done
        self._location = location
        self._zeroed: dict[int, deque[tuple[int, int, int]]] = {}
        """(sequence, offset, length) of what tree changes zeroed, by layer."""

    def begin(self, ssts: Iterable[Uploaded], metas: Iterable[Meta]) -> None:
        """Before anything else of the log: its SSTs, and the changes of the tree, in order of sequence."""
        self._writes.memtable.ssts += [item.sst for item in ssts if item.sequence > self._done]
        for meta in metas:
            if meta.sequence <= self._done:
                continue
            for layer, offset, length in self._layers.replay_change(meta):
                self._zeroed.setdefault(layer, deque()).append((meta.sequence, offset, length))
        if lost := self._layers.unknown():
            raise Corrupt(MANIFESTS, f"the tree of names has layer {lost[0]}, of which no checkpoint and no SST knows")

    def replay(self, records: Iterable[Replayed]) -> None:
        """The operations of one object of the log. Objects come in order of number; within a layer that is the order of
        sequence.
        """
        for number, record in records:
            sequence = sequence_of(record)
            layer = self._layers.by_number.get(number)
            if sequence <= self._done:
                continue
            if layer is not None:
                self._zero_up_to(number, sequence)
                layer.replay(record, self._reference)  # type: ignore[arg-type]  # SST and META are taken before
                layer.queue.holds(sequence)

    def end(self) -> None:
        """The whole log was replayed."""
        for number, layer in self._layers.by_number.items():
            self._zero_up_to(number, self._writes.sequence + 1)
            layer.queue.replayed()
        self._layers.show_memtables()
        self._writes.replayed()

    def _reference(self, located: Located) -> FrameRef:
        entry = located.entry
        return FrameRef(self._location(located.sst, entry.offset), entry.length, entry.tag, entry.block, full=True)

    def _zero_up_to(self, number: int, sequence: int) -> None:
        """What tree changes older than `sequence` zeroed in a layer."""
        waiting = self._zeroed.get(number)
        while waiting and waiting[0][0] < sequence:
            at, offset, length = waiting.popleft()
            self._layers.by_number[number].zero_for_tree(offset, length, at)


def log_position(opened: Opened, *, read_only: bool) -> LogPosition:
    """Where the log goes on after what was found there."""
    manifest, replay = opened.manifests.manifest, opened.replay
    fence = replay.end
    position = LogPosition(
        next_number=fence + RESUME,
        tail_tag=NO_LINK,
        acknowledged=max(fence if not read_only else 0, manifest.acknowledged),
        fences=tuple(sorted({*manifest.fences, *replay.fences})),
    )
    for item in replay.objects:
        position.add(LoggedObject(item.number, item.size, item.tag))
    return position
