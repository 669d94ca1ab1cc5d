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

import msgspec
from argon2.low_level import Type, hash_secret_raw

from tests.support.format_blocks import ALL, BLOCK, BlockReader, Frame
from tests.support.format_sealed import check, hkdf, open_sealed, ulid_text, unpack

MANIFEST, WAL, FENCE, TREE = 2, 3, 4, 6
ZEROS = bytes(16)


@dataclass(order=True)
class Event:
    """What the log says happened to bytes of a layer: `data` at `offset`, or zeros. Of one sequence by `place`."""

    sequence: int
    place: int
    layer: int = field(compare=False)
    offset: int = field(compare=False)
    length: int = field(compare=False)
    data: bytes | None = field(compare=False, default=None)


class FormatReader(BlockReader):
    """A store in `folder`, opened with its password."""

    def __init__(self, folder: Path, password: bytes) -> None:
        super().__init__(folder)
        self.names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        self.keys_number, self.store_id, self.data_keys = self._open_keys(password)
        self.manifest_number = self._highest("manifest/")
        header, body, self.manifest_tag = self._open_object(
            f"manifest/{self.manifest_number:020}.manifest", "manifest", (MANIFEST,), self.manifest_number
        )
        defaults: list[Any] = [None] * 7 + [[], None, [], [], 0, None, [], [], [], b"", 0]
        given: list[Any] = msgspec.msgpack.decode(body)
        self.manifest = given + defaults[len(given) :]
        self.epoch, self.takeover, self.closed, self.replay, replay_tag, _, self.sequence = self.manifest[:7]
        check(header[4] == self.epoch, "manifest and header differ in their epoch")
        check(self.manifest[11] <= self.keys_number, "an old keys object was put back")
        self.manifest_key = header[3]
        self._check_key_of_manifest()
        self.inodes: dict[int, list[Any]] = {
            1: [1, 1, 0o755, 0, 0, 0, 0, 0, 0, 0, ""],
            2: [2, 1, 0o755, 0, 0, 0, 0, 0, 0, 0, ""],
        }
        self.names_in: dict[tuple[int, str], int] = {(1, ".nbd"): 2}
        self.layers: dict[int, list[Any]] = {}
        self.events: list[Event] = []
        self.records: dict[str, int] = {}
        """How many of each type and flags of record the log adds to the SSTs: for tests to see that all occur."""
        self.origins: dict[int, int] = {}
        """By layer that a change in the log made: that which it begins with."""
        self._read_blocks(
            checkpoint=self.manifest[12],
            gone=self.manifest[13],
            ssts=self.manifest[7],
            operations=self.manifest[14],
        )
        if self.manifest[8] is not None:
            self._read_tree(self.manifest[8])
        self._replay(replay_tag)
        self._check_copies()

    def _check_key_of_manifest(self) -> None:
        """Manifests from before it that open are of no newer key."""
        for name in self.names:
            if name.startswith("manifest/") and self._read(name)[11] in self.data_keys:
                header, body, _ = self._open_object(name, "manifest", (MANIFEST,), int(name[9:29]))
                takeover = msgspec.msgpack.decode(body)[10][-1:] == [int(name[9:29])]
                if takeover and f"spare/{name[9:]}" not in self.names:
                    continue  # it may have lost
                check(header[3] <= self.manifest_key, "the newest manifest is under an older key")

    def _check_copies(self) -> None:
        """The copy of the newest of a kind is the same bytes, and there is none of a higher number."""
        for folder, suffix in ("keys", ".keys"), ("manifest", ".manifest"):
            newest = self._highest(f"{folder}/")
            copies = [name for name in self.names if name.startswith("spare/") and name.endswith(suffix)]
            check(all(int(name[6:26]) <= newest for name in copies), "a copy is newer than what it is a copy of")
            if (copy := f"spare/{newest:020}{suffix}") in copies:
                check(self._read(copy) == self._read(f"{folder}/{newest:020}{suffix}"), "a copy differs")

    def _highest(self, prefix: str) -> int:
        return max(int(name[len(prefix) :][:20]) for name in self.names if name.startswith(prefix))

    # 3: keys

    def _open_keys(self, password: bytes) -> tuple[int, bytes, dict[int, bytes]]:
        number = self._highest("keys/")
        raw = self._read(f"keys/{number:020}.keys")
        check(hashlib.sha256(raw[:-32]).digest() == raw[-32:], "the keys object has the wrong checksum")
        magic, version, kind, store_id, own, slots = struct.unpack_from("<8sHB16sQB", raw)
        check((magic, version, kind, own) == (b"NBDSTORE", 1, 1, number), "not the keys object of its name")
        ring = raw[36 + slots * 212 : -64] or b"\1\0"
        newest, older = ring[:2]
        check(len(raw) >= 36 + slots * 212 + 64, "the keys object has the wrong length")
        check(len(ring) == 2 + older * 73, "the keys object has the wrong length")
        for at in range(36, 36 + slots * 212, 212):
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
            associated += bytes([newest]) if newest > 1 else b""
            key = open_sealed(both[32:], sealed, associated, None)
            seal = hmac.digest(hkdf(key, store_id, b"nbdserver 1 keys object"), raw[:-64], "sha256")
            check(hmac.compare_digest(seal, raw[-64:-32]), "the keys object was altered")
            keys, ring_key = {newest: key}, hkdf(key, store_id, b"nbdserver 1 older keys")
            for place in range(2, len(ring), 73):
                bound = b"nbdserver older key" + struct.pack("<H16sBB", 1, store_id, newest, ring[place])
                keys[ring[place]] = open_sealed(ring_key, ring[place + 1 : place + 73], bound, None)
            check(len(keys) == older + 1 and max(keys) == newest, "the data keys have impossible ids")
            return number, store_id, keys
        raise ValueError("no slot opens with this password")

    # 4: header and body

    def _open_object(
        self, name: str, purpose: str, kinds: tuple[int, ...], number: int
    ) -> tuple[tuple[Any, ...], bytes, bytes]:
        raw = self._read(name)
        header = self._header(raw, kinds, number)
        at, body, sealed = 96, b"", b""
        for part in range(header[11]):
            (length,) = struct.unpack_from("<I", raw, at)
            sealed = raw[at + 4 : at + 4 + length]
            plain = open_sealed(
                self._key(header[3], purpose), sealed, raw[:96] + struct.pack("<I", part), header[6], part
            )
            codec, size = struct.unpack_from("<BI", plain)
            check(size <= BLOCK, "a part is too large")
            body += unpack(codec, plain[5:], size)
            at += 4 + length
        check(header[11] > 0 and at == len(raw), "an object does not end with its last part")
        return header, body, sealed[-16:]

    # 6: the log

    def _replay(self, tag: bytes) -> None:
        found: list[tuple[int, int, Any]] = []
        number, epoch, key, known = self.replay, 0, 0, self.manifest[5]
        while f"wal/{number:020}.sst" in self.names:
            name = f"wal/{number:020}.sst"
            header, body, own_tag = self._open_object(name, "wal", (WAL, FENCE), number)
            check(header[4] >= epoch, "the log goes back to an earlier epoch")
            if self.manifest[17] is not None and number >= self.manifest[17]:
                key = max(key, self.manifest_key)
            check(header[3] >= key, "the log goes back to an older key")
            epoch, key = header[4], header[3]
            known = max(known, header[9])
            if header[2] == FENCE:
                check(struct.unpack("<Q", body)[0] == number + 16, "a fence that resumes elsewhere")
                number, tag = number + 16, ZEROS
                continue
            check(header[8] == tag, "a WAL object does not follow the one before it")
            found += self._records(body, header[3])
            number, tag = number + 1, own_tag
        check(known < number, "the log ends below an acknowledged number")
        found.sort(key=lambda record: record[0])
        for place, (sequence, layer, act) in enumerate(found):
            if sequence > self.sequence:
                act(sequence, layer, place)

    def _records(self, body: bytes, key_id: int) -> Iterator[tuple[int, int, Any]]:
        at = 0
        tables: dict[bytes, tuple[Any, ...]] = {}
        while at < len(body):
            kind, flags, layer, sequence, offset, length = struct.unpack_from("<BBIQQQ", body, at)
            at += 30
            check(kind in (1, 2, 3, 4, 5), "an unknown type of record")
            payload = body[at : at + {1: length, 2: 0, 3: length, 4: 48, 5: 41}[kind]]
            at += len(payload)
            if sequence > self.sequence:
                self.records[f"{kind}/{flags}"] = self.records.get(f"{kind}/{flags}", 0) + 1
            if kind == 1:
                yield sequence, layer, self._later(offset, length, payload)
            elif kind == 2:
                yield sequence, layer, self._later(offset, length, None)
            elif kind == 3:
                yield sequence, layer, lambda seq, _, place, change=payload: self._change(change, seq, place)
            elif kind == 4:
                ulid, size, index_offset, tag, rows = struct.unpack("<16sQI16sI", payload)
                tables[ulid] = (ulid_text(ulid), size, index_offset, tag, rows, key_id)
            elif sequence > self.sequence:
                ulid, entry_kind, mask, place, frame_length, tag_start = struct.unpack("<16sBQIIQ", payload)
                check(entry_kind == 1 and mask == ALL, "a locator of less than a block")
                entries = self._sst(tables[ulid]).entries
                check(
                    any(e[:2] == (layer, offset) and e[4] == sequence for e in entries), "a locator without its entry"
                )
                whole = self._frame(Frame(tables[ulid], place, frame_length, tag_start, offset, 1))
                yield sequence, layer, self._later(offset * BLOCK, BLOCK, whole[8:])

    def _later(self, offset: int, length: int, data: bytes | None) -> Any:
        return lambda sequence, layer, place: self.events.append(Event(sequence, place, layer, offset, length, data))

    # 10: the tree of names

    def _read_tree(self, reference: list[Any]) -> None:
        name = f"compacted/{reference[0]}.sst"
        header, body, tag = self._open_object(name, "tree", (TREE,), 0)
        check((tag, header[3]) == (reference[3], reference[5]), "not the tree that the manifest means")
        check(ulid_text(header[8]) == reference[0], "not the tree of that name")
        version, (_, _, inodes, entries, layers) = msgspec.msgpack.decode(body)
        check(version == 1, "an unknown version of the tree")
        self.inodes = {inode[0]: inode for inode in inodes}
        self.names_in = {(directory, entry): inode for directory, entry, inode in entries}
        self.layers = {layer[0]: layer for layer in layers}

    def _change(self, change: bytes, sequence: int, place: int) -> None:
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
                number, _, size = fields[0][:3]
                before = self.layers.get(number, fields[0])[2]
                if size < before:
                    self.events.append(Event(sequence, place, number, size, before - size))
                self.layers[number] = fields[0]
            elif kind == 6:
                del self.layers[fields[0]]
            else:
                check(kind in (7, 8, 9, 10), "an unknown edit")
                self._on_trunk(kind, *fields)

    def _on_trunk(self, kind: int, *fields: Any) -> None:
        """An edit that concerns snapshots."""
        if kind == 10:
            gone = self.layers.pop(fields[0])
            for layer in self.layers.values():
                layer[1] = gone[1] if layer[1] == gone[0] else layer[1]
        elif kind == 8:
            self.layers[fields[1]] = [fields[1], 0, self.layers[fields[0]][2], False]
            self.origins[fields[1]] = fields[0]
        else:
            inode = self.inodes[fields[0]] = list(self.inodes[fields[0]])
            head = inode[9]
            if kind == 7:
                _, child, name, born, identity, *rest = fields
                self.layers[child] = [child, head, self.layers[head][2], False]
                self.layers[head] = [*self.layers[head][:3], True, name, born, (rest or [0])[0], identity, *rest[1:]]
                self.origins[child] = head
            else:
                _, snapshot, child = fields
                self.layers[child] = [child, self.layers.pop(head)[1], self.layers[snapshot][2], False]
                self.origins[child] = snapshot
            inode[9] = child

    # What a person wants

    def devices(self) -> dict[str, int]:
        """The layer of every device and snapshot, by name."""
        found: dict[str, int] = {}
        folders = [("", self.names_in[1, ".nbd"])]
        while folders:
            prefix, directory = folders.pop()
            for (above, name), number in self.names_in.items():
                inode = self.inodes[number]
                if above == directory and inode[1] == 2:
                    found[prefix + name] = older = inode[9]
                    while older := self.layers[older][1]:
                        found[f"{prefix}{name}@{self.layers[older][4]}"] = older
                elif above == directory and inode[1] == 1:
                    folders.append((f"{prefix}{name}/", number))
        return found

    def content(self, device: str) -> bytes:
        """All bytes of a device or snapshot."""
        layer = self.devices()[device]
        return self._content(layer, self.layers[layer][2])

    def _content(self, layer: int, size: int) -> bytes:
        if layer in self.origins:
            data = bytearray(self._content(self.origins[layer], size))
        else:
            data = bytearray(size)
            self._flushed(layer, data)
        for event in sorted(event for event in self.events if event.layer == layer):
            end = min(event.offset + event.length, len(data))
            if event.offset < end:
                count = end - event.offset
                data[event.offset : end] = bytes(count) if event.data is None else event.data[:count]
        return bytes(data)
