"""Replay of a journal: a new writer does again what that of the last one on this host holds beyond the log.

The order of steps is the promise. The journal was named in the lock before the take-over (see `Opener`), and the log is
fenced and replayed. `read` decides what is beyond it, or sets the journal aside; `restore` links and queues that, under
the numbers it had, turn by turn (see `in_turns`); then all of it goes into the log, and only then the first client gets
in. The journal stays as it was meanwhile and loses its segments as the log gets them: a crash anywhere, and again in
the next start, leaves what the log has, and the rest in the journal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from storage.crypto.data_key import DataKey
from storage.crypto.memory_cipher import MemoryCipher
from storage.env import Env
from storage.errors import AccessDenied, Corrupt
from storage.format.journal_batch import JournalEntry
from storage.format.wal import Meta
from storage.journal import unlogged as journals
from storage.journal.journal import Journal, JournalPlace, Queue, Segment
from storage.lsm.layers import Layers
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.recovery.carried import JOURNAL_ID_BYTES, Carried
from storage.lsm.recovery.locks import WriterLock


@dataclass(frozen=True, slots=True)
class FoundJournal:
    """The journal to go on with (None: there can be none now), its segments, and what of them the log lacks."""

    place: JournalPlace | None
    segments: Sequence[journals.ReadSegment] = ()
    beyond: list[JournalEntry] = field(default_factory=list)
    problem: str | None = None
    """A sentence, where a journal was not taken, or there can be none."""
    failure: str | None = None
    """Why it could not begin, and is to begin later."""


@dataclass(frozen=True, slots=True)
class OpeningReport:
    """What the opening found in the journal: how many operations were done again, and what was wrong with it."""

    restored: int
    problem: str | None


class UnsoundJournal(Exception):
    """The journal that holds what the last writer answered cannot be read, or is not what was written: why."""


async def read(
    carried: Carried, lock: WriterLock, layers: Layers, manifests: Manifests, key: DataKey, env: Env
) -> FoundJournal:
    """Read the journal that was carried over, once the log is replayed. One that does not check out is set aside, and a
    new one begun; so is one of somebody who was not the last writer.

    That what only it held is lost stands in a manifest before the lock names another journal: after a crash in between
    the next start finds the old one, and says so once more.
    """
    reason, epoch = None, manifests.manifest.epoch
    if carried.found:
        try:
            return await env.run("store", _read, carried, lock, layers, key, epoch)
        except UnsoundJournal as error:
            reason = str(error)
            lineage = manifests.manifest.lineage[-1:]
            await manifests.commit(msgspec.structs.replace(manifests.manifest, takeover=False, lineage=lineage))
    return await env.run("store", _begin, carried, lock, key, epoch, env, reason)


def _read(carried: Carried, lock: WriterLock, layers: Layers, key: DataKey, epoch: int) -> FoundJournal:
    files, cipher = carried.files, _cipher(key, carried.id)
    try:
        # All of those of older keys are in the log, and gone, before the first client gets in.
        segments = journals.read(files, cipher, *(_cipher(older, carried.id) for older in key.older))
        entries = [entry for segment in segments for entry in segment.entries]
        beyond = journals.beyond_log(entries, lambda number: _logged(layers, number))
    except (Corrupt, OSError, AccessDenied) as error:
        raise UnsoundJournal(str(error)) from error
    return FoundJournal(JournalPlace(files, carried.id, cipher, epoch, lock.name_journal), segments, beyond)


def _begin(carried: Carried, lock: WriterLock, key: DataKey, epoch: int, env: Env, unsound: str | None) -> FoundJournal:
    """An empty journal. `unsound`: why the one that was carried over is none; from here on its name is not known to any
    start, nor that of a journal which could not be begun.
    """
    files = carried.files
    journal_id = carried.id if unsound is None else env.random_bytes(JOURNAL_ID_BYTES)
    if unsound is not None:
        # In this order: as long as the lock names it, nobody else can have it.
        lock.name_journal(journal_id)
        files.leave()
    place = JournalPlace(files, journal_id, _cipher(key, journal_id), epoch, lock.name_journal)
    try:
        # A crash from here on: the journal is aside, and nobody was told of anything that the new one could hold. One
        # of a higher epoch stays: a writer that took the store while this one stood still may have been killed since.
        where = files.set_aside(epoch=None if carried.another_life else epoch)
        files.begin(journal_id, epoch)
    except (OSError, AccessDenied) as error:
        files.leave()
        lost = f"there is no journal yet, and a killed server loses what was not flushed: {error}"
        return FoundJournal(place, problem=lost, failure=str(error))
    problem = None
    if where is not None:
        reason = unsound or "another server had the store since, or this machine was started anew"
        problem = f"a journal was set aside as {where}, and what only it holds is lost: {reason}"
    elif carried.missing:
        problem = (
            "the journal of the last server is gone, with the boot of the machine or by hand, or a living process "
            "has it: what that server had answered and not flushed may be lost"
        )
    return FoundJournal(place, problem=problem)


def _logged(layers: Layers, number: int) -> int | None:
    queue = layers.queue(number)
    return None if queue is None else max(queue.last_sequence, queue.made)


def _cipher(key: DataKey, journal_id: bytes) -> MemoryCipher:
    return MemoryCipher(key.purpose(f"journal {journal_id.hex()}"))


def in_turns(beyond: Sequence[JournalEntry], layers: Layers) -> list[list[JournalEntry]]:
    """What the log lacks, in parts of which each has to be in the log before the next one goes there; the last is that
    of the heads, and of the tree.

    Where the log has a snapshot, what was written to its device before and after it is in two queues since the start,
    and the log would take them in any order: with a crash in the midst of that, another host, which has no journal,
    would find a later write without an earlier one. (No change of the tree comes before an operation of a layer that is
    a snapshot in the log: the log has those in order.)
    """
    depths = {number: at for trunk in layers.tree.trunks() for at, number in enumerate(trunk[:-1])}
    of_snapshots = [entry for entry in beyond if not isinstance(entry.op, Meta) and entry.layer in depths]
    turns = sorted({depths[entry.layer] for entry in of_snapshots})
    found = [[entry for entry in of_snapshots if depths[entry.layer] == turn] for turn in turns]
    return [*found, [entry for entry in beyond if isinstance(entry.op, Meta) or entry.layer not in depths]]


def restore(beyond: Sequence[JournalEntry], layers: Layers) -> None:
    """Do what the log lacks, in one step. What it raises must poison the engine: a part of it may be done. A crash
    before the log has it: the journal has all of it.
    """
    for entry in beyond:
        layers.restore(entry)
    layers.show_memtables()  # of a snapshot the log may lack operations, though it has the snapshot


def go_on(found: FoundJournal, layers: Layers, journal: Journal) -> None:
    """Go on with the journal that was found, once all of it was restored."""
    if found.place is None:
        return
    if found.failure is not None:
        journal.start_off(found.place, found.failure)
        return
    adopted = []
    devices = layers.device_queues()  # once: a journal has a million entries, and nothing changes a trunk in here
    for segment in found.segments:
        newest: dict[Queue, int] = {}
        for entry in segment.entries:
            queue, sequence = layers.queue(entry.layer), entry.sequence
            if queue is None:
                # Its layer went. Before the log knows that, the next start would miss what is dropped here.
                queue = layers.tree_queue
                sequence = queue.last_sequence
            # What was written before a snapshot is on its way to the log with its device. A queue is never waited for
            # beyond what it has: it would not move before somebody writes, and nobody may while segments take all room.
            for each in {queue, devices.get(entry.layer, queue)}:
                newest[each] = max(newest.get(each, 0), min(sequence, each.last_sequence))
        adopted.append(Segment(segment.number, segment.size, newest))
    journal.start(found.place, adopted)
