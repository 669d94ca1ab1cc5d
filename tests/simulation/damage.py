"""An object that is damaged, gone, or cannot be read any more, and what may fail because of it: nothing else.

`flip` changes a bit of one frame, so one block of one layer may be called damaged. `missing` takes an object away, and
`unreadable` answers every GET of it with the same error (a bad sector, an archived object): then the blocks of all its
frames may fail, and whoever opens the store afterwards may be refused, by that object's name. What was written to a
layer the layers show too that were made of it: so these may fail there as well.

An object of the log, a manifest, a checkpoint or the tree is read by whoever opens the store, and by nobody afterwards:
an opening is refused by its name, and the writer that serves goes on as if nothing were.

Nothing is lost for the oracle: what a session holds where it cannot be read is looked up in a copy of the bucket that
was healed, and at the very end of a world the object comes back.
"""

import random
from dataclasses import dataclass

from storage.crypto.cipher import Cipher
from storage.crypto.data_key import DataKey
from storage.errors import AccessDenied, Corrupt, StorageError, Unavailable, Unreadable, Unsupported
from storage.format.blocks import EntryKind, SstRef
from storage.format.envelope import HEADER_BYTES
from storage.format.names import sst_name
from storage.format.sst import open_index
from tests.simulation.disk_history import BLOCK_BYTES, Disk
from tests.simulation.oracle import Session
from tests.simulation.store import Bucket

KINDS = ("flip", "missing", "unreadable")

WAIT_SECONDS = 30.0
"""How long a client waits for a range that may never be readable."""


@dataclass(frozen=True)
class Frame:
    """Where one frame of a block lies in its SST."""

    layer: int
    block: int
    start: int
    end: int


class Damage:
    """What is damaged in one bucket; at most one object at a time."""

    def __init__(self, bucket: Bucket, key: DataKey, chance: random.Random) -> None:
        self.kind = ""
        self.name = ""
        self.blocks: frozenset[tuple[int, int]] = frozenset()
        """(layer, block) of everything that may fail."""
        self._histories: dict[tuple[int, int], int] = {}
        """(epoch of a session, layer) to the operations there had been when it was struck."""
        self._sessions: list[Session] = []
        self._bucket = bucket
        self._store_id = key.store_id
        self._cipher = Cipher(key.purpose("index"))
        self._chance = chance
        self._sound = b""

    def strike(self, kind: str, tables: list[SstRef], sessions: list[Session]) -> bool:
        """Damage one of these; False if none of them is there, or none holds data."""
        candidates = [table for table in tables if sst_name(table.id) in self._bucket.objects]
        self._chance.shuffle(candidates)
        for table in candidates:
            content = self._bucket.objects[sst_name(table.id)]
            frames = self._frames(table, content)
            if frames:
                self.kind, self.name, self._sound = kind, sst_name(table.id), content
                self._hit(frames)
                self._sessions = sessions
                self._histories = {(s.epoch, layer): len(disk.ops) for s in sessions for layer, disk in s.disks.items()}
                return True
        return False

    def strike_part(self, kind: str, names: list[str]) -> bool:
        """Damage one of these objects, which are not of data; False if none of them is there."""
        there = [name for name in names if name in self._bucket.objects]
        if not there:
            return False
        self.kind, self.name = kind, self._chance.choice(there)
        self._sound = self._bucket.objects[self.name]
        self._hit([Frame(0, 0, HEADER_BYTES, len(self._sound))])
        self.blocks = frozenset()
        return True

    def _frames(self, table: SstRef, content: bytes) -> list[Frame]:
        index = open_index(self._cipher, table, content[table.index_offset :], store_id=self._store_id)
        columns = (index.entries[column].tolist() for column in ("layer", "block", "kind", "offset", "length"))
        return [
            Frame(layer, block, offset, offset + length)
            for layer, block, kind, offset, length in zip(*columns, strict=True)
            if kind in (EntryKind.FULL, EntryKind.PATCH)
        ]

    def _hit(self, frames: list[Frame]) -> None:
        bucket, chance = self._bucket, self._chance
        if self.kind == "flip":
            frames = [chance.choice(frames)]
            changed = bytearray(self._sound)
            changed[chance.randrange(frames[0].start, frames[0].end)] ^= 1 << chance.randrange(8)
            bucket.objects[self.name] = bytes(changed)
        elif self.kind == "missing":
            del bucket.objects[self.name]
        else:
            error: StorageError = chance.choice([Unavailable("a sector is bad"), AccessDenied("it was archived")])
            bucket.unreadable[self.name] = error
        self.blocks = frozenset((frame.layer, frame.block) for frame in frames)

    def heal(self) -> None:
        """What was damaged is as it was, unless it was deleted since."""
        self._bucket.unreadable.pop(self.name, None)
        self._heal(self._bucket.objects)
        self.name, self.blocks = "", frozenset()

    def healed(self) -> dict[str, bytes]:
        """A copy of all objects as if nothing were damaged."""
        objects = dict(self._bucket.objects)
        self._heal(objects)
        return objects

    def _heal(self, objects: dict[str, bytes]) -> None:
        if self.name and (self.kind == "missing" or self.name in objects):
            objects[self.name] = self._sound

    def touches(self, layer: int, first: int, end: int) -> bool:
        """Whether any of the blocks [first, end) of a layer may fail."""
        hit = {number for number, block in self.blocks if first <= block < end}
        return bool(hit) and not hit.isdisjoint(self._made_of(layer))

    def _made_of(self, layer: int) -> set[int]:
        """A layer, and those that it was made of, in any session."""
        found, looked_at = {layer}, set[int]()
        while left := found - looked_at:
            looked_at |= left
            disks = [session.disks[number] for session in self._sessions for number in left if number in session.disks]
            found |= {disk.origin for disk in disks if disk.origin is not None}
        return found

    def excuses_refusal(self, error: StorageError) -> bool:
        """Whether a store may refuse to open with this error: an object it needs cannot be had, and that is named."""
        if not self.name or (self.kind == "flip" and self.blocks):
            return False
        if self.kind == "unreadable":
            return isinstance(error, Unavailable | AccessDenied)
        return self.name in str(error) and isinstance(error, Corrupt | Unsupported)

    def excuses_read(self, error: BaseException, layer: int, first: int, end: int) -> bool:
        """Whether a read of these blocks may fail with this error."""
        if not self.touches(layer, first, end):
            return False
        if isinstance(error, TimeoutError):
            # The client's own patience is at its end; a request that hung says nothing of what it would have found.
            return True
        if self.kind == "unreadable":
            return isinstance(error, StorageError)
        return isinstance(error, Corrupt | Unreadable) and self.name in str(error)

    def _since(self, session: Session, disk: Disk) -> int:
        """How long the history of a disk was when it was struck; what goes on from a snapshot has the history of it."""
        known: Disk | None = disk
        while known is not None and (session.epoch, known.layer) not in self._histories:
            known = known.parent
        return 0 if known is None else self._histories[session.epoch, known.layer]

    def excuses(self, error: BaseException, session: Session, disk: Disk, length: int, first: int, end: int) -> bool:
        """The same in a session whose disk had `length` operations when the read began: what was written over as a
        whole since it was struck must be readable.
        """
        since = self._since(session, disk)
        for block in range(first, end):
            if self.excuses_read(error, disk.layer, block, block + 1):
                low, high = block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES
                newer = disk.ops[since:length]
                if not any(op.offset <= low and op.offset + op.length >= high for op in newer):
                    return True
        return False
