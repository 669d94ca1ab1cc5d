"""This file knows the names of objects in the bucket, and nothing else does."""

from storage.errors import Corrupt

MANIFESTS = "manifest/"
WALS = "wal/"
TABLES = "compacted/"
KEYS = "keys/"

_DIGITS = 20


def manifest_name(number: int) -> str:
    return f"{MANIFESTS}{number:0{_DIGITS}}.manifest"


def wal_name(number: int) -> str:
    return f"{WALS}{number:0{_DIGITS}}.sst"


def table_name(ulid: str) -> str:
    return f"{TABLES}{ulid}.sst"


def number_of(name: str) -> int:
    """The number in a manifest's or WAL object's name; Corrupt for a name no writer of ours gives."""
    stem = name.rpartition("/")[2].partition(".")[0]
    if len(stem) != _DIGITS or not stem.isdecimal():
        raise Corrupt(name, "its name is not one this program gives; remove it if it does not belong here")
    return int(stem)


def ulid_of(name: str) -> str:
    """The ULID in the name of an object under `compacted/`."""
    return name.rpartition("/")[2].partition(".")[0]
