"""The anatomy of one object: what it says, as a document, once it was opened and found to be what it claims. No I/O.

For people who look into a store by hand, and for programs; docs/format.md says what each field means. What data is
written stays out of it: of a record or a frame only where it belongs and how long it is.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from storage.crypto import keyslots
from storage.crypto.cipher import Cipher
from storage.crypto.data_key import DataKey
from storage.crypto.spare_keys import spare_keys_number
from storage.errors import Invalid
from storage.format import checkpoint, manifest, sst, wal
from storage.format.blocks import SstRef
from storage.format.columns import Columns
from storage.format.envelope import Header, ObjectKind, decode_header, open_object
from storage.format.names import (
    attached_numbers,
    manifest_number,
    sign_epoch,
    spare_manifest_number,
    sst_id,
    wal_number,
)
from storage.format.sign import WRITER_PURPOSE, Sign
from storage.lsm.recovery.derived_ciphers import Ciphers

Document = dict[str, Any]

ALL_KINDS = tuple(ObjectKind)
NAMES = (manifest_number, spare_manifest_number, wal_number, sst_id, sign_epoch, attached_numbers)
"""What reads the names that objects have."""


def anatomy(name: str, raw: bytes, key: DataKey, *, records: bool) -> Document:
    """What the object `name` says. `records`: also each record of a log object, each entry of an SST, each part of a
    checkpoint. Corrupt: it is not what it should be. Invalid: no object of a store has such a name.
    """
    if name.startswith("keys/") or spare_keys_number(name) is not None:
        return _keys(name, raw, key)
    if all(read(name) is None for read in NAMES):
        raise Invalid(f"{name!r} is not the name of an object of a store, such as wal/{1:020d}.sst")
    header = decode_header(name, raw, store_id=key.store_id, kinds=ALL_KINDS)
    ciphers = Ciphers.derive(key)
    found = {"object": name, "bytes": len(raw), **_header(header)}
    if header.kind is ObjectKind.DATA:
        return found | _sst(name, raw, header, ciphers, records=records)
    if header.kind is ObjectKind.CHECKPOINT:
        return found | _checkpoint(name, raw, header, ciphers, records=records)
    if header.kind is ObjectKind.MANIFEST:
        body = _body(name, raw, header, ciphers.manifest)
        return found | {"manifest": _plain(msgspec.structs.asdict(manifest.decode(name, body)))}
    if header.kind is ObjectKind.METADATA:
        return found | {"image_bytes": len(_body(name, raw, header, ciphers.tree))}
    if header.kind in (ObjectKind.SIGN, ObjectKind.ATTACHED):
        return found | _of_writer(header, _body(name, raw, header, key.cipher(WRITER_PURPOSE)))
    body = _body(name, raw, header, ciphers.wal)
    if header.kind is ObjectKind.FENCE:
        return found | {"goes_on_at": int.from_bytes(body, "little")}
    return found | _log(name, body, records=records)


def _body(name: str, raw: bytes, header: Header, cipher: Cipher) -> bytes:
    store_id, number = header.store_id, header.number
    return open_object(cipher, name, raw, store_id=store_id, kinds=(header.kind,), number=number)[1]


def _of_writer(header: Header, body: bytes) -> Document:
    if header.kind is ObjectKind.ATTACHED:
        return {"attached": msgspec.json.decode(body)}
    sign = msgspec.msgpack.decode(body, type=Sign)
    return {
        "count": sign.count,
        "manifest": sign.manifest,
        "lease_seconds": sign.lease_seconds,
        "word": sign.word.name.lower(),
    }


def _header(header: Header) -> Document:
    return {
        "kind": header.kind.name.lower(),
        "epoch": header.epoch,
        "store_id": header.store_id.hex(),
        "number": header.number,
        "link": header.link.hex(),
        "acknowledged": header.acknowledged,
    }


def _keys(name: str, raw: bytes, key: DataKey) -> Document:
    digits = name.removeprefix("keys/").removeprefix("spare/").removesuffix(".keys")
    if not digits.isdigit() or keyslots.keys_name(int(digits)).partition("/")[2] != name.partition("/")[2]:
        raise Invalid(f"{name!r} is not the name of a keys object, such as {keyslots.keys_name(1)}")
    content = keyslots.decode(raw, int(digits), keyslots.MEMORY_KIB_MIN)
    return {
        "object": name,
        "bytes": len(raw),
        "kind": "keys",
        "store_id": content.store_id.hex(),
        "number": content.number,
        "sealed_by_this_store": keyslots.seal_fits(content, key),
        "slots": [
            {
                "slot": slot.number,
                "label": keyslots.label_of(slot, key),
                "created": slot.created,
                "memory_kib": slot.cost.memory_kib,
                "passes": slot.cost.passes,
                "lanes": slot.cost.lanes,
            }
            for slot in content.slots
        ],
    }


def _log(name: str, body: bytes, *, records: bool) -> Document:
    found = [_record(layer, record) for layer, record in wal.decode(name, body)]
    counts = Counter((each["layer"], each["type"]) for each in found)
    by_layer = [{"layer": layer, "type": kind, "records": count} for (layer, kind), count in sorted(counts.items())]
    return {"layers": by_layer, **({"records": found} if records else {})}


def _record(layer: int, record: Any) -> Document:
    if isinstance(record, wal.Meta):
        return {"layer": layer, "type": "meta", "sequence": record.sequence, "length": len(record.record)}
    if isinstance(record, wal.Uploaded):
        return {"layer": layer, "type": "table", "sequence": record.sequence, "sst": record.sst.id}
    if isinstance(record, wal.Located):
        entry = record.entry
        place = {"block": entry.block, "sst": record.sst, "offset": entry.offset, "length": entry.length}
        return {"layer": layer, "type": "locator", "sequence": entry.sequence, **place}
    sequence, offset, rest = record[0], record[1], record[2]
    if len(record) == 3:
        return {"layer": layer, "type": "write", "sequence": sequence, "offset": offset, "length": len(rest)}
    kind = "zero_allocated" if record[3] else "zero"
    return {"layer": layer, "type": kind, "sequence": sequence, "offset": offset, "length": rest}


def _named(raw: bytes, name: str, header: Header) -> SstRef:
    """What would name this object, if its end is whole."""
    return SstRef(sst_id(name) or "", len(raw), header.index_offset, raw[-16:], 0, header.key_id)


def _sst(name: str, raw: bytes, header: Header, ciphers: Ciphers, *, records: bool) -> Document:
    index = sst.open_index(
        ciphers.index, _named(raw, name, header), raw[header.index_offset :], store_id=header.store_id
    )
    layers = Counter(index.entries["layer"].tolist())
    found: Document = {
        "index_offset": header.index_offset,
        "entries": len(index.entries["layer"]),
        "ranges": len(index.ranges["layer"]),
        "victims": index.victims,
        "moved": len(index.moved["victim"]),
        "layers": [{"layer": layer, "entries": count} for layer, count in sorted(layers.items())],
    }
    if records:
        found |= {"records": list(_rows(index.entries)), "zero_ranges": list(_rows(index.ranges))}
    return found


def _checkpoint(name: str, raw: bytes, header: Header, ciphers: Ciphers, *, records: bool) -> Document:
    _, trailer = checkpoint.open_trailer(
        ciphers.checkpoint, _named(raw, name, header), raw[header.index_offset :], store_id=header.store_id
    )
    rows: Counter[tuple[int, str]] = Counter()
    for part in trailer.parts:
        rows[part.layer, checkpoint.PartKind(part.kind).name.lower()] += part.rows
    found: Document = {
        "sequence": trailer.sequence,
        "ssts": [each.id for each in trailer.ssts],
        "trunks": _plain(msgspec.to_builtins(trailer.trunks)),
        "layers": [{"layer": layer, "kind": kind, "rows": count} for (layer, kind), count in sorted(rows.items())],
    }
    return found | ({"parts": _plain([msgspec.structs.asdict(part) for part in trailer.parts])} if records else {})


def _rows(columns: Columns) -> Iterator[Document]:
    """Columns as rows."""
    names = list(columns)
    for values in zip(*(columns[name].tolist() for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def _plain(value: Any) -> Any:
    """The same in what JSON has: bytes as hexadecimal digits, structures as what they hold."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, msgspec.Struct):
        return _plain(msgspec.structs.asdict(value))
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
