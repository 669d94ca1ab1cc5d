"""The tree of names as a filesystem: what is listed, what may be moved, and that it is there after a crash."""

from collections.abc import Awaitable, Callable

import pytest

from storage.errors import AlreadyExists, Conflict, Invalid, NotFound
from storage.fs.metadata.file_plans import plan_mkdir, plan_move, plan_remove, plan_symlink
from storage.fs.metadata.namespace import Namespace
from storage.fs.store import Store
from tests.storage.fs.places import MIB, Place, kill
from tests.storage.fs.trees import NOW

Call = Callable[[Store], Awaitable[object]]


@pytest.fixture
async def store(place: Place) -> Store:
    opened = await place.open(create=True)
    for name in ("db", "tenant/a"):
        await opened.create_device(name, MIB)
    files = opened.files
    await files.make_directory("/notes")
    await files.make_directory("/notes/old")
    await files.link("/.nbd/db", "/notes/current")
    await files.link("tenant/a", "/.nbd/alias")
    return opened


def paths(store: Store, path: str = "/", *, below: bool = True) -> list[str]:
    return [info.path for info in store.files.listing(path, below=below)]


async def test_all_of_it_is_there_after_a_crash(store: Store, place: Place) -> None:
    await store.files.change("/notes", mode=0o700, uid=1, gid=2)
    expected = [
        "/.nbd", "/.nbd/alias", "/.nbd/db", "/.nbd/tenant", "/.nbd/tenant/a",
        "/notes", "/notes/current", "/notes/old",
    ]  # fmt: skip
    assert paths(store) == expected
    await kill(store)
    again = await place.open()
    assert paths(again) == expected
    assert paths(again, "/.nbd", below=False) == ["/.nbd/alias", "/.nbd/db", "/.nbd/tenant"]
    notes, link, disk = (again.files.stat(path) for path in ("/notes", "/notes/current", "/.nbd/db"))
    assert (notes.kind, notes.mode, notes.uid, notes.gid, notes.size) == ("directory", 0o700, 1, 2, 0)
    assert (link.kind, link.target, link.size) == ("symlink", "/.nbd/db", 8)
    assert (disk.kind, disk.size) == ("device", MIB)
    assert paths(again, "/notes/current") == ["/notes/current"], "no directory: itself"
    await again.close()


async def test_a_link_is_another_name_of_an_export(store: Store) -> None:
    assert store.names() == ("db", "tenant/a"), "listed is what is a device itself"
    store.device("tenant/a").write(0, b"here")
    assert store.device("alias") is store.device("tenant/a")
    await store.files.move("/.nbd/alias", "/.nbd/other")
    assert store.device("other") is store.device("tenant/a")
    await store.files.remove("/.nbd/other")
    with pytest.raises(NotFound):
        store.device("other")
    await store.close()


async def test_what_is_moved_keeps_what_it_is(store: Store) -> None:
    before = store.files.stat("/notes").inode
    await store.files.move("/notes", "/papers")
    assert store.files.stat("/papers").inode == before
    assert paths(store, "/papers") == ["/papers/current", "/papers/old"]
    store.device("db").write(0, b"content")
    await store.files.move("/.nbd/db", "/.nbd/archive/db")
    assert b"".join(bytes(piece) for piece in await store.device("archive/db").read(0, 7)) == b"content"
    await store.close()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda s: s.files.move("/nothing", "/a"), NotFound),
        (lambda s: s.files.move("/notes", "/.nbd"), AlreadyExists),
        (lambda s: s.files.move("/notes", "/notes/old/deeper"), Conflict),
        (lambda s: s.files.move("/notes", "/nowhere/notes"), NotFound),
        (lambda s: s.files.move("/.nbd", "/devices"), Conflict),
        (lambda s: s.files.move("/", "/root"), Conflict),
        (lambda s: s.files.move("/.nbd/tenant", "/.nbd/renter"), Conflict),
        (lambda s: s.files.move("/.nbd/db", "/db"), Conflict),
        (lambda s: s.files.move("/.nbd/db", "/.nbd/tenant"), AlreadyExists),
        (lambda s: s.files.remove("/notes"), Conflict),
        (lambda s: s.files.remove("/.nbd/db"), Conflict),
        (lambda s: s.files.make_directory("/notes"), AlreadyExists),
        (lambda s: s.files.make_directory("/notes/.."), Invalid),
        (lambda s: s.files.link("", "/empty"), Invalid),
        (lambda s: s.files.change("/notes", mode=0o10000), Invalid),
    ],
)
async def test_what_is_refused_changes_nothing(store: Store, call: Call, error: type[Exception]) -> None:
    before = [*store.files.listing("/", below=True)]
    with pytest.raises(error):
        await call(store)
    assert store.files.listing("/", below=True) == before
    await store.close()


async def test_a_device_with_clients_stays_where_it_is(store: Store) -> None:
    store.open_devices.clients_of = lambda name: ["a client"] if name == "db" else []
    with pytest.raises(Conflict, match="attached by a client"):
        await store.files.move("/.nbd/db", "/.nbd/moved")
    await store.close()


async def test_when_it_was_modified_and_when_it_was_changed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A move modifies both directories, and changes what is moved; other attributes change, and modify nothing."""
    store = await place.open(create=True)
    files, clock = store.files, [0.0]
    monkeypatch.setattr(place.env, "wall_clock", lambda: clock[0])

    def times(path: str) -> tuple[float, float]:
        info = files.stat(path)
        return info.modified, info.changed

    for path in ("/from", "/to", "/from/this"):
        clock[0] += 1
        await files.make_directory(path)
    assert [times(path) for path in ("/from", "/to", "/from/this")] == [(3, 3), (2, 2), (3, 3)]
    clock[0] = 4
    await files.move("/from/this", "/to/this")
    assert [times(path) for path in ("/from", "/to", "/to/this")] == [(4, 4), (4, 4), (3, 4)]
    clock[0] = 5
    await files.change("/to", mode=0o700)
    assert times("/to") == (4, 5)
    await store.close()


def test_what_was_removed_has_no_inode(tree: Namespace) -> None:
    before = set(tree.table.inodes)
    tree.apply(plan_mkdir(tree, "/notes", NOW))
    tree.apply(plan_symlink(tree, "/notes/link", "anywhere", NOW))
    for path in ("/notes/link", "/notes"):
        tree.apply(plan_remove(tree, path, NOW))
    assert set(tree.table.inodes) == before


def test_the_directory_of_devices_stays_where_it_is_also_when_it_is_empty(tree: Namespace) -> None:
    with pytest.raises(Conflict, match="cannot be moved"):
        plan_move(tree, "/.nbd", "/devices", NOW)
