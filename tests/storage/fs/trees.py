"""Trees of names for tests."""

import msgspec

from storage.format.trunks import MakeLayer
from storage.fs.metadata.device_plans import plan_create_device
from storage.fs.metadata.inodes import (
    Inode,
)
from storage.fs.metadata.namespace import InodeKind, Namespace

MIB = 1024 * 1024
NOW = 1_700_000_000.25


def made(tree: Namespace, *names: str, size: int = MIB) -> Namespace:
    for name in names:
        (made,) = tree.apply(plan_create_device(tree, name, size, NOW))
        assert isinstance(made, MakeLayer)
    return tree


def names(tree: Namespace) -> list[str]:
    found = [name for name, _ in tree.devices()]
    assert tree.names() == tuple(found)
    assert tree.names() is tree.names()
    return found


def inode(number: int, kind: InodeKind = InodeKind.DIRECTORY, **fields: object) -> Inode:
    return msgspec.structs.replace(Inode(number, kind, 0o755, 0, 0, 0, 0, 0, 0), **fields)
