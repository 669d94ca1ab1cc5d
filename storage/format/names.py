"""The names of objects in the bucket: how they are given, and which names are ours. Nothing else
knows them; those of the keys, which are read before anything else can be, are in `storage.crypto.keyslots`.

A name is ours only if it is exactly one that this program gives. Folders collect other things: what an interrupted copy
left (`....manifest.1a2b3c.partial`), what a desktop or a network file system puts everywhere (`Thumbs.db`, `.nfs...`).
Those count as nothing: they are no object, no number, no sign of another writer, and nobody's to delete.
"""

import re

MANIFESTS = "manifest/"
WALS = "wal/"
TABLES = "compacted/"
WRITERS = "writer/"
SPARES = "spare/"

_DIGITS = 20
_NUMBER_MAX = 2**64 - 1
_EPOCH_MAX = 2**32 - 1

_ATTACHED_MAX = 2**63 - 1
ATTACHED_ROOM_MAX = 2**62
"""Behind a record of clients with this number there is room for all that writers will ever keep. A higher one no writer
has given; above `_ATTACHED_MAX` nothing is a record. So none has a number behind which the next would not be seen.
"""

_MANIFEST = re.compile(r"manifest/([0-9]{20})\.manifest")
_SPARE_MANIFEST = re.compile(r"spare/([0-9]{20})\.manifest")
_WAL = re.compile(r"wal/([0-9]{20})\.sst")
_SIGN = re.compile(r"writer/([0-9]{10})\.sign")
_ATTACHED = re.compile(r"writer/([0-9]{10})-([0-9]{20})\.attached")
_TABLE = re.compile(r"compacted/([0-7][0-9A-HJKMNP-TV-Z]{25})\.sst")


def manifest_name(number: int) -> str:
    """The object of manifest `number`, from 1."""
    return f"{MANIFESTS}{number:0{_DIGITS}}.manifest"


def spare_manifest_name(number: int) -> str:
    """The copy of manifest `number`."""
    return f"{SPARES}{number:0{_DIGITS}}.manifest"


def wal_name(number: int) -> str:
    """The object of the log with that number, from 1."""
    return f"{WALS}{number:0{_DIGITS}}.sst"


def sst_name(ulid: str) -> str:
    """The object of an SST, a checkpoint or an image of the tree, by its ULID."""
    return f"{TABLES}{ulid}.sst"


def sign_name(epoch: int) -> str:
    """The sign of life of the writer of `epoch`: the one object that is written over."""
    return f"{WRITERS}{epoch:010}.sign"


def attached_name(epoch: int, number: int) -> str:
    """The record of that number of who is attached to the writer of `epoch`, from 1."""
    return f"{WRITERS}{epoch:010}-{number:0{_DIGITS}}.attached"


def manifest_number(name: str) -> int | None:
    """The number of the manifest with this name; None for a name that is none of ours."""
    return _number(_MANIFEST, name)


def spare_manifest_number(name: str) -> int | None:
    """The number of the manifest whose copy has this name; None for a name that is none of ours."""
    return _number(_SPARE_MANIFEST, name)


def wal_number(name: str) -> int | None:
    """The number of the WAL object with this name; None for a name that is none of ours."""
    return _number(_WAL, name)


def sst_id(name: str) -> str | None:
    """The ULID of the object with this name under `compacted/`; None for a name that is none of ours."""
    match = _TABLE.fullmatch(name)
    return match[1] if match else None


def sign_epoch(name: str) -> int | None:
    """Whose sign of life has this name; None for a name that is none of ours."""
    match = _SIGN.fullmatch(name)
    return int(match[1]) if match and int(match[1]) <= _EPOCH_MAX else None


def attached_numbers(name: str) -> tuple[int, int] | None:
    """Epoch and number of the record of clients with this name; None for a name that is none of ours."""
    match = _ATTACHED.fullmatch(name)
    if match is None:
        return None
    epoch, number = int(match[1]), int(match[2])
    return (epoch, number) if epoch <= _EPOCH_MAX and 1 <= number <= _ATTACHED_MAX else None


def _number(pattern: re.Pattern[str], name: str) -> int | None:
    match = pattern.fullmatch(name)
    return int(match[1]) if match and 1 <= int(match[1]) <= _NUMBER_MAX else None
