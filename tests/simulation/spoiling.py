"""One object of a copy is damaged, gone, or unreadable for good, and the copy is opened: which must be refused then,
by the name of that object, and which must open and show everything.

What an opening needs is found here from the format alone: the newest manifest, the log behind it up to its first free
number, and the checkpoint, the tree and the indexes that the manifest names. One of these spoiled: the opening is
refused with an error of that damage, which names the object, and nothing is written. Anything else spoiled (an older
manifest, a fence that the log has left behind, what nothing names): the opening notices nothing.

Where an object is gone, what is left may be an older state of the store, whole by itself: the end of a log that nothing
else speaks of, the newest manifest. Then the opening is refused, or shows a state that there was.

The newest manifest has a copy, unless its writer has only just committed it. With that, damage and loss of the
manifest, or that it cannot be read, are noticed by nobody: the opening shows everything. Half of the time the copy is
gone too.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from storage.errors import AccessDenied, Corrupt, StorageError, Unavailable, Unsupported
from storage.format.blocks import SstRef
from storage.format.envelope import HEADER_BYTES, Header, ObjectKind, decode_header, open_object
from storage.format.manifest import Manifest, decode
from storage.format.names import (
    MANIFESTS,
    WALS,
    manifest_name,
    manifest_number,
    spare_manifest_name,
    sst_name,
    wal_name,
    wal_number,
)
from storage.format.wal import WINDOW
from storage.lsm.recovery.derived_ciphers import Ciphers
from tests.simulation.disk_history import Violation
from tests.simulation.keyring import KEY, keys_in

NOT_NEEDED = "what is not needed"

SPOILED = ("log", "manifest", "checkpoint", "tree", "index", NOT_NEEDED)
"""What an object is to the opening that it is spoiled for. Of what is not needed objects of the log and manifests:
whether a data SST opens is another matter (`damage`)."""

WAYS = ("flip", "missing", "unreadable")

KINDS = (ObjectKind.WAL, ObjectKind.FENCE)


@dataclass(frozen=True)
class Spoiled:
    """Objects of a store of which one is spoiled."""

    part: str
    way: str
    name: str
    objects: dict[str, bytes]
    unreadable: dict[str, StorageError]
    must_refuse: bool
    may_be_older: bool

    def __str__(self) -> str:
        return f"{self.part} {self.name}, {self.way}"

    def judge_refusal(self, error: StorageError) -> None:
        """Violation: this is not how such an opening is to be refused."""
        named = self.name in str(error)
        if self.way == "unreadable":
            well = named and isinstance(error, Unavailable | AccessDenied)
        elif self.way == "missing" and self.part in ("log", "manifest"):
            # What gives it away may be something else that speaks of it.
            well = isinstance(error, Corrupt)
        else:
            # A header may say another version than it did.
            well = named and isinstance(error, Corrupt | Unsupported)
        if not well or not (self.must_refuse or self.may_be_older):
            raise Violation(f"a store with {self} is refused with {type(error).__name__}: {error}")


@dataclass(frozen=True)
class Needed:
    """What the opening of a store needs beside its data."""

    manifest: Manifest
    newest: int
    parts: dict[str, list[str]]
    """The names of the objects of each part."""


def needed_in(objects: Mapping[str, bytes]) -> Needed | None:
    """None: there is no manifest yet."""
    numbers = [number for name in objects if (number := manifest_number(name)) is not None]
    if not numbers:
        return None
    newest = max(numbers)
    manifest = _manifest(objects, newest)
    refs = {"checkpoint": manifest.checkpoint, "tree": manifest.tree}
    parts = {
        "log": _log(objects, manifest),
        "manifest": [manifest_name(newest)],
        "index": sorted(sst_name(ref.id) for ref in manifest.ssts),
        **{part: [] if ref is None else [sst_name(ref.id)] for part, ref in refs.items()},
    }
    return Needed(manifest, newest, parts)


def strikeable(objects: Mapping[str, bytes], way: str, part: str, *, newest: int, confirmed: int) -> list[str]:
    """The objects of a part that may be struck below a writer that serves, whose manifest has the number `newest`, and
    which knows of the log up to number `confirmed`: what it has confirmed to be there it does not ask for again.
    """
    needed = needed_in(objects)
    if needed is None or needed.newest != newest:
        return []
    if part != "log":
        return needed.parts[part]
    names = [name for name in needed.parts[part] if (wal_number(name) or 0) <= confirmed]
    if way != "missing":
        return names
    # A fence that is gone keeps nobody out; and the end of a log may go unnoticed where nothing speaks of it.
    known = [name for name in names if _is_known(objects, needed.manifest, name)]
    return [name for name in known if _header(objects, name).kind is ObjectKind.WAL]


def spoil(objects: Mapping[str, bytes], chance: random.Random) -> Spoiled | None:
    """Spoil one object; None: there is no manifest yet."""
    needed = needed_in(objects)
    if needed is None:
        return None
    manifest, parts = needed.manifest, dict(needed.parts)
    read = {name for names in parts.values() for name in names} | _beyond(objects, parts["log"], manifest)
    parts[NOT_NEEDED] = sorted(name for name in objects if name not in read and name.startswith((MANIFESTS, WALS)))
    part = chance.choice([part for part in SPOILED if parts[part]])
    name = chance.choice(parts[part])
    way = "flip" if part == "index" else chance.choice(WAYS)
    changed, unreadable = dict(objects), dict[str, StorageError]()
    if way == "flip":
        changed[name] = _flipped(objects[name], chance, {sst_name(ref.id): ref for ref in manifest.ssts}.get(name))
    elif way == "missing":
        del changed[name]
    else:
        unreadable[name] = chance.choice([Unavailable(f"{name}: a sector is bad"), AccessDenied(f"{name} is archived")])
    copy = spare_manifest_name(needed.newest)
    if part == "manifest" and copy in objects:
        if chance.random() < 0.5:
            return Spoiled(part, f"{way}, with its copy", name, changed, unreadable, False, False)
        del changed[copy]
    older = way == "missing" and (part == "manifest" or (part == "log" and not _is_known(objects, manifest, name)))
    return Spoiled(part, way, name, changed, unreadable, part != NOT_NEEDED and not older, older)


def _manifest(objects: Mapping[str, bytes], number: int) -> Manifest:
    key, _ = keys_in(objects)
    cipher, name, kinds = Ciphers.derive(key).manifest, manifest_name(number), (ObjectKind.MANIFEST,)
    _, body, _ = open_object(cipher, name, objects[name], store_id=KEY.store_id, kinds=kinds, number=number)
    return decode(name, body)


def _log(objects: Mapping[str, bytes], manifest: Manifest) -> list[str]:
    """The log from where it is replayed to its first free number."""
    number, found = manifest.replay, []
    while (name := wal_name(number)) in objects:
        found.append(name)
        number += WINDOW if _header(objects, name).kind is ObjectKind.FENCE else 1
    return found


def _header(objects: Mapping[str, bytes], name: str) -> Header:
    return decode_header(name, objects[name][:HEADER_BYTES], store_id=KEY.store_id, kinds=KINDS)


def _beyond(objects: Mapping[str, bytes], log: list[str], manifest: Manifest) -> set[str]:
    """Objects beyond the end of the log, which say how far it was acknowledged."""
    last = max(manifest.replay - 1, *(wal_number(name) or 0 for name in log)) if log else manifest.replay - 1
    return {name for name in objects if (wal_number(name) or 0) > last}


def _is_known(objects: Mapping[str, bytes], manifest: Manifest, name: str) -> bool:
    """Whether anything that an opening reads says that this object of the log was acknowledged once."""
    number = wal_number(name) or 0
    known = manifest.acknowledged
    for other in objects:
        at = wal_number(other) or 0
        if at < manifest.replay or at == number:
            continue
        header = _header(objects, other)
        # A fence was put where its writer found the log to end, and nobody has 16 numbers on their way.
        tells = at if header.kind is ObjectKind.FENCE or at >= number + WINDOW else header.acknowledged
        known = max(known, tells)
    return known >= number


def _flipped(content: bytes, chance: random.Random, table: SstRef | None) -> bytes:
    """A bit of what is sealed is another one; of an SST that is of the index."""
    changed = bytearray(content)
    begin = HEADER_BYTES if table is None else table.index_offset
    changed[chance.randrange(begin, len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)
