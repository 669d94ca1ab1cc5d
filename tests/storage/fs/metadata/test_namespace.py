"""The metadata tree against a plain model, and every rule for names by itself."""

import pytest

from storage.errors import AlreadyExists, Conflict, Invalid, NotFound, StorageError
from storage.format.trunks import DropLayer
from storage.fs.metadata.device_plans import (
    plan_create_device,
    plan_delete_device,
    plan_rename_device,
    plan_resize_device,
)
from storage.fs.metadata.file_plans import plan_attributes, plan_mkdir, plan_remove, plan_symlink
from storage.fs.metadata.inodes import (
    SIZE_BYTES_MAX,
    LayerRow,
)
from storage.fs.metadata.namespace import InodeKind, Namespace, ZeroRange
from tests.storage.fs.trees import MIB, NOW, made, names


def test_an_empty_tree_has_the_devices_directory(tree: Namespace) -> None:
    assert tree.devices() == []
    assert tree.resolve("/.nbd").kind is InodeKind.DIRECTORY
    assert tree.resolve("/").mode == 0o755


def test_a_device_has_size_times_owner_and_mode(tree: Namespace) -> None:
    tree.apply(plan_create_device(tree, "vol1", 3 * 512, NOW))
    name, inode = tree.device("vol1")
    assert (name, inode.mode, inode.uid, inode.gid) == ("vol1", 0o600, 0, 0)
    assert inode.born == inode.atime == inode.mtime == inode.ctime == 1_700_000_000_250_000_000
    assert tree.size(inode) == 3 * 512
    assert tree.layers()[inode.layer] == LayerRow(inode.layer, 0, 3 * 512, False)


def test_a_plan_changes_nothing(tree: Namespace) -> None:
    made(tree, "a")
    before = tree.encode()
    plan_create_device(tree, "b/c", MIB, NOW)
    plan_rename_device(tree, "a", "x/y", NOW)
    plan_resize_device(tree, "a", 2 * MIB, NOW)
    plan_delete_device(tree, "a", NOW)
    assert tree.encode() == before


def test_names_with_slashes_make_and_take_their_directories(tree: Namespace) -> None:
    made(tree, "t/a/v1", "t/a/v2", "t/w")
    assert names(tree) == ["t/a/v1", "t/a/v2", "t/w"]
    tree.apply(plan_delete_device(tree, "t/a/v1", NOW))
    assert tree.resolve("/.nbd/t/a").kind is InodeKind.DIRECTORY
    tree.apply(plan_delete_device(tree, "t/a/v2", NOW))
    with pytest.raises(NotFound):
        tree.resolve("/.nbd/t/a")
    tree.apply(plan_delete_device(tree, "t/w", NOW))
    made(tree, "t")
    assert names(tree) == ["t"]


def test_a_rename_below_its_own_directory_keeps_the_directory(tree: Namespace) -> None:
    made(tree, "a/x")
    tree.apply(plan_rename_device(tree, "a/x", "a/b/x", NOW))
    assert names(tree) == ["a/b/x"]
    tree.apply(plan_rename_device(tree, "a/b/x", "a/x", NOW))
    assert names(tree) == ["a/x"]
    tree.check()


def test_a_device_is_no_directory(tree: Namespace) -> None:
    made(tree, "a", "d/e")
    with pytest.raises(Conflict, match="'a' is a device"):
        plan_create_device(tree, "a/b", MIB, NOW)
    with pytest.raises(AlreadyExists, match="names begin with 'd/' already"):
        plan_create_device(tree, "d", MIB, NOW)
    with pytest.raises(NotFound):
        tree.device("d")


def test_rename_keeps_inode_and_layer_and_never_overwrites(tree: Namespace) -> None:
    made(tree, "a", "b")
    _, before = tree.device("a")
    with pytest.raises(AlreadyExists):
        plan_rename_device(tree, "a", "b", NOW)
    with pytest.raises(NotFound):
        plan_rename_device(tree, "c", "d", NOW)
    tree.apply(plan_rename_device(tree, "a", "z", NOW + 1))
    _, after = tree.device("z")
    assert (after.number, after.layer, after.born) == (before.number, before.layer, before.born)
    assert after.ctime == before.ctime + 1_000_000_000
    assert names(tree) == ["b", "z"]


def test_numbers_are_never_used_twice_even_over_a_checkpoint(tree: Namespace) -> None:
    made(tree, "a")
    _, first = tree.device("a")
    assert tree.apply(plan_delete_device(tree, "a", NOW)) == [DropLayer(first.layer)]
    tree = made(Namespace.decode(tree.encode()), "a")
    _, second = tree.device("a")
    assert second.number > first.number
    assert second.layer > first.layer


def test_shrinking_needs_a_word_and_zeroes_what_it_cuts(tree: Namespace) -> None:
    made(tree, "a", size=10 * 512)
    _, inode = tree.device("a")
    with pytest.raises(Conflict, match="--shrink"):
        plan_resize_device(tree, "a", 3 * 512, NOW)
    cut = plan_resize_device(tree, "a", 3 * 512, NOW, shrink=True)
    assert tree.apply(cut) == [ZeroRange(inode.layer, 3 * 512, 7 * 512)]
    assert tree.apply(plan_resize_device(tree, "a", 3 * 512, NOW)) == []
    assert tree.apply(plan_resize_device(tree, "a", 20 * 512, NOW)) == []
    assert tree.size(tree.device("a")[1]) == 20 * 512


@pytest.mark.parametrize("size", [512, SIZE_BYTES_MAX])
def test_sizes_at_the_limits(tree: Namespace, size: int) -> None:
    made(tree, "a", size=size)


@pytest.mark.parametrize("size", [-512, 0, 511, 513, 4095, SIZE_BYTES_MAX + 512])
def test_sizes_beyond_the_limits(tree: Namespace, size: int) -> None:
    made(tree, "a")
    with pytest.raises(Invalid):
        plan_create_device(tree, "b", size, NOW)
    with pytest.raises(Invalid):
        plan_resize_device(tree, "a", size, NOW, shrink=True)


@pytest.mark.parametrize("name", ["a", "ä" * 127, "x" * 255, "-", " ", "..a", "a/b/c", "\n", "a\\b"])
def test_good_names(tree: Namespace, name: str) -> None:
    made(tree, name)
    assert Namespace.decode(tree.encode()).device(name)[0] == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/..",
        "a\0b",
        "x" * 256,
        "ä" * 128,
        "a@b",
        "\udcff",
        "a/" * 2048 + "a",
    ],
)
def test_bad_names(tree: Namespace, name: str) -> None:
    made(tree, "ok")
    with pytest.raises(Invalid):
        plan_create_device(tree, name, MIB, NOW)
    with pytest.raises(Invalid):
        plan_rename_device(tree, "ok", name, NOW)
    with pytest.raises(NotFound):
        tree.device(name)


def test_symbolic_links_serve_their_target(tree: Namespace) -> None:
    made(tree, "db-2026", "t/v")
    tree.apply(plan_symlink(tree, "/.nbd/current", "db-2026", NOW))
    tree.apply(plan_symlink(tree, "/.nbd/t/up", "../current", NOW))
    tree.apply(plan_symlink(tree, "/.nbd/also", "/.nbd/t", NOW))
    assert tree.device("current") == tree.device("db-2026")
    assert tree.device("t/up")[0] == "db-2026"
    assert tree.device("also/v")[0] == "t/v"
    assert tree.device("also/up")[0] == "db-2026"
    assert names(tree) == ["db-2026", "t/v"]
    made(tree, "also/w")
    assert names(tree) == ["db-2026", "t/v", "t/w"]
    tree.apply(plan_rename_device(tree, "also/w", "also/x", NOW))
    tree.apply(plan_delete_device(tree, "also/v", NOW))
    assert names(tree) == ["db-2026", "t/x"]


def test_links_are_not_mistaken_for_devices(tree: Namespace) -> None:
    made(tree, "a")
    tree.apply(plan_symlink(tree, "/.nbd/l", "a", NOW))
    tree.apply(plan_symlink(tree, "/.nbd/nowhere", "b", NOW))
    with pytest.raises(Conflict, match="symbolic link"):
        plan_delete_device(tree, "l", NOW)
    with pytest.raises(Conflict, match="symbolic link"):
        plan_rename_device(tree, "l", "m", NOW)
    with pytest.raises(AlreadyExists):
        plan_create_device(tree, "nowhere", MIB, NOW)
    with pytest.raises(Conflict, match="leads nowhere"):
        plan_create_device(tree, "nowhere/a", MIB, NOW)
    tree.apply(plan_delete_device(tree, "a", NOW))
    with pytest.raises(NotFound):
        tree.device("l")
    tree.apply(plan_remove(tree, "/.nbd/l", NOW))


def test_loops_of_links_end(tree: Namespace) -> None:
    tree.apply(plan_symlink(tree, "/.nbd/a", "b", NOW))
    tree.apply(plan_symlink(tree, "/.nbd/b", "a/", NOW))
    with pytest.raises(Invalid, match="40"):
        tree.resolve("/.nbd/a")
    with pytest.raises(NotFound):
        tree.device("a")


def test_a_chain_of_forty_links_is_followed_and_one_more_is_not(tree: Namespace) -> None:
    made(tree, "0")
    for number in range(1, 42):
        tree.apply(plan_symlink(tree, f"/.nbd/{number}", str(number - 1), NOW))
    assert tree.device("40")[0] == "0"
    with pytest.raises(NotFound):
        tree.device("41")


def test_directories_and_removal(tree: Namespace) -> None:
    tree.apply(plan_mkdir(tree, "/data", NOW))
    tree.apply(plan_symlink(tree, "/data/l", "x" * 4096, NOW))
    assert tree.size(tree.resolve("/data")) == 0
    with pytest.raises(Conflict, match="not empty"):
        plan_remove(tree, "/data", NOW)
    for path in ("/", "/.nbd", "/.nbd/", "/data/.."):
        with pytest.raises(Conflict):
            plan_remove(tree, path, NOW)
    tree.apply(plan_remove(tree, "/data/l", NOW))
    tree.apply(plan_remove(tree, "/data", NOW))
    made(tree, "a")
    with pytest.raises(Conflict, match="is a device"):
        plan_remove(tree, "/.nbd/a", NOW)
    with pytest.raises(NotFound):
        plan_remove(tree, "/data", NOW)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/", Invalid),
        ("a", Invalid),
        ("/x/y", NotFound),
        ("/.nbd/a/y", Conflict),
        ("/.nbd", AlreadyExists),
        ("/.nbd/a", AlreadyExists),
        ("/.nbd/q@r", Invalid),
        ("/..", Invalid),
    ],
)
def test_paths_that_cannot_be_made(tree: Namespace, path: str, error: type[StorageError]) -> None:
    made(tree, "a")
    with pytest.raises(error):
        plan_mkdir(tree, path, NOW)
    with pytest.raises(error):
        plan_symlink(tree, path, "t", NOW)


@pytest.mark.parametrize("target", ["", "a\0", "x" * 4097, "\udcff"])
def test_bad_link_targets(tree: Namespace, target: str) -> None:
    with pytest.raises(Invalid):
        plan_symlink(tree, "/l", target, NOW)


def test_attributes(tree: Namespace) -> None:
    made(tree, "a")
    tree.apply(plan_symlink(tree, "/l", "/.nbd/a", NOW))
    tree.apply(plan_attributes(tree, "/l", NOW + 5, mode=0o4755, uid=1))
    _, inode = tree.device("a")
    assert (inode.mode, inode.uid, inode.gid) == (0o4755, 1, 0)
    assert (inode.mtime - inode.born, inode.ctime - inode.born) == (0, 5_000_000_000)
    for mode, uid, gid in ((0o10000, 0, 0), (-1, 0, 0), (0, 2**32, 0), (0, 0, -1)):
        with pytest.raises(Invalid):
            plan_attributes(tree, "/l", NOW, mode=mode, uid=uid, gid=gid)
