"""Images of the tree and records of it that are damaged, or are not of this program."""

import msgspec
import pytest

from storage.errors import Corrupt, Unsupported
from storage.fs.metadata.device_plans import plan_rename_device
from storage.fs.metadata.file_plans import plan_mkdir
from storage.fs.metadata.inodes import (
    LayerRow,
    Link,
    PutInode,
    PutLayer,
    RemoveInode,
    RemoveLayer,
    Unlink,
)
from storage.fs.metadata.namespace import InodeKind, Namespace
from tests.storage.fs.trees import MIB, NOW, inode, made


def test_another_version_is_refused(tree: Namespace) -> None:
    with pytest.raises(Unsupported, match="version 2"):
        Namespace.decode(msgspec.msgpack.encode([2, {"anything": 1}]))
    with pytest.raises(Unsupported):
        tree.apply(msgspec.msgpack.encode([2, 7]))


@pytest.mark.parametrize("data", [b"", b"\x93", b"\x92\x01", b"\x92\x01\x90", b"\x92\x01\xc0", b"\xff" * 40])
def test_nonsense_is_corrupt(tree: Namespace, data: bytes) -> None:
    before = tree.encode()
    with pytest.raises(Corrupt):
        Namespace.decode(data)
    if data != b"\x92\x01\x90":
        with pytest.raises(Corrupt):
            tree.apply(data)
    assert tree.encode() == before


@pytest.mark.parametrize(
    "edits",
    [
        [PutInode(inode(9)), Link(1, "x", 9)],
        [PutInode(inode(4))],
        [PutInode(inode(4)), Link(1, "x", 4), Link(1, "y", 4)],
        [PutInode(inode(4)), Link(1, ".nbd", 4)],
        [PutInode(inode(4)), Link(1, "a/b", 4)],
        [PutInode(inode(4)), Link(77, "x", 4)],
        [PutInode(inode(4, InodeKind.SYMLINK)), Link(1, "x", 4)],
        [PutInode(inode(4, mode=0o10000)), Link(1, "x", 4)],
        [PutInode(inode(4, layer=1)), Link(1, "x", 4)],
        [PutInode(inode(4, target="t")), Link(1, "x", 4)],
        [PutInode(inode(4, InodeKind.DEVICE, layer=5)), Link(1, "x", 4)],
        [PutInode(inode(4)), Link(1, "x", 4), Unlink(1, "x"), RemoveInode(4)],
        [PutInode(inode(1, InodeKind.SYMLINK, target="t"))],
        [PutInode(inode(1, born=5))],
        [RemoveInode(3)],
        [RemoveInode(99)],
        [Unlink(2, "b")],
        [Unlink(99, "b")],
        [Unlink(1, ".nbd"), RemoveInode(2)],
        [PutLayer(LayerRow(7, 0, 512, False))],
        [PutLayer(LayerRow(2, 1, 512, False))],
        [PutLayer(LayerRow(2, 2, 512, False))],
        [PutLayer(LayerRow(1, 0, 513, False))],
        [PutLayer(LayerRow(1, 2, 512, False))],
        [PutLayer(LayerRow(2, 0, 512, True)), PutLayer(LayerRow(2, 0, 1024, True))],
        [RemoveLayer(8)],
    ],
)
def test_a_record_that_does_not_fit_changes_nothing(tree: Namespace, edits: list[object]) -> None:
    made(tree, "a")
    before = tree.encode()
    # A first edit that fits, so that there is something to take back.
    good = [PutInode(msgspec.structs.replace(tree.resolve("/"), mode=0o700)), RemoveLayer(1)]
    for batch in (edits, good[:1] + edits, good[:1] + edits + good[1:]):
        with pytest.raises(Corrupt):
            tree.apply(msgspec.msgpack.encode([1, batch]))
        assert tree.encode() == before
        tree.check()
    made(tree, "b")


def edited(tree: Namespace, **lists: object) -> bytes:
    """The encoded tree with some of its five parts replaced."""
    version, image = msgspec.msgpack.decode(tree.encode())
    for key, value in lists.items():
        image[["next_inode", "next_layer", "inodes", "entries", "layers"].index(key)] = value
    return msgspec.msgpack.encode([version, image])


def test_a_checkpoint_that_breaks_an_invariant_is_corrupt(tree: Namespace) -> None:
    made(tree, "a", "d/b")
    _, image = msgspec.msgpack.decode(tree.encode())
    _, _, inodes, entries, layers = image
    wrong = [
        {"next_inode": 4},
        {"next_layer": 2},
        {"inodes": inodes[1:]},
        {"inodes": inodes[:-1]},
        {"inodes": [*inodes, inodes[0]]},
        {"entries": entries[1:]},
        {"entries": entries[:-1]},
        {"entries": [*entries, [1, "z", 99]]},
        {"entries": [*entries, [1, "z", 3]]},
        {"entries": [*entries[:-1], [entries[-1][0], "x/y", entries[-1][2]]]},
        {"layers": layers[:-1]},
        {"layers": [*layers, layers[0]]},
        {"layers": [*layers, [3, 0, 512, False]], "next_layer": 4},
        {"layers": [layers[0], [2, 1, MIB, False]]},
        {"layers": [layers[0], [2, 0, MIB, True]]},
        {"layers": [layers[0], [2, 0, 100, False]]},
    ]
    for change in wrong:
        with pytest.raises(Corrupt):
            Namespace.decode(edited(tree, **change))
    assert Namespace.decode(edited(tree)).encode() == tree.encode()


def test_equal_trees_have_equal_bytes(tree: Namespace) -> None:
    made(tree, "b", "a", "d/z", "c/y")
    tree.apply(plan_rename_device(tree, "a", "e", NOW))
    tree.apply(plan_rename_device(tree, "e", "a", NOW))
    _, (_, _, inodes, entries, layers) = msgspec.msgpack.decode(tree.encode())
    assert [inodes, entries, layers] == [sorted(inodes), sorted(entries), sorted(layers)]


def test_directories_in_a_ring_are_corrupt(tree: Namespace) -> None:
    tree.apply(plan_mkdir(tree, "/a", NOW))
    tree.apply(plan_mkdir(tree, "/a/b", NOW))
    _, image = msgspec.msgpack.decode(tree.encode())
    a, b = 3, 4
    entries = [[1, ".nbd", 2], [a, "b", b], [b, "a", a]]
    with pytest.raises(Corrupt, match="hang from the root"):
        Namespace.decode(edited(tree, entries=entries))
    assert image[3] != entries
