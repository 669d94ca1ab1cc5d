"""What a journal holds beyond the log, for the writer that comes next on this host.

Promises: an operation that the log has is not taken again, since each queue's come after the newest that its log holds;
none is taken of a journal in which one is missing, from itself or between the log and its beginning. Nothing is changed
in the journal, so a crash here, and again in the next try, changes nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from storage.crypto.memory_cipher import MemoryCipher
from storage.errors import Corrupt
from storage.format.journal_batch import JournalEntry, decode
from storage.format.wal import TREE
from storage.journal.files import JournalFiles


@dataclass(frozen=True, slots=True)
class ReadSegment:
    """A segment as it was found."""

    number: int
    size: int
    entries: list[JournalEntry]


def read(files: JournalFiles, cipher: MemoryCipher, *older: MemoryCipher) -> list[ReadSegment]:
    """All of the journal that `files` has. Corrupt: a part of it is not what was written. OSError.

    `older` open segments that writers began before the data key was rotated: a segment is of one writer.
    """
    found = []
    for number in files.segments():
        raw, error = files.read(number), None
        for each in (cipher, *older):
            try:
                entries = decode(f"segment {number} of the journal", raw, each, number)
            except Corrupt as unsound:
                error = error or unsound
            else:
                found.append(ReadSegment(number, len(raw), entries))
                break
        else:
            raise error or Corrupt("the journal", f"nothing opens segment {number}")
    return found


def beyond_log(entries: Iterable[JournalEntry], logged: Callable[[int], int | None]) -> list[JournalEntry]:
    """The entries that the log lacks, in order. `logged` gives the newest operation of a layer that the log holds;
    None: there is no such layer, now.

    Corrupt: one is missing. A layer that is not there, while the log has a later change of the tree, was dropped by the
    log: its entries are passed over, and of those there may be some, since segments go one by one. Else an entry here
    makes it.
    """
    changed = logged(TREE) or 0
    reached: dict[int, int] = {}
    taken = []
    for entry in entries:
        layer, sequence = entry.layer, entry.sequence
        have = reached.get(layer)
        if have is None:
            found = logged(layer)
            if found is None and sequence < changed:
                continue
            have = entry.previous if found is None else found
        if sequence > have:
            if entry.previous > have:
                raise Corrupt(
                    "the journal", f"operation {entry.previous} of layer {layer} is neither in it nor in the log"
                )
            taken.append(entry)
            have = sequence
        reached[layer] = have
    return taken
