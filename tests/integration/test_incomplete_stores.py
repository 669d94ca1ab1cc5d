"""What lies in a folder is not a whole store, or not only a store: copies cut short, and names of others."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.format.names import manifest_name
from tests.support.program import EXIT_CORRUPT, Host, NotListening, Server
from tests.support.stores import folder_store

BLOCK = b"\x5a" * 4096


@pytest.fixture
def store(work: Path) -> Path:
    """A store whose server was stopped once and killed once; its folders hold what they usually do."""
    host = Host(work)
    server = Server(host, folder_store(work).location, create={"disk": "16MiB"})
    for place in range(2):
        server.start()
        with server.connect() as client:
            client.write(place * 4096, BLOCK)
            client.flush()
        if place == 0:
            assert server.stop() == 0, server.said()
        else:
            server.kill()
    return work / "store"


@pytest.fixture
def elsewhere(work: Path) -> Host:
    """A host that has never seen the store."""
    (folder := work / "b").mkdir()
    return Host(folder)


@pytest.fixture
def server(store: Path, elsewhere: Host) -> Iterator[Server]:
    made = Server(elsewhere, store.as_uri(), arguments=["--take-over"])
    yield made
    made.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check(server: Server) -> None:
    """It serves, and holds what was flushed."""
    with server.connect() as client:
        assert client.read(0, 8192) == BLOCK * 2


@pytest.mark.parametrize("lost", ["manifest", "manifest wal", "manifest compacted", "keys"])
def test_a_store_without_a_folder_is_no_empty_store(store: Path, elsewhere: Host, server: Server, lost: str) -> None:
    for folder in (*lost.split(), "spare"):
        shutil.rmtree(store / folder)
    before = contents(store)
    for _ in range(2):
        with pytest.raises(NotListening, match=rf"{lost.split()[0]}/ is damaged") as refused:
            server.start()
        assert refused.value.status == EXIT_CORRUPT
        server.process = None
    elsewhere.run("device", "list", "--store", store.as_uri(), status=EXIT_CORRUPT)
    assert contents(store) == before


def test_a_copy_with_an_older_manifest_is_refused_and_keeps_its_data(store: Path, server: Server) -> None:
    manifests = sorted((store / "manifest").iterdir())
    for manifest in manifests[1:]:
        manifest.unlink()
    for folder in ("wal", "spare"):
        shutil.rmtree(store / folder)
    before = contents(store)
    with pytest.raises(NotListening, match=r"compacted/\w+\.sst was made when the log was acknowledged") as refused:
        server.start()
    server.process = None
    assert refused.value.status == EXIT_CORRUPT
    assert contents(store) == before


FOREIGN = ["Thumbs.db", ".nfs000000000123abc", "00000000000000000099.sst.part", "desktop.ini"]


def test_names_of_others_are_passed_over(store: Path, server: Server) -> None:
    """What interrupted copies leave, what desktops and network file systems put everywhere: at a start, while serving,
    and at the next start.
    """
    newest = max(int(path.name.split(".")[0]) for path in (store / "manifest").iterdir())
    foreign = [f"{folder}/{name}" for folder in ("keys", "manifest", "spare", "wal", "compacted") for name in FOREIGN]
    foreign += [f"{manifest_name(newest + ahead)}.1a2b3c.partial" for ahead in range(5)]
    foreign += ["keys/00000000000000000002.keys.1a2b3c.partial", "~mine/0", "lost+found"]
    (store / "~mine").mkdir()
    for name in foreign[::2]:
        (store / name).write_bytes(b"not of this store")
    server.start()
    check(server)
    for name in foreign:
        (store / name).write_bytes(b"not of this store")
    server.host.run("device", "create", "another", "1MiB", "--store", store.as_uri())
    server.host.run("flush", "--store", store.as_uri())
    check(server)
    assert server.stop() == 0, server.said()
    server.start()
    check(server)
    assert server.stop() == 0, server.said()
    assert all((store / name).read_bytes() == b"not of this store" for name in foreign)


def test_a_start_in_an_empty_place_is_not_kept_from_it_by_names_of_others(work: Path) -> None:
    host = Host(work)
    (work / "store" / "manifest").mkdir(parents=True)
    (work / "store" / "manifest" / "Thumbs.db").write_bytes(b"")
    server = Server(host, folder_store(work).location, create={"disk": "1MiB"})
    try:
        server.start()
        assert server.stop() == 0, server.said()
    finally:
        server.close()
