"""Another program that reads a store: written from docs/format.md alone, with nothing of this project in it.

It shows that the page says enough, and it finds mistakes that writer and reader of the project would make
alike. It reads a store in a folder, nobody writing to it, and is in no hurry: everything is checked,
whatever does not fit is a ValueError. Numbers in comments are sections of the page.
"""

import hashlib
import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lz4.block
import msgspec
from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
from nacl.exceptions import CryptoError

BLOCK, SECTOR = 262144, 4096
MANIFEST, WAL, FENCE, DATA, TREE = 2, 3, 4, 5, 6
ZEROS = bytes(16)
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

ENTRY_COLUMNS = ((4, False), (4, True), (1, False), (8, False), (8, True), (4, True), (4, False), (8, False))
RANGE_COLUMNS = ((4, False), (4, False), (4, False), (8, False), (1, False))


def check(condition: bool, complaint: str) -> None:
    if not condition:
        raise ValueError(complaint)


def hkdf(key: bytes, salt: bytes | None, info: bytes, length: int = 32) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(key)


def open_sealed(key: bytes, sealed: bytes, associated: bytes, prefix: bytes | None, number: int = 0) -> bytes:
    """2: `nonce 24 | ciphertext | tag 16`, the nonce being `prefix | number`."""
    nonce = sealed[:24]
    check(prefix is None or nonce == prefix + struct.pack("<Q", number), "a nonce is not the one it must be")
    try:
        return bytes(crypto_aead_xchacha20poly1305_ietf_decrypt(sealed[24:], associated, nonce, key))
    except CryptoError as error:
        raise ValueError("something sealed does not open") from error


def unpack(codec: int, payload: bytes, size: int) -> bytes:
    check(codec in (0, 1), "unknown codec")
    data = payload if codec == 0 else bytes(lz4.block.decompress(payload, uncompressed_size=size))
    check(len(data) == size, "a payload has the wrong size")
    return data


def ulid_text(raw: bytes) -> str:
    value = int.from_bytes(raw, "big")
    return "".join(CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


@dataclass(order=True)
class Event:
    """What happened to bytes of a layer; `order` puts events of one sequence into theirs.

    `data` holds the sectors of `mask` of block `block` by number, or is a string of bytes at `offset`, or None
    for `length` zeros there.
    """

    sequence: int
    order: tuple[int, int]
    layer: int = field(compare=False)
    offset: int = field(compare=False)
    length: int = field(compare=False)
    data: bytes | None = field(compare=False, default=None)


class FormatReader:
    """A store in `folder`, opened with its password."""

    def __init__(self, folder: Path, password: bytes) -> None:
        self.folder = folder
        self.names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        self.keys_number, self.store_id, self.data_key = self._open_keys(password)
        self.manifest_number = self._highest("manifest/")
        header, body, self.manifest_tag = self._open_object(
            f"manifest/{self.manifest_number:020}.manifest", "manifest", (MANIFEST,), self.manifest_number
        )
        defaults: list[Any] = [None] * 7 + [[], None, [], [], 0]
        given: list[Any] = msgspec.msgpack.decode(body)
        self.manifest = given + defaults[len(given) :]
        self.epoch, self.takeover, self.closed, self.replay, replay_tag, _, self.sequence = self.manifest[:7]
        check(header[4] == self.epoch, "manifest and header differ in their epoch")
        check(self.manifest[11] <= self.keys_number, "an old keys object was put back")
        self.inodes: dict[int, list[Any]] = {
            1: [1, 1, 0o755, 0, 0, 0, 0, 0, 0, 0, ""],
            2: [2, 1, 0o755, 0, 0, 0, 0, 0, 0, 0, ""],
        }
        self.names_in: dict[tuple[int, str], int] = {(1, ".nbd"): 2}
        self.layers: dict[int, list[Any]] = {}
        self.events: list[Event] = []
        self.records: dict[str, int] = {}
        """How many of each type and flags of record the log adds to the SSTs: for tests to see that all occur."""
        for place, reference in enumerate(self.manifest[7]):
            self._read_table(place, reference)
        if self.manifest[8] is not None:
            self._read_tree(self.manifest[8])
        self._replay(replay_tag)

    def _highest(self, prefix: str) -> int:
        return max(int(name[len(prefix) :][:20]) for name in self.names if name.startswith(prefix))

    def _read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def _key(self, purpose: str) -> bytes:
        return hkdf(self.data_key, self.store_id, b"nbdserver 1 " + purpose.encode())

    # 3: keys

    def _open_keys(self, password: bytes) -> tuple[int, bytes, bytes]:
        number = self._highest("keys/")
        raw = self._read(f"keys/{number:020}.keys")
        check(hashlib.sha256(raw[:-32]).digest() == raw[-32:], "the keys object has the wrong checksum")
        magic, version, kind, store_id, own, slots = struct.unpack_from("<8sHB16sQB", raw)
        check((magic, version, kind, own) == (b"NBDSTORE", 1, 1, number), "not the keys object of its name")
        check(len(raw) == 36 + slots * 140 + 64, "the keys object has the wrong length")
        for at in range(36, 36 + slots * 140, 140):
            slot, function, memory, passes, lanes, salt, created, value = struct.unpack_from("<HBIIB16sQ32s", raw, at)
            sealed = raw[at + 68 : at + 140]
            check(function == 1, "unknown password function")
            result = hash_secret_raw(password, salt, passes, memory, lanes, 32, Type.ID, 0x13)
            both = hkdf(result, None, b"nbdserver 1 key slot", 64)
            if not hmac.compare_digest(both[:32], value):
                continue
            associated = b"nbdserver key slot" + struct.pack(
                "<H16sHBIIB16sQ", 1, store_id, slot, function, memory, passes, lanes, salt, created
            )
            key = open_sealed(both[32:], sealed, associated, None)
            seal = hmac.digest(hkdf(key, store_id, b"nbdserver 1 keys object"), raw[:-64], "sha256")
            check(hmac.compare_digest(seal, raw[-64:-32]), "the keys object was altered")
            return number, store_id, key
        raise ValueError("no slot opens with this password")

    # 4: header and body

    def _header(self, raw: bytes, kinds: tuple[int, ...], number: int) -> tuple[Any, ...]:
        fields = struct.unpack_from("<8sHBBI16s16sQ16sQQII", raw)
        check(fields[:2] == (b"NBDSTORE", 1) and fields[2] in kinds and fields[3] == 1, "not such an object")
        check(fields[5] == self.store_id, "an object of another store")
        check(fields[7] == number and fields[10] == len(raw), "a header with a wrong number or size")
        return fields

    def _open_object(
        self, name: str, purpose: str, kinds: tuple[int, ...], number: int
    ) -> tuple[tuple[Any, ...], bytes, bytes]:
        raw = self._read(name)
        header = self._header(raw, kinds, number)
        at, body, sealed = 96, b"", b""
        for part in range(header[11]):
            (length,) = struct.unpack_from("<I", raw, at)
            sealed = raw[at + 4 : at + 4 + length]
            plain = open_sealed(self._key(purpose), sealed, raw[:96] + struct.pack("<I", part), header[6], part)
            codec, size = struct.unpack_from("<BI", plain)
            check(size <= BLOCK, "a part is too large")
            body += unpack(codec, plain[5:], size)
            at += 4 + length
        check(header[11] > 0 and at == len(raw), "an object does not end with its last part")
        return header, body, sealed[-16:]

    # 7: data SSTs

    def _read_index(self, reference: list[Any]) -> tuple[bytes, tuple[Any, ...], list[Any], list[Any]]:
        ulid, size, index_offset, tag, rows = reference
        raw = self._read(f"compacted/{ulid}.sst")
        header = self._header(raw, (DATA,), 0)
        check((len(raw), header[12], raw[-16:]) == (size, index_offset, tag), f"{ulid} is not the SST referred to")
        check(raw[index_offset : index_offset + 96] == raw[:96], "an SST with two different headers")
        check(ulid_text(header[8]) == ulid and header[11] == 1, "an SST under another name")
        plain = open_sealed(self._key("index"), raw[index_offset + 96 :], raw[:96], header[6], 2**32 - 1)
        codec, length = struct.unpack_from("<BI", plain)
        packed = unpack(codec, plain[5:], length)
        counts = struct.unpack_from("<II", packed)
        check(sum(counts) == rows, "an index with a wrong number of rows")
        at = 8
        tables = []
        for count, columns in zip(counts, (ENTRY_COLUMNS, RANGE_COLUMNS), strict=True):
            values = []
            for width, differences in columns:
                shuffled = packed[at : at + count * width]
                at += count * width
                column = [int.from_bytes(shuffled[row::count], "little") for row in range(count)]
                if differences:
                    for row in range(1, count):
                        column[row] = (column[row] + column[row - 1]) % 2 ** (8 * width)
                values.append(column)
            tables.append(list(zip(*values, strict=True)))
        check(at == len(packed), "an index has bytes behind its columns")
        return raw, header, tables[0], tables[1]

    def _frame(self, raw: bytes, prefix: bytes, block: int, kind: int, offset: int, length: int, tag: bytes) -> bytes:
        """The 64 sectors of a block; those that the frame does not hold are zeros. The layout mask comes first."""
        sealed = raw[offset : offset + length]
        check(sealed[-16:-8] == tag and sealed[:16] == prefix, "a frame is not the one that the index means")
        associated = struct.pack("<H16sIB", 1, self.store_id, block, kind)
        plain = open_sealed(self._key("frames"), sealed, associated, None)
        codec, mask = struct.unpack_from("<BQ", plain)
        data = unpack(codec, plain[9:], mask.bit_count() * SECTOR)
        whole = bytearray(BLOCK)
        for place, sector in enumerate(s for s in range(64) if mask >> s & 1):
            whole[sector * SECTOR : (sector + 1) * SECTOR] = data[place * SECTOR : (place + 1) * SECTOR]
        return struct.pack("<Q", mask) + whole

    def _read_table(self, place: int, reference: list[Any]) -> None:
        raw, header, entries, ranges = self._read_index(reference)
        for row, (layer, block, kind, mask, sequence, offset, length, tag) in enumerate(entries):
            order = (place, row)
            check(kind in (1, 2, 3, 4) and (kind != 1 or mask == 2**64 - 1), "an impossible entry")
            whole = None
            if kind in (1, 2):
                found = self._frame(raw, header[6], block, kind, offset, length, struct.pack("<Q", tag))
                check(struct.unpack_from("<Q", found)[0] & mask == mask, "a frame lacks sectors of its entry")
                whole = found[8:]
            for s in (s for s in range(64) if mask >> s & 1):
                data = None if whole is None else whole[s * SECTOR : (s + 1) * SECTOR]
                self.events.append(Event(sequence, order, layer, block * BLOCK + s * SECTOR, SECTOR, data))
        for layer, first, end, sequence, _ in ranges:
            # A range wins over entries of its sequence, so it is applied behind them.
            self.events.append(Event(sequence, (2**32, 0), layer, first * BLOCK, (end - first) * BLOCK))

    # 6: the log

    def _replay(self, tag: bytes) -> None:
        found: list[tuple[int, int, Any]] = []
        number, epoch, known = self.replay, 0, self.manifest[5]
        while f"wal/{number:020}.sst" in self.names:
            name = f"wal/{number:020}.sst"
            header, body, own_tag = self._open_object(name, "wal", (WAL, FENCE), number)
            check(header[4] >= epoch, "the log goes back to an earlier epoch")
            epoch = header[4]
            known = max(known, header[9])
            if header[2] == FENCE:
                check(struct.unpack("<Q", body)[0] == number + 16, "a fence that resumes elsewhere")
                number, tag = number + 16, ZEROS
                continue
            check(header[8] == tag, "a WAL object does not follow the one before it")
            found += self._records(body)
            number, tag = number + 1, own_tag
        check(known < number, "the log ends below an acknowledged number")
        found.sort(key=lambda record: record[0])
        for place, (sequence, layer, act) in enumerate(found):
            if sequence > self.sequence:
                act(sequence, layer, (2**33, place))

    def _records(self, body: bytes) -> Iterator[tuple[int, int, Any]]:
        at = 0
        tables: dict[bytes, list[Any]] = {}
        while at < len(body):
            kind, flags, layer, sequence, offset, length = struct.unpack_from("<BBIQQQ", body, at)
            at += 30
            check(kind in (1, 2, 3, 4, 5), "an unknown type of record")
            payload = body[at : at + {1: length, 2: 0, 3: length, 4: 48, 5: 41}[kind]]
            at += len(payload)
            if kind == 4 or sequence > self.sequence:
                self.records[f"{kind}/{flags}"] = self.records.get(f"{kind}/{flags}", 0) + 1
            if kind == 1:
                yield sequence, layer, self._later(offset, length, payload)
            elif kind == 2:
                yield sequence, layer, self._later(offset, length, None)
            elif kind == 3:
                yield sequence, layer, lambda seq, _, order, change=payload: self._change(change, seq, order)
            elif kind == 4:
                ulid, size, index_offset, tag, rows = struct.unpack("<16sQI16sI", payload)
                tables[ulid] = [ulid_text(ulid), size, index_offset, tag, rows]
            else:
                ulid, entry_kind, mask, frame, frame_length, tag = struct.unpack("<16sBQII8s", payload)
                check(entry_kind == 1 and mask == 2**64 - 1, "a locator of less than a block")
                raw, header, entries, _ = self._read_index(tables[ulid])
                check(
                    any(e[:2] == (layer, offset) and e[4] == sequence for e in entries), "a locator without its entry"
                )
                whole = self._frame(raw, header[6], offset, 1, frame, frame_length, tag)
                yield sequence, layer, self._later(offset * BLOCK, BLOCK, whole[8:])

    def _later(self, offset: int, length: int, data: bytes | None) -> Any:
        return lambda sequence, layer, order: self.events.append(Event(sequence, order, layer, offset, length, data))

    # 8: the tree of names

    def _read_tree(self, reference: list[Any]) -> None:
        name = f"compacted/{reference[0]}.sst"
        header, body, tag = self._open_object(name, "tree", (TREE,), 0)
        check(tag == reference[3] and ulid_text(header[8]) == reference[0], "not the tree that the manifest means")
        version, (_, _, inodes, entries, layers) = msgspec.msgpack.decode(body)
        check(version == 1, "an unknown version of the tree")
        self.inodes = {inode[0]: inode for inode in inodes}
        self.names_in = {(directory, entry): inode for directory, entry, inode in entries}
        self.layers = {layer[0]: layer for layer in layers}

    def _change(self, change: bytes, sequence: int, order: tuple[int, int]) -> None:
        version, edits = msgspec.msgpack.decode(change)
        check(version == 1, "an unknown version of a change")
        for kind, *fields in edits:
            if kind == 1:
                self.inodes[fields[0][0]] = fields[0]
            elif kind == 2:
                del self.inodes[fields[0]]
            elif kind == 3:
                self.names_in[fields[0], fields[1]] = fields[2]
            elif kind == 4:
                del self.names_in[fields[0], fields[1]]
            elif kind == 5:
                number, _, size, _ = fields[0]
                before = self.layers.get(number, fields[0])[2]
                if size < before:
                    self.events.append(Event(sequence, order, number, size, before - size))
                self.layers[number] = fields[0]
            else:
                check(kind == 6, "an unknown edit")
                del self.layers[fields[0]]

    # What a person wants

    def devices(self) -> dict[str, int]:
        """The layer of every device, by name."""
        found: dict[str, int] = {}
        folders = [("", self.names_in[1, ".nbd"])]
        while folders:
            prefix, directory = folders.pop()
            for (above, name), number in self.names_in.items():
                inode = self.inodes[number]
                if above == directory and inode[1] == 2:
                    found[prefix + name] = inode[9]
                elif above == directory and inode[1] == 1:
                    folders.append((f"{prefix}{name}/", number))
        return found

    def content(self, device: str) -> bytes:
        """All bytes of a device."""
        layer = self.devices()[device]
        data = bytearray(self.layers[layer][2])
        for event in sorted(event for event in self.events if event.layer == layer):
            end = min(event.offset + event.length, len(data))
            if event.offset < end:
                count = end - event.offset
                data[event.offset : end] = bytes(count) if event.data is None else event.data[:count]
        return bytes(data)
