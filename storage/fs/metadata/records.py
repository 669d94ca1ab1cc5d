"""Records of the tree of names as bytes, and the inodes that they put. No I/O."""

import msgspec

from storage.errors import Invalid, Unsupported
from storage.fs.metadata.inodes import Edit, Inode, InodeKind, check_attributes

TREE_VERSION = 1

SECONDS_BOUND = 2**63 / 1e9
"""Times are 64-bit integers of nanoseconds, as in `check_attributes`."""


def new_inode(
    number: int, kind: InodeKind, mode: int, uid: int, gid: int, now: float, *, layer: int = 0, target: str = ""
) -> Inode:
    """An inode whose times are all `now`; Invalid if its attributes are."""
    stamp = nanoseconds(now)
    inode = Inode(number, kind, mode, uid, gid, stamp, stamp, stamp, stamp, layer, target)
    check_attributes(inode)
    return inode


def nanoseconds(seconds: float) -> int:
    """Seconds since 1970 as they are kept, to the microsecond. Invalid: no such time can be kept."""
    if not abs(seconds) < SECONDS_BOUND:  # of what is no number neither is true
        raise Invalid(f"{seconds!r} seconds since 1970 is no time that can be kept: that ends in the year 2262")
    return round(seconds * 1_000_000) * 1000


def encode_edits(edits: list[Edit]) -> bytes:
    """MessagePack `[version, [[tag, field, ...], ...]]`, the edits in the order they are applied. Invalid: a number
    does not fit in 64 bits.
    """
    try:
        return msgspec.msgpack.encode((TREE_VERSION, edits))
    except OverflowError as error:
        raise Invalid("a number in this change of the names does not fit in 64 bits") from error


def versioned_body(data: bytes) -> msgspec.Raw:
    """What follows the version; Unsupported for another one. MsgspecError: not even that."""
    version, body = msgspec.msgpack.decode(data, type=tuple[int, msgspec.Raw])
    if version != TREE_VERSION:
        raise Unsupported(f"the metadata tree has format version {version}; this program knows {TREE_VERSION}")
    return body
