"""What checkpoint and data SSTs of a store say of its blocks: the half of `format_reader` below the log. Nothing of
this project is in it. Numbers in comments are sections of docs/format.md.
"""

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.support.format_sealed import Layout, check, hkdf, open_sealed, ulid_text, unpack, unshuffle

BLOCK, SECTOR = 262144, 4096
DATA, CHECKPOINT = 5, 7
ALL = 2**64 - 1
SEALED_LAST = 2**32 - 1
"""The number of an index, or of a trailer, in its nonce."""

ENTRY_COLUMNS: Layout = ((4, False), (4, True), (1, False), (8, False), (8, True), (4, True), (4, False), (8, False))
RANGE_COLUMNS: Layout = ((4, False), (4, False), (4, False), (8, False), (1, False))
MOVED_COLUMNS: Layout = ((4, False), (4, False), (4, True))
PART_COLUMNS: dict[int, Layout] = {
    1: ((4, True), (4, True), (4, True), (4, False), (8, False)),
    2: ((4, True), (4, True)),
    3: ((4, True), (8, False), (4, True), (4, True), (4, False), (8, False)),
    4: ((4, True), (4, True)),
}
"""By kind of part of a checkpoint: bases, zeros, patches, kept."""


class Sst(NamedTuple):
    """A data SST whose index was read."""

    raw: bytes
    prefix: bytes
    entries: list[tuple[int, ...]]
    ranges: list[tuple[int, ...]]
    moved: dict[tuple[str, int], int]
    """ULID of a victim and offset there, to the offset here."""
    victims: list[str]


class Frame(NamedTuple):
    """Where a frame lies, and what proves it."""

    reference: tuple[Any, ...]
    offset: int
    length: int
    tag: int
    block: int
    kind: int


class BlockReader:
    """The blocks of a store in `folder`. Whoever inherits it sets the rest: keys first, then `_read_blocks`."""

    store_id: bytes
    data_keys: dict[int, bytes]
    """By id: the newest, and the older ones of its ring."""
    sequence: int

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: dict[str, Sst] = {}
        self.followed = 0
        """How many places of the checkpoint were found through a moved row: for tests to see that it happens."""
        self.blocks: dict[tuple[int, int], list[Frame | None]] = {}
        """By layer and block: the frame of each sector, None where zeros are. From checkpoint and SSTs."""
        self.gone: set[str] = set()
        self.trunks: list[list[int]] = []
        self.kept: dict[int, set[int]] = {}
        """Of each snapshot in the checkpoint, the blocks that it keeps."""

    def _read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def _key(self, key_id: int, purpose: str) -> bytes:
        check(key_id in self.data_keys, "something is sealed under a data key that is not in use")
        return hkdf(self.data_keys[key_id], self.store_id, b"nbdserver 1 " + purpose.encode())

    def _header(self, raw: bytes, kinds: tuple[int, ...], number: int) -> tuple[Any, ...]:
        fields = struct.unpack_from("<8sHBBI16s16sQ16sQQII", raw)
        check(fields[:2] == (b"NBDSTORE", 1) and fields[2] in kinds, "not such an object")
        check(fields[5] == self.store_id, "an object of another store")
        check(fields[7] == number and fields[10] == len(raw), "a header with a wrong number or size")
        return fields

    # 7: data SSTs

    def _sst(self, reference: Any) -> Sst:
        ulid, _, _, _, rows, _ = reference
        if ulid in self.opened:
            return self.opened[ulid]
        raw, header, packed = self._open_end(reference, DATA, "index")
        entries, ranges, moved, victims = struct.unpack_from("<IIII", packed)
        check(entries + ranges == rows, "an index with a wrong number of rows")
        at = 16 + 16 * victims
        names = [ulid_text(packed[start : start + 16]) for start in range(16, at, 16)]
        entry_rows, at = unshuffle(packed, at, entries, ENTRY_COLUMNS)
        range_rows, at = unshuffle(packed, at, ranges, RANGE_COLUMNS)
        moved_rows, at = unshuffle(packed, at, moved, MOVED_COLUMNS)
        check(at == len(packed), "an index has bytes behind its columns")
        places = {(names[victim], old): new for victim, old, new in moved_rows}
        sst = self.opened[ulid] = Sst(raw, header[6], entry_rows, range_rows, places, names)
        return sst

    def _open_end(self, reference: Any, kind: int, purpose: str) -> tuple[bytes, tuple[Any, ...], bytes]:
        """7, 8: the object, its header, and what its second header and the sealed rest say."""
        ulid, size, offset, tag, _, key_id = reference
        raw = self._read(f"compacted/{ulid}.sst")
        header = self._header(raw, (kind,), 0)
        found = (len(raw), header[12], raw[-16:], header[3])
        check(found == (size, offset, tag, key_id), f"{ulid} is not what is referred to")
        check(raw[offset : offset + 96] == raw[:96], "an object with two different headers")
        check(ulid_text(header[8]) == ulid and header[11] == 1, "an object under another name")
        plain = open_sealed(self._key(key_id, purpose), raw[offset + 96 :], raw[:96], header[6], SEALED_LAST)
        codec, length = struct.unpack_from("<BI", plain)
        return raw, header, unpack(codec, plain[5:], length)

    def _frame(self, frame: Frame) -> bytes:
        """The 64 sectors of a block; those that the frame does not hold are zeros. The layout mask comes first."""
        check(frame.reference[0] not in self.gone, "something that can be seen lies in an SST that is gone")
        sst = self._sst(frame.reference)
        sealed = sst.raw[frame.offset : frame.offset + frame.length]
        check(sealed[-16:-8] == struct.pack("<Q", frame.tag), "a frame is not the one that is meant")
        # What was moved has the nonce it was sealed with.
        check(frame.offset in sst.moved.values() or sealed[:16] == sst.prefix, "a frame of another object")
        associated = struct.pack("<H16sIB", 1, self.store_id, frame.block, frame.kind)
        plain = open_sealed(self._key(frame.reference[5], "frames"), sealed, associated, None)
        codec, mask = struct.unpack_from("<BQ", plain)
        data = unpack(codec, plain[9:], mask.bit_count() * SECTOR)
        whole = bytearray(BLOCK)
        for place, sector in enumerate(s for s in range(64) if mask >> s & 1):
            whole[sector * SECTOR : (sector + 1) * SECTOR] = data[place * SECTOR : (place + 1) * SECTOR]
        return struct.pack("<Q", mask) + whole

    # 8: the checkpoint

    def _read_checkpoint(self, reference: Any, gone: list[int], ssts: list[Any]) -> None:
        raw, header, packed = self._open_end(reference, CHECKPOINT, "checkpoint")
        sequence, table, parts, trunks = msgspec.msgpack.decode(packed)
        self.trunks = [list(layers) for layers, _ in trunks]
        self.kept = {layer: set() for layers in self.trunks for layer in layers[:-1]}
        check(sequence <= self.sequence, "a checkpoint of what the manifest does not hold")
        check(sum(part[2] for part in parts) == reference[4], "a checkpoint with a wrong number of rows")
        self.gone = {table[position - 1][0] for position in gone}
        moved = {}
        for newer in ssts:
            tags = {entry[5]: entry[7] for entry in self._sst(newer).entries}
            for old, new in self._sst(newer).moved.items():
                moved[old] = tuple(newer), new, tags[new]

        def frame(place: tuple[int, ...], block: int, kind: int) -> Frame | None:
            position, offset, length, tag = place
            if position == 0:
                check(offset in (0, 1) and length == tag == 0, "impossible zeros")
                return None
            lies = tuple(table[position - 1])
            if (lies[0], offset) in moved:
                lies, offset, tag = moved[lies[0], offset]
                self.followed += 1
            return Frame(lies, offset, length, tag, block, kind)

        opened = [(part[0], part[1], self._part(raw, header, number, part)) for number, part in enumerate(parts)]
        for layer, kind, rows in sorted(opened, key=lambda part: part[1]):  # those of one kind in their order
            for row in rows:
                if kind == 1:
                    check((layer, row[0]) not in self.blocks, "two bases of a block")
                    self._put(layer, row[0], ALL, frame(row[1:], row[0], 1))
                elif kind == 2:
                    self._zero(layer, *row)
                elif kind == 4:
                    self.kept[layer] |= set(range(*row))
                else:
                    self._put(layer, row[0], row[1], frame(row[2:], row[0], 2))

        for layers in self.trunks:
            for newer, layer in zip(layers[:0:-1], layers[-2::-1], strict=True):
                for owner, block in list(self.blocks):
                    if owner == newer and block not in self.kept[layer]:
                        self.blocks[layer, block] = list(self.blocks[newer, block])

    def _part(self, raw: bytes, header: tuple[Any, ...], number: int, part: list[Any]) -> list[tuple[int, ...]]:
        _, kind, rows, offset, length, tag = part
        sealed = raw[offset : offset + length]
        check(sealed[-16:] == tag and kind in PART_COLUMNS, "a part is not the one that the trailer means")
        associated = struct.pack("<4s16s16sI", b"part", self.store_id, header[8], number)
        plain = open_sealed(self._key(header[3], "checkpoint"), sealed, associated, header[6], number)
        codec, size = struct.unpack_from("<BI", plain)
        packed = unpack(codec, plain[5:], size)
        found, end = unshuffle(packed, 0, rows, PART_COLUMNS[kind])
        check(end == len(packed), "a part has bytes behind its columns")
        return found

    # 9: the content

    def _read_blocks(self, *, checkpoint: Any, gone: list[int], ssts: list[Any], operations: list[Any]) -> None:
        if checkpoint is not None:
            self._read_checkpoint(checkpoint, gone, ssts)
        rows = self._rows(ssts)
        for layer in sorted(layer for layers in self.trunks for layer in layers):
            self._read_rows(rows, layer)
        for _, operation in operations:
            there = {layer for layers in self.trunks for layer in layers}
            self._operate(*operation)
            for layer in {layer for layers in self.trunks for layer in layers} - there:
                self._read_rows(rows, layer)

    def _operate(self, kind: int, one: int, *others: int) -> None:
        """An operation on trunks."""
        there = {layer: layers for layers in self.trunks for layer in layers}
        if kind == 1:
            self.trunks += [] if one in there else [[one]]
        elif kind == 2:
            self.trunks = [layers for layers in self.trunks if layers != [one]]
        elif kind == 3:
            check(there[one][-1] == one, "what is frozen is no head")
            there[one].append(others[0])
            self._begin(others[0], one)
        elif kind == 4:
            check(there[one][-1] != one, "what is cloned is no snapshot")
            self.trunks.append([others[0]])
            self._begin(others[0], one)
        elif kind == 5:
            head, child = others
            check(there[one] is there[head] and there[head][-1] == head, "a rollback of something else")
            there[head][-1] = child
            self._begin(child, one)
        else:
            check(kind == 6 and there[one][-1] != one, "an unknown operation, or of no snapshot")
            there[one].remove(one)

    def _begin(self, layer: int, other: int) -> None:
        """A layer begins with what another one shows."""
        for owner, block in [key for key in self.blocks if key[0] == other]:
            self.blocks[layer, block] = list(self.blocks[owner, block])

    def _put(self, layer: int, block: int, mask: int, frame: Frame | None) -> None:
        sectors = self.blocks.setdefault((layer, block), [None] * 64)
        for s in (s for s in range(64) if mask >> s & 1):
            sectors[s] = frame

    def _zero(self, layer: int, first: int, end: int) -> None:
        for key in [key for key in self.blocks if key[0] == layer and first <= key[1] < end]:
            del self.blocks[key]

    def _rows(self, references: list[Any]) -> list[tuple[tuple[int, ...], Any]]:
        """What all SSTs say, in order."""
        rows: list[tuple[tuple[int, ...], Any]] = []
        for place, reference in enumerate(references):
            sst = self._sst(reference)
            if sst.victims:
                check(not sst.ranges, "a repacked SST with ranges")
                continue
            for number, entry in enumerate(sst.entries):
                check(entry[2] in (1, 2, 3, 4) and (entry[2] != 1 or entry[3] == ALL), "an impossible entry")
                rows.append(((entry[4], 0, place, number), (tuple(reference), entry)))
            # A range wins over entries of its sequence, so it is applied behind them.
            rows += [((span[3], 1, place, 0), span) for span in sst.ranges]
        return sorted(rows, key=lambda row: row[0])

    def _read_rows(self, rows: list[tuple[tuple[int, ...], Any]], layer: int) -> None:
        """Put in what they say of one layer."""
        (layers,) = [layers for layers in self.trunks if layer in layers]
        for _, row in rows:
            if len(row) > 2:
                if row[0] == layer:
                    check(layers[-1] == layer, "a range of a snapshot")
                    self._zero(*row[:3])
                continue
            reference, (owner, block, kind, mask, _, offset, length, tag) = row
            if owner != layer:
                continue
            frame = Frame(reference, offset, length, tag, block, kind) if kind <= 2 else None
            self._put(layer, block, mask, frame)
            # Late, to a snapshot: the newer layers show it too, as far as none of them has replaced the block.
            for older, newer in pairwise(layers):
                if older >= layer and block not in self.kept.get(older, {block}):
                    self._put(newer, block, mask, frame)
                elif older >= layer:
                    break

    def _flushed(self, layer: int, data: bytearray) -> None:
        """Put what checkpoint and SSTs say of a layer into `data`."""
        wanted: dict[Frame, list[int]] = {}
        for (owner, _), sectors in self.blocks.items():
            for s, frame in enumerate(sectors):
                if owner == layer and frame is not None:
                    wanted.setdefault(frame, []).append(s)
        for frame, numbers in wanted.items():
            whole = self._frame(frame)
            (mask,) = struct.unpack_from("<Q", whole)
            for s in numbers:
                check(mask >> s & 1 == 1, "a frame lacks sectors of its row")
                at = frame.block * BLOCK + s * SECTOR
                count = max(min(SECTOR, len(data) - at), 0)
                data[at : at + count] = whole[8 + s * SECTOR :][:count]
