"""The queue of one device on its way to the log: operations, cuts, and who waits for them. What is cut from it is of
the layer that the device was written to when it was queued.

A *cut* is the head of a queue, taken as a whole: after a crash all of it is there or nothing. If whole blocks make up
4 MiB or more of it (less on a slow link: see `pace`), those travel as frames of data SSTs, and only the rest of its
operations goes into the log itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from storage.bucket.pace import Pace
from storage.errors import BrokenInvariant
from storage.format.frame import BLOCK_BYTES, BLOCK_SHIFT
from storage.format.wal import TREE, LayerLogRecords, Meta, Op
from storage.lsm.memtable.link import Links
from storage.lsm.memtable.memtable import OPERATION_OVERHEAD, Memtable, write_charge, zero_charge
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.sst.bulk import Upload, WholeBlock, snapshot


class Committer(Protocol):
    """Who empties the queues: the group commit."""

    writes: WriteState
    pace: Pace

    def wake(self, queue: LayerQueue) -> None:
        """A queue got its first pending operation."""

    def kick(self) -> None:
        """A queue may be due to be cut; see `GroupCommit.kick`."""


@dataclass(slots=True)
class Cut:
    """The head of a queue. `ready` once everything it needs besides its WAL object is confirmed."""

    queue: LayerQueue
    last_sequence: int
    charge: int
    """Bytes to give back when it is acknowledged."""
    size: int
    """Bytes it puts into the log, roughly."""
    records: LayerLogRecords
    metas: list[Meta]
    memtable: Memtable
    since: float
    """When its oldest operation came."""
    ready: bool = True
    blocks: list[WholeBlock] = field(default_factory=list)
    upload: Upload | None = None

    def confirmed(self, upload: Upload) -> None:
        """Its whole blocks lie in SSTs, or are zeros: all that it needs beside its WAL object is there (Q4)."""
        records = self.records
        records.ssts = upload.ssts
        records.located = upload.located
        if upload.zeros:
            records.ops += [(zero.sequence, zero.block * BLOCK_BYTES, BLOCK_BYTES, False) for zero in upload.zeros]
            records.ops.sort(key=lambda op: op[0])
        self.upload = upload
        self.ready = True


class LayerQueue:
    """The queue of one device. Appended to on the fast path.

    Invariants, by number:

        Q1  Operations stand in order of sequence, and each cut is the head of what is pending: the log holds a prefix.
        Q2  A cut never spans two memtables: everything is cut before one is sealed.
        Q3  `acked_sequence` <= `cut_sequence` <= `last_sequence`; each only grows.
        Q4  Cuts are acknowledged in their order, and none before all it needs beside its WAL object is confirmed.
    """

    __slots__ = (
        "_commit",
        "_links",
        "_listeners",
        "acked_sequence",
        "cut_sequence",
        "cuts",
        "full_bytes",
        "last_sequence",
        "layer",
        "made",
        "pending",
        "pending_bytes",
        "sent_sequence",
        "since",
        "wanted",
    )

    def __init__(self, layer: int, commit: Committer, *, sequence: int, links: Links | None = None) -> None:
        """`links` tells which blocks are whole; None: no blocks at all, but changes of the tree."""
        self.layer = layer
        self._commit = commit
        self._links = links
        self.pending: list[Op | Meta] = []
        self.pending_bytes = 0
        self.since = 0.0
        """When the oldest pending operation came."""
        self.cuts: deque[Cut] = deque()
        self.last_sequence = sequence
        self.cut_sequence = sequence
        self.acked_sequence = sequence
        self.sent_sequence = sequence
        """Up to which it is in objects of the log that were sent."""
        self.full_bytes = commit.pace.inline_bytes
        """What one cut puts into the log itself at most; the group commit sets it."""
        self.made = 0
        """Sequence of the change of the tree that made the layer, if the queue was another's before."""
        self.wanted = 0
        """Highest sequence somebody waits for."""
        self._listeners: dict[Callable[[int], None], None] = {}

    def append(self, op: Op | Meta, charge: int) -> None:
        """Queue the newest operation (Q1), which keeps `charge` bytes of memory alive. At the size of a WAL object, in
        bytes, the commit is asked to cut; it never waits.
        """
        commit = self._commit
        if not self.pending:
            commit.wake(self)
        self.pending.append(op)
        writes = commit.writes
        previous = self.last_sequence if self.last_sequence > self.made else self.made
        writes.unkept.append((self, self.layer, previous, op))
        self.last_sequence = op.sequence if isinstance(op, Meta) else op[0]
        self.pending_bytes += charge
        writes.charge(charge)
        if self.pending_bytes >= self.full_bytes:
            commit.kick()

    def waits_from(self, now: float) -> None:
        """Its oldest pending operation came now."""
        self.since = now

    def holds(self, sequence: int) -> None:
        """During a replay: the log has all of this queue up to `sequence`."""
        self.last_sequence = self.cut_sequence = self.sent_sequence = self.acked_sequence = sequence

    def move_on(self, layer: int, links: Links, sequence: int) -> None:
        """What comes from now on is of another layer of the same device, which the change of the tree with this
        sequence made. BrokenInvariant: something is not cut yet, and would be told to be of that.
        """
        if self.pending:
            raise BrokenInvariant("a device goes on with another layer, and operations of the old one are not cut yet")
        self.layer = layer
        self.made = sequence
        self._links = links

    def replayed(self) -> None:
        """What was linked so far is in the log: blocks it completed must not travel as bulk of the first cut."""
        if self._links is not None:
            self._links.cut()

    def want_durable(self, sequence: int) -> bool:
        """Whether everything up to `sequence` is acknowledged, now and for ever (Q3); if not, it will be soon, and who
        listens is told.
        """
        if sequence <= self.acked_sequence:
            return True
        if sequence > self.wanted:
            self.wanted = sequence
        self._commit.kick()
        return False

    def listen(self, listener: Callable[[int], None]) -> None:
        """From now on call `listener` with the highest acknowledged sequence whenever that grows."""
        self._listeners[listener] = None

    def unlisten(self, listener: Callable[[int], None]) -> None:
        """Call `listener` no more, if it was ever to be called."""
        self._listeners.pop(listener, None)

    @property
    def is_durable(self) -> bool:
        """Whether all of it is acknowledged."""
        return self.acked_sequence >= self.last_sequence

    def acknowledge(self, sequence: int) -> None:
        """Everything up to `sequence` is in the log: tell those who listen."""
        self.acked_sequence = sequence
        for listener in list(self._listeners):
            try:
                listener(sequence)
            except Exception as error:
                # A bug of who listens: it is reported, and neither the store nor those behind it pay for it.
                report = {"message": "an answer to a flush failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(report)

    @property
    def unlogged_bytes(self) -> int:
        """What was charged for operations that are not acknowledged yet."""
        return self.pending_bytes + sum(cut.charge for cut in self.cuts)

    @property
    def bulk_bytes(self) -> int:
        """Bytes of blocks that could travel as frames."""
        return 0 if self._links is None else len(self._links.complete) * BLOCK_BYTES

    @property
    def has_bulk(self) -> bool:
        """Whether there are enough of them for that to be worth its second round trip."""
        return self.bulk_bytes >= self._commit.pace.bulk_bytes_min

    @property
    def is_full(self) -> bool:
        """Whether enough waits to be cut without anybody asking for it."""
        whole = self.has_bulk and self.bulk_bytes * 2 >= self.pending_bytes
        return self.pending_bytes >= (self._commit.pace.object_bytes if whole else self._inline_bytes)

    @property
    def _inline_bytes(self) -> int:
        """Of one cut: what may become bulk is not cut before there is enough of it."""
        whole = self.bulk_bytes * 2 >= self.pending_bytes
        return self._commit.pace.inline_bytes if whole else self.full_bytes

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for what is not on its way yet."""
        return self.wanted > self.sent_sequence

    def cut(self, memtable: Memtable) -> Cut:
        """Take the head of the queue (Q1), which must not be empty, and put it behind `cuts`: all of it if it holds
        bulk, else up to the size of a WAL object. `memtable` is the one that holds it.
        """
        blocks = self._whole_blocks()
        if len(blocks) * BLOCK_BYTES >= self._commit.pace.bulk_bytes_min:
            ops, self.pending = self.pending, []
            charge, self.pending_bytes = self.pending_bytes, 0
            rest = without_blocks(ops, {block.block for block in blocks})
        else:
            blocks = []
            ops, charge = self._take_inline()
            rest = ops
        last = ops[-1]
        self.cut_sequence = last.sequence if isinstance(last, Meta) else last[0]
        is_tree = self.layer == TREE
        if self._links is not None:
            self._links.cut()
        cut = Cut(
            queue=self,
            last_sequence=self.cut_sequence,
            charge=charge,
            size=sum(_size(op) for op in rest) if blocks else charge,
            records=LayerLogRecords(self.layer, [] if is_tree else cast(list[Op], rest)),
            metas=cast(list[Meta], rest) if is_tree else [],
            memtable=memtable,
            since=self.since,
            ready=not blocks,
            blocks=blocks,
        )
        self.cuts.append(cut)
        return cut

    def _whole_blocks(self) -> list[WholeBlock]:
        if self._links is None or not self.has_bulk:
            return []
        return [snapshot(block, entry) for block, entry in self._links.whole_blocks()]

    def _take_inline(self) -> tuple[list[Op | Meta], int]:
        most = self._inline_bytes
        if self.pending_bytes <= most:
            ops, self.pending = self.pending, []
            charge, self.pending_bytes = self.pending_bytes, 0
            return ops, charge
        charge = 0
        count = 0
        for op in self.pending:
            charge += _size(op)
            count += 1
            if charge >= most:
                break
        ops, self.pending = self.pending[:count], self.pending[count:]
        self.pending_bytes -= charge
        return ops, charge


def _size(op: Op | Meta) -> int:
    """What an operation was charged for."""
    if isinstance(op, Meta):
        return len(op.record) + OPERATION_OVERHEAD
    return write_charge(op[1], len(op[2])) if len(op) == 3 else zero_charge(op[1], op[2])


def without_blocks(ops: list[Op | Meta], blocks: set[int]) -> list[Op | Meta]:
    """The operations less the parts of writes that fall into `blocks`.

    Zeroing operations stay whole: they come before the locator of a block by sequence, so they cannot win over it.
    """
    rest: list[Op | Meta] = []
    for op in ops:
        if isinstance(op, Meta) or len(op) == 4:
            rest.append(op)
            continue
        sequence, offset, data = op
        first, last = offset >> BLOCK_SHIFT, (offset + len(data) - 1) >> BLOCK_SHIFT
        if first == last:
            if first not in blocks:
                rest.append(op)
            continue
        view = memoryview(data)
        for block in range(first, last + 1):
            if block not in blocks:
                start = max((block << BLOCK_SHIFT) - offset, 0)
                stop = min(((block + 1) << BLOCK_SHIFT) - offset, len(data))
                rest.append((sequence, offset + start, view[start:stop]))
    return rest
