"""Rounds of a replication between two stores at rest, in this process: what one that fails leaves, and what it says."""

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from nbdserver.cli.shared.backend import Way, at_rest
from nbdserver.cli.shared.parameters import Place
from nbdserver.cli.shared.streams import export_stream, import_stream
from nbdserver.cli.snapshots.replication import Replication, Side, carry
from storage.env import RealEnv
from storage.fs.store import Store
from storage.secret import Secret
from tests.storage.fs import places
from tests.support import keys

MIB = 1 << 20
PASSWORD = "a password"


class TwoStores:
    """In folders; the first one has a device `disk`."""

    def __init__(self, folder: Path, env: RealEnv) -> None:
        self.places = [Place(f"file://{folder}/{name}", folder / "state", None) for name in ("one", "two")]
        for place in self.places:
            keys.prepare(place.store, {}, PASSWORD)
        one, two = (Side(place, lambda: Secret(PASSWORD.encode())) for place in self.places)
        self.replication = Replication(one, two, "disk", "copy", 1, env)

        async def make(store: Store) -> None:
            await store.create_device("disk", MIB)

        self.work(0, make)

    def work(self, number: int, work: Callable[[Store], Awaitable[None]]) -> None:
        """On one of the two."""
        at_rest(self.places[number], work, writes=True, password=Secret(PASSWORD.encode()))

    def write(self, data: bytes) -> None:
        async def write(store: Store) -> None:
            store.device("disk").write(0, data)
            await store.flush()

        self.work(0, write)

    def snapshots(self, number: int, device: str) -> list[str]:
        found: list[str] = []

        async def look(store: Store) -> None:
            found.extend(one.name for one in await store.snapshots.list(device))

        self.work(number, look)
        return found

    def objects(self, number: int) -> set[str]:
        """The names of all that one of the two consists of."""
        folder = Path(self.places[number].store.removeprefix("file://"))
        return {str(each) for each in folder.rglob("*") if each.is_file()}


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[TwoStores]:
    with closing(RealEnv()) as env:
        yield TwoStores(tmp_path, env)


def nothing(_: int) -> None:
    """Is done with how far it is."""


def fails(_: int) -> None:
    raise RuntimeError("no more")


def test_rounds_that_fail_leave_one_snapshot_and_no_more(stores: TwoStores) -> None:
    """However often: each would keep all that was written over since."""
    first = stores.replication.round(nothing)
    stores.replication.tidy()
    for number in range(2):
        stores.write(bytes([number + 1]) * 4096)
        with pytest.raises(RuntimeError, match="no more"):
            stores.replication.round(fails)
    left = stores.snapshots(0, "disk")
    assert left[0] == first.snapshot
    assert len(left) == 2
    assert stores.snapshots(1, "copy") == [first.snapshot]
    done = stores.replication.round(nothing)
    assert stores.replication.as_of == done.as_of, "it is as old as its snapshot, whatever it took to bring it"
    stores.replication.tidy()
    assert stores.snapshots(0, "disk") == stores.snapshots(1, "copy") == [done.snapshot]


def test_what_others_brought_is_followed_by_one_of_its_own(stores: TwoStores) -> None:
    """Though nothing changed: they may delete theirs at any time, and the next round would find nothing in common."""
    stores.write(b"data" * 1024)

    async def take(store: Store) -> None:
        await store.snapshots.create(["disk"], "theirs")

    stores.work(0, take)
    parts: list[bytes] = []
    one, two = (Way(place, None, Secret(PASSWORD.encode())) for place in stores.places)
    export_stream(one, ("disk", "theirs"), None, parts.append)
    import_stream(two, "copy", iter(parts))
    done = stores.replication.round(nothing)
    assert done.snapshot.startswith("replica-")
    assert stores.snapshots(1, "copy") == ["theirs", done.snapshot]
    assert stores.replication.round(nothing).stream_bytes is None, "nothing is to be moved any more"


def test_a_round_without_a_change_writes_nothing_to_either_store(stores: TwoStores) -> None:
    """Each opening as a writer leaves objects that stay for ever, and more in every manifest from then on."""
    stores.write(b"data" * 1024)
    stores.replication.round(nothing)
    stores.replication.tidy()
    before = [stores.objects(number) for number in range(2)]
    for _ in range(2):
        assert stores.replication.round(nothing).stream_bytes is None
        stores.replication.tidy()
    assert [stores.objects(number) for number in range(2)] == before


def copy_if_there(source: str, target: str) -> None:
    """A file may be renamed, or deleted as garbage, while its folder is copied."""
    with suppress(FileNotFoundError):
        shutil.copy2(source, target)


def test_what_a_round_that_was_killed_has_half_filled_is_gone_on_from(stores: TwoStores, tmp_path: Path) -> None:
    """Only who opens the store as a writer undoes it: a reader cannot tell what the replica will hold."""
    done = stores.replication.round(nothing)
    killed = tmp_path / "killed"

    async def kill(store: Store) -> None:
        async with store.filling.over("copy", "an import", places.nothing) as device:
            device.write(0, b"half" * 1024)
            await store.flush()
            for folder in ("state", "two"):  # what is remembered is not ahead of the store
                copy = partial(shutil.copytree, copy_function=copy_if_there)
                await asyncio.to_thread(copy, tmp_path / folder, killed / folder)

    stores.work(1, kill)
    for folder in ("two", "state"):
        shutil.rmtree(tmp_path / folder)
        (killed / folder).rename(tmp_path / folder)
    stores.write(b"data" * 1024)
    after = stores.replication.round(nothing)
    assert after.stream_bytes is not None
    assert stores.snapshots(1, "copy") == [done.snapshot, after.snapshot]


@pytest.mark.parametrize("who", ["export", "fill"])
def test_who_fails_ends_the_other_and_is_what_is_told(who: str) -> None:
    before = set(threading.enumerate())

    def export(take: Callable[[bytes], None]) -> None:
        for _ in range(100):
            take(bytes(MIB))
        if who == "export":
            raise ValueError("export")

    def fill(parts: Iterator[bytes]) -> None:
        for number, _ in enumerate(parts):
            if who == "fill" and number == 3:
                raise ValueError("fill")

    with pytest.raises(ValueError, match=who):
        carry(export, fill, nothing)
    assert set(threading.enumerate()) <= before
