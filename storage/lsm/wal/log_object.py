"""Objects of the log as they were read, and the log that they make up from the replay point to its end. No I/O.

All of a log is checked before any of it is applied.
"""

from dataclasses import dataclass, field

from storage.crypto.cipher import Cipher
from storage.format.envelope import NO_LINK, Header, ObjectKind, open_object
from storage.format.names import wal_name
from storage.format.wal import Meta, Replayed, Uploaded, decode, sequence_of

WAL_KINDS = (ObjectKind.WAL, ObjectKind.FENCE)


@dataclass(slots=True)
class LogObject:
    """A WAL object that was read, and what must be known of all of the log before any of it is applied.

    Its operations stay sealed until it is their turn (`records`): opened, a log may be fifty times as large.
    """

    number: int
    header: Header
    raw: bytes
    """The object itself, until it was applied."""
    tag: bytes
    size: int
    ssts: list[Uploaded]
    """The SSTs that it refers to."""
    metas: list[Meta]
    """The changes of the tree in it."""
    sequence: int
    """The sequence of the newest operation in it, 0 if it has none (a fence)."""

    @classmethod
    def open(cls, cipher: Cipher, number: int, raw: bytes, *, store_id: bytes) -> "LogObject":
        """Check all of an object; Corrupt. Takes as long as decompressing it."""
        name = wal_name(number)
        header, body, tag = open_object(cipher, name, raw, store_id=store_id, kinds=WAL_KINDS, number=number)
        found = cls(number, header, raw, tag, len(raw), [], [], 0)
        if header.kind is ObjectKind.WAL:
            for _, record in decode(name, body, header.key_id):
                found.sequence = max(found.sequence, sequence_of(record))
                if isinstance(record, Uploaded):
                    found.ssts.append(record)
                elif isinstance(record, Meta):
                    found.metas.append(record)
        return found

    def records(self, cipher: Cipher, *, store_id: bytes) -> list[Replayed]:
        """Its operations and locators, in order."""
        name = wal_name(self.number)
        _, body, _ = open_object(cipher, name, self.raw, store_id=store_id, kinds=WAL_KINDS, number=self.number)
        return [item for item in decode(name, body) if not isinstance(item[1], Uploaded | Meta)]


@dataclass(slots=True)
class Replay:
    """The log from the replay point to its end."""

    objects: list[LogObject] = field(default_factory=list)
    """Data objects, ascending."""
    fences: list[int] = field(default_factory=list)
    epochs: dict[int, int] = field(default_factory=dict)
    """The epoch of each fence that was met."""
    end: int = 0
    """Lowest number that is free (for a writer: where its fence goes)."""
    last: int = 0
    """Highest number below `end` that is there; 0 if none is."""
    epoch: int = 0
    """Highest epoch met."""
    key_id: int = 0
    """Highest data key met."""
    tag: bytes = NO_LINK
    """Tag of the object just below `end`; zeros behind a fence."""

    def reach(self, epoch: int) -> int:
        """The number below which lies all that a writer of `epoch` can have had acknowledged: that of the first fence
        of a later one, or the end.
        """
        return min((number for number, later in self.epochs.items() if later > epoch), default=self.end)

    @property
    def ssts(self) -> list[Uploaded]:
        """The SSTs that the log refers to, in order."""
        return [sst for item in self.objects for sst in item.ssts]

    @property
    def metas(self) -> list[Meta]:
        """The changes of the tree in the log, in order of sequence."""
        return sorted((meta for item in self.objects for meta in item.metas), key=sequence_of)

    @property
    def sequence(self) -> int:
        """The newest sequence in the log, 0 if it is empty."""
        return max((item.sequence for item in self.objects), default=0)
