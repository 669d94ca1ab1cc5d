"""The metadata tree against a plain model, and every rule for names by itself."""

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storage.errors import AlreadyExists, Conflict, Corrupt, Invalid, NotFound, StorageError, Unsupported
from storage.format.trunks import DropLayer, MakeLayer
from storage.fs.inodes import (
    SIZE_BYTES_MAX,
    Inode,
    LayerRecord,
    Link,
    PutInode,
    PutLayer,
    RemoveInode,
    RemoveLayer,
    Unlink,
)
from storage.fs.namespace import Effect, InodeKind, Namespace, ZeroRange
from tests.support.examples import examples

MIB = 1024 * 1024
NOW = 1_700_000_000.25


@pytest.fixture
def tree() -> Namespace:
    return Namespace.empty(NOW)


def made(tree: Namespace, *names: str, size: int = MIB) -> Namespace:
    for name in names:
        (made,) = tree.apply(tree.plan_create_device(name, size, NOW))
        assert isinstance(made, MakeLayer)
    return tree


def names(tree: Namespace) -> list[str]:
    found = [name for name, _ in tree.devices()]
    assert tree.names() == tuple(found)
    assert tree.names() is tree.names()
    return found


def test_an_empty_tree_has_the_devices_directory(tree: Namespace) -> None:
    assert tree.devices() == []
    assert tree.resolve("/.nbd").kind is InodeKind.DIRECTORY
    assert tree.resolve("/").mode == 0o755


def test_a_device_has_size_times_owner_and_mode(tree: Namespace) -> None:
    tree.apply(tree.plan_create_device("vol1", 3 * 512, NOW, mode=0o640, uid=7, gid=8))
    name, inode = tree.device("vol1")
    assert (name, inode.mode, inode.uid, inode.gid) == ("vol1", 0o640, 7, 8)
    assert inode.born == inode.atime == inode.mtime == inode.ctime == 1_700_000_000_250_000_000
    assert tree.size(inode) == 3 * 512
    assert tree.layers()[inode.layer] == LayerRecord(inode.layer, 0, 3 * 512, False)


def test_a_plan_changes_nothing(tree: Namespace) -> None:
    made(tree, "a")
    before = tree.encode()
    tree.plan_create_device("b/c", MIB, NOW)
    tree.plan_rename("a", "x/y", NOW)
    tree.plan_resize("a", 2 * MIB, NOW)
    tree.plan_delete("a", NOW)
    assert tree.encode() == before


def test_names_with_slashes_make_and_take_their_directories(tree: Namespace) -> None:
    made(tree, "t/a/v1", "t/a/v2", "t/w")
    assert names(tree) == ["t/a/v1", "t/a/v2", "t/w"]
    tree.apply(tree.plan_delete("t/a/v1", NOW))
    assert tree.resolve("/.nbd/t/a").kind is InodeKind.DIRECTORY
    tree.apply(tree.plan_delete("t/a/v2", NOW))
    with pytest.raises(NotFound):
        tree.resolve("/.nbd/t/a")
    tree.apply(tree.plan_delete("t/w", NOW))
    made(tree, "t")
    assert names(tree) == ["t"]


def test_a_rename_below_its_own_directory_keeps_the_directory(tree: Namespace) -> None:
    made(tree, "a/x")
    tree.apply(tree.plan_rename("a/x", "a/b/x", NOW))
    assert names(tree) == ["a/b/x"]
    tree.apply(tree.plan_rename("a/b/x", "a/x", NOW))
    assert names(tree) == ["a/x"]
    tree.check()


def test_a_device_is_no_directory(tree: Namespace) -> None:
    made(tree, "a", "d/e")
    with pytest.raises(Conflict, match="'a' is a device"):
        tree.plan_create_device("a/b", MIB, NOW)
    with pytest.raises(AlreadyExists, match="names begin with 'd/' already"):
        tree.plan_create_device("d", MIB, NOW)
    with pytest.raises(NotFound):
        tree.device("d")


def test_rename_keeps_inode_and_layer_and_never_overwrites(tree: Namespace) -> None:
    made(tree, "a", "b")
    _, before = tree.device("a")
    with pytest.raises(AlreadyExists):
        tree.plan_rename("a", "b", NOW)
    with pytest.raises(NotFound):
        tree.plan_rename("c", "d", NOW)
    tree.apply(tree.plan_rename("a", "z", NOW + 1))
    _, after = tree.device("z")
    assert (after.number, after.layer, after.born) == (before.number, before.layer, before.born)
    assert after.ctime == before.ctime + 1_000_000_000
    assert names(tree) == ["b", "z"]


def test_numbers_are_never_used_twice_even_over_a_checkpoint(tree: Namespace) -> None:
    made(tree, "a")
    _, first = tree.device("a")
    assert tree.apply(tree.plan_delete("a", NOW)) == [DropLayer(first.layer)]
    tree = made(Namespace.decode(tree.encode()), "a")
    _, second = tree.device("a")
    assert second.number > first.number
    assert second.layer > first.layer


def test_shrinking_needs_a_word_and_zeroes_what_it_cuts(tree: Namespace) -> None:
    made(tree, "a", size=10 * 512)
    _, inode = tree.device("a")
    with pytest.raises(Conflict, match="--shrink"):
        tree.plan_resize("a", 3 * 512, NOW)
    cut = tree.plan_resize("a", 3 * 512, NOW, shrink=True)
    assert tree.apply(cut) == [ZeroRange(inode.layer, 3 * 512, 7 * 512)]
    assert tree.apply(tree.plan_resize("a", 3 * 512, NOW)) == []
    assert tree.apply(tree.plan_resize("a", 20 * 512, NOW)) == []
    assert tree.size(tree.device("a")[1]) == 20 * 512


@pytest.mark.parametrize("size", [512, SIZE_BYTES_MAX])
def test_sizes_at_the_limits(tree: Namespace, size: int) -> None:
    made(tree, "a", size=size)


@pytest.mark.parametrize("size", [-512, 0, 511, 513, 4095, SIZE_BYTES_MAX + 512])
def test_sizes_beyond_the_limits(tree: Namespace, size: int) -> None:
    made(tree, "a")
    with pytest.raises(Invalid):
        tree.plan_create_device("b", size, NOW)
    with pytest.raises(Invalid):
        tree.plan_resize("a", size, NOW, shrink=True)


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
        tree.plan_create_device(name, MIB, NOW)
    with pytest.raises(Invalid):
        tree.plan_rename("ok", name, NOW)
    with pytest.raises(NotFound):
        tree.device(name)


def test_symbolic_links_serve_their_target(tree: Namespace) -> None:
    made(tree, "db-2026", "t/v")
    tree.apply(tree.plan_symlink("/.nbd/current", "db-2026", NOW))
    tree.apply(tree.plan_symlink("/.nbd/t/up", "../current", NOW))
    tree.apply(tree.plan_symlink("/.nbd/also", "/.nbd/t", NOW))
    assert tree.device("current") == tree.device("db-2026")
    assert tree.device("t/up")[0] == "db-2026"
    assert tree.device("also/v")[0] == "t/v"
    assert tree.device("also/up")[0] == "db-2026"
    assert names(tree) == ["db-2026", "t/v"]
    made(tree, "also/w")
    assert names(tree) == ["db-2026", "t/v", "t/w"]
    tree.apply(tree.plan_rename("also/w", "also/x", NOW))
    tree.apply(tree.plan_delete("also/v", NOW))
    assert names(tree) == ["db-2026", "t/x"]


def test_links_are_not_mistaken_for_devices(tree: Namespace) -> None:
    made(tree, "a")
    tree.apply(tree.plan_symlink("/.nbd/l", "a", NOW))
    tree.apply(tree.plan_symlink("/.nbd/nowhere", "b", NOW))
    with pytest.raises(Conflict, match="symbolic link"):
        tree.plan_delete("l", NOW)
    with pytest.raises(Conflict, match="symbolic link"):
        tree.plan_rename("l", "m", NOW)
    with pytest.raises(AlreadyExists):
        tree.plan_create_device("nowhere", MIB, NOW)
    with pytest.raises(Conflict, match="leads nowhere"):
        tree.plan_create_device("nowhere/a", MIB, NOW)
    tree.apply(tree.plan_delete("a", NOW))
    with pytest.raises(NotFound):
        tree.device("l")
    tree.apply(tree.plan_remove("/.nbd/l", NOW))


def test_loops_of_links_end(tree: Namespace) -> None:
    tree.apply(tree.plan_symlink("/.nbd/a", "b", NOW))
    tree.apply(tree.plan_symlink("/.nbd/b", "a/", NOW))
    with pytest.raises(Invalid, match="40"):
        tree.resolve("/.nbd/a")
    with pytest.raises(NotFound):
        tree.device("a")


def test_a_chain_of_forty_links_is_followed_and_one_more_is_not(tree: Namespace) -> None:
    made(tree, "0")
    for number in range(1, 42):
        tree.apply(tree.plan_symlink(f"/.nbd/{number}", str(number - 1), NOW))
    assert tree.device("40")[0] == "0"
    with pytest.raises(NotFound):
        tree.device("41")


def test_directories_and_removal(tree: Namespace) -> None:
    tree.apply(tree.plan_mkdir("/data", NOW, mode=0o700, uid=1, gid=2))
    tree.apply(tree.plan_symlink("/data/l", "x" * 4096, NOW, uid=3, gid=4))
    assert tree.size(tree.resolve("/data")) == 0
    with pytest.raises(Conflict, match="not empty"):
        tree.plan_remove("/data", NOW)
    for path in ("/", "/.nbd", "/.nbd/", "/data/.."):
        with pytest.raises(Conflict):
            tree.plan_remove(path, NOW)
    tree.apply(tree.plan_remove("/data/l", NOW))
    tree.apply(tree.plan_remove("/data", NOW))
    made(tree, "a")
    with pytest.raises(Conflict, match="is a device"):
        tree.plan_remove("/.nbd/a", NOW)
    with pytest.raises(NotFound):
        tree.plan_remove("/data", NOW)


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
        tree.plan_mkdir(path, NOW)
    with pytest.raises(error):
        tree.plan_symlink(path, "t", NOW)


@pytest.mark.parametrize("target", ["", "a\0", "x" * 4097, "\udcff"])
def test_bad_link_targets(tree: Namespace, target: str) -> None:
    with pytest.raises(Invalid):
        tree.plan_symlink("/l", target, NOW)


def test_attributes(tree: Namespace) -> None:
    made(tree, "a")
    tree.apply(tree.plan_symlink("/l", "/.nbd/a", NOW))
    tree.apply(tree.plan_attributes("/l", NOW + 5, mode=0o4755, uid=1, mtime=9.5))
    _, inode = tree.device("a")
    assert (inode.mode, inode.uid, inode.gid) == (0o4755, 1, 0)
    assert (inode.mtime, inode.ctime - inode.born) == (9_500_000_000, 5_000_000_000)
    tree.apply(tree.plan_attributes("/l", NOW, gid=6, atime=1.0, follow=False))
    assert tree.device("a")[1] == inode
    for mode, uid, gid in ((0o10000, 0, 0), (-1, 0, 0), (0, 2**32, 0), (0, 0, -1)):
        with pytest.raises(Invalid):
            tree.plan_attributes("/l", NOW, mode=mode, uid=uid, gid=gid)


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


def inode(number: int, kind: InodeKind = InodeKind.DIRECTORY, **fields: object) -> Inode:
    return msgspec.structs.replace(Inode(number, kind, 0o755, 0, 0, 0, 0, 0, 0), **fields)


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
        [PutLayer(LayerRecord(7, 0, 512, False))],
        [PutLayer(LayerRecord(2, 1, 512, False))],
        [PutLayer(LayerRecord(2, 2, 512, False))],
        [PutLayer(LayerRecord(1, 0, 513, False))],
        [PutLayer(LayerRecord(1, 2, 512, False))],
        [PutLayer(LayerRecord(2, 0, 512, True)), PutLayer(LayerRecord(2, 0, 1024, True))],
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
    tree.apply(tree.plan_rename("a", "e", NOW))
    tree.apply(tree.plan_rename("e", "a", NOW))
    _, (_, _, inodes, entries, layers) = msgspec.msgpack.decode(tree.encode())
    assert [inodes, entries, layers] == [sorted(inodes), sorted(entries), sorted(layers)]


def test_directories_in_a_ring_are_corrupt(tree: Namespace) -> None:
    tree.apply(tree.plan_mkdir("/a", NOW))
    tree.apply(tree.plan_mkdir("/a/b", NOW))
    _, image = msgspec.msgpack.decode(tree.encode())
    a, b = 3, 4
    entries = [[1, ".nbd", 2], [a, "b", b], [b, "a", a]]
    with pytest.raises(Corrupt, match="hang from the root"):
        Namespace.decode(edited(tree, entries=entries))
    assert image[3] != entries


PARTS = st.sampled_from(["a", "b", "c"])
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
SIZES = st.integers(1, 8).map(lambda count: count * 512)


class AgainstADict(RuleBasedStateMachine):
    """Devices as a dict of name to (number, size): the same outcomes, and a replay gives an equal tree."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = Namespace.empty(NOW)
        self.model: dict[str, tuple[int, int]] = {}
        self.start = self.tree.encode()
        self.records: list[bytes] = []
        self.effects: list[Effect] = []
        self.highest = 0
        self.now = NOW

    def apply(self, record: bytes) -> list[Effect]:
        effects = self.tree.apply(record)
        self.records.append(record)
        self.effects += effects
        return effects

    def blocked(self, name: str) -> bool:
        """Whether a device with this name collides with the names there are."""
        return any(
            name == other or name.startswith(other + "/") or other.startswith(name + "/") for other in self.model
        )

    @rule(name=NAMES, size=SIZES)
    def create(self, name: str, size: int) -> None:
        self.now += 1
        if self.blocked(name):
            with pytest.raises((AlreadyExists, Conflict)):
                self.tree.plan_create_device(name, size, self.now)
            return
        assert self.apply(self.tree.plan_create_device(name, size, self.now)) != []
        number = self.tree.device(name)[1].number
        assert number > self.highest
        self.highest = number
        self.model[name] = (number, size)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if name not in self.model:
            with pytest.raises(NotFound):
                self.tree.plan_delete(name, self.now)
            return
        layer = self.tree.device(name)[1].layer
        assert self.apply(self.tree.plan_delete(name, self.now)) == [DropLayer(layer)]
        del self.model[name]

    @rule(old=NAMES, new=NAMES)
    def rename(self, old: str, new: str) -> None:
        self.now += 1
        if old not in self.model or self.blocked(new):
            with pytest.raises((NotFound, AlreadyExists, Conflict)):
                self.tree.plan_rename(old, new, self.now)
            return
        assert self.apply(self.tree.plan_rename(old, new, self.now)) == []
        self.model[new] = self.model.pop(old)

    @rule(name=NAMES, size=SIZES, shrink=st.booleans())
    def resize(self, name: str, size: int, shrink: bool) -> None:
        if name not in self.model:
            with pytest.raises(NotFound):
                self.tree.plan_resize(name, size, self.now, shrink=shrink)
            return
        number, old = self.model[name]
        if size < old and not shrink:
            with pytest.raises(Conflict):
                self.tree.plan_resize(name, size, self.now, shrink=shrink)
            return
        layer = self.tree.device(name)[1].layer
        cut = [ZeroRange(layer, size, old - size)] if size < old else []
        assert self.apply(self.tree.plan_resize(name, size, self.now, shrink=shrink)) == cut
        self.model[name] = (number, size)

    @rule(name=NAMES, mode=st.integers(0, 0o777))
    def attributes(self, name: str, mode: int) -> None:
        if name in self.model:
            self.apply(self.tree.plan_attributes(f"/.nbd/{name}", self.now, mode=mode))
            assert self.tree.device(name)[1].mode == mode

    @rule()
    def checkpoint(self) -> None:
        self.tree = Namespace.decode(self.tree.encode())

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def a_stale_record_is_harmless(self, data: st.DataObject) -> None:
        """A record planned earlier either still fits or changes nothing: it is never applied by half."""
        record = data.draw(st.sampled_from(self.records))
        before = self.tree.encode()
        scratch = Namespace.decode(before)
        try:
            scratch.apply(record)
        except Corrupt:
            assert scratch.encode() == before

    @invariant()
    def equals_the_model(self) -> None:
        self.tree.check()
        seen = {name: (inode.number, self.tree.size(inode)) for name, inode in self.tree.devices()}
        assert seen == self.model
        assert list(seen) == sorted(seen)

    def teardown(self) -> None:
        replayed = Namespace.decode(self.start)
        assert [effect for record in self.records for effect in replayed.apply(record)] == self.effects
        assert replayed.encode() == self.tree.encode()


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=examples(100), stateful_step_count=30, deadline=None)
