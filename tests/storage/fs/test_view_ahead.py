"""What is read of a store before its writer has closed it: it is gone on with only where that changes nothing."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from storage.check.read_run import CheckProgress
from storage.format.blocks import EntryKind, RangeZero, SstEntry, SstRef
from storage.format.frame import FULL_MASK
from storage.format.manifest import EMPTY, Manifest
from storage.format.sst import SstIndex, decode_index, encode_index
from storage.format.trunks import LoggedOperation, MakeLayer
from storage.fs.check import CheckOptions
from storage.fs.early_unlock import EarlyUnlock
from storage.fs.opening import open_store, view_ahead
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.lsm.index.forest import Forest
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.options import EngineOptions, MaintenanceOptions
from storage.lsm.recovery.view import ViewAhead
from tests.storage.fs.places import PASSWORD, Place, contents

KIB = 1024
MIB = 1024 * KIB
SIZE = 8 * MIB


class QuietPlace(Place):
    """One where maintenance does nothing by itself."""

    @property
    def options(self) -> StoreOptions:
        maintenance = MaintenanceOptions(look_seconds=1e9)
        return replace(super().options, engine=EngineOptions(cache_bytes=16 * MIB, maintenance=maintenance))

    async def ahead(self) -> ViewAhead:
        unlocked = EarlyUnlock(str(self.folder), PASSWORD, 30.0, self.options.cost)
        found = await view_ahead(str(self.folder), unlocked, env=self.env, options=self.options)
        assert found is not None
        return found

    async def open_behind(self, ahead: ViewAhead) -> Store:
        return await open_store(str(self.folder), PASSWORD, env=self.env, options=replace(self.options, ahead=ahead))


async def nothing(store: Store) -> None:
    """Just a close."""


async def sectors(store: Store) -> None:
    for number in range(40):
        store.device("disk").write(number * 52 * KIB, bytes([number + 1]) * 4 * KIB)
    await store.maintenance.flush()
    store.device("disk").write(0, b"\x07" * 4 * KIB)


async def bulk(store: Store) -> None:
    store.device("disk").write(MIB, b"\x05" * (6 * MIB))
    await store.flush()


async def zeros(store: Store) -> None:
    store.device("disk").zero(256 * KIB, 3 * MIB, allocated=False)


async def compaction(store: Store) -> None:
    while (await store.maintenance.compact_step(None)).job is not None:
        pass


async def snapshot(store: Store) -> None:
    await store.snapshots.create(["disk"], "s")
    await sectors(store)


CONTINUES = [nothing, sectors, bulk, zeros]
Change = Callable[[Store], Awaitable[None]]


@pytest.mark.parametrize("change", [*CONTINUES, compaction, snapshot])
async def test_what_was_read_ahead_shows_all_that_came_after_it(tmp_path: Path, change: Change) -> None:
    place = QuietPlace(tmp_path)
    store = await place.open(create=True)
    await store.create_device("disk", SIZE)
    await sectors(store)
    await compaction(store)
    store.device("disk").write(5 * MIB + 4 * KIB, b"\x09" * 300 * KIB)
    await store.maintenance.flush()
    ahead = await place.ahead()
    await change(store)
    content = await contents(store.device("disk"))
    await store.close()
    store = await place.open_behind(ahead)
    assert (ahead.take([]) is None) == (change in CONTINUES), "it was used, or left"
    assert await contents(store.device("disk")) == content
    report = await store.check(CheckOptions(), CheckProgress())
    assert not report.findings
    await store.close()
    place.env.close()


async def test_what_another_writer_did_is_not_put_over_it(tmp_path: Path) -> None:
    place = QuietPlace(tmp_path)
    store = await place.open(create=True)
    await store.create_device("disk", SIZE)
    await sectors(store)
    ahead = await place.ahead()
    await store.close()
    store = await place.open()
    await bulk(store)
    content = await contents(store.device("disk"))
    await store.close()
    store = await place.open_behind(ahead)
    assert ahead.take([]) is not None
    assert await contents(store.device("disk")) == content
    await store.close()
    place.env.close()


def sst(number: int) -> SstRef:
    return SstRef(f"{number:026}", 1000, 500, bytes(16), 1)


LAYER = LoggedOperation(4, MakeLayer(1))
OLD = msgspec.structs.replace(
    EMPTY, epoch=3, closed=False, sequence=10, ssts=[sst(1), sst(2)], checkpoint=sst(9), operations=[LAYER]
)


def index(*, frame: int | None = None, zeros: int | None = None, victims: tuple[str, ...] = ()) -> SstIndex:
    """Of an SST with one row of that sequence."""
    entries = [] if frame is None else [SstEntry(1, 5, EntryKind.FULL, FULL_MASK, frame, 96, 100, 7)]
    ranges = [] if zeros is None else [RangeZero(1, 0, 5, zeros, allocated=False)]
    found = decode_index(encode_index(entries, ranges))
    found.victims.extend(victims)
    return found


def ahead_of(manifest: Manifest) -> ViewAhead:
    return ViewAhead(manifest, SstNumbers(), Forest())


@pytest.mark.parametrize(
    ("changed", "added"),
    [
        ({}, []),
        ({"closed": True, "sequence": 12, "ssts": [sst(1), sst(2), sst(3)]}, [sst(3)]),
        ({"epoch": 4}, None),
        ({"checkpoint": sst(8)}, None),
        ({"checkpoint": None}, None),
        ({"operations": []}, None),
        ({"operations": [LAYER, LoggedOperation(11, MakeLayer(2))]}, None),
        ({"ssts": [sst(2)]}, None),
        ({"ssts": [sst(1), sst(3), sst(2)]}, None),
    ],
)
def test_which_manifests_only_add_to_it(changed: dict[str, object], added: list[SstRef] | None) -> None:
    assert ahead_of(OLD).added(msgspec.structs.replace(OLD, **changed)) == added


@pytest.mark.parametrize(
    ("indexes", "used"),
    [
        ([], True),
        ([index(frame=11), index(zeros=12)], True),
        ([index(frame=11), index(frame=10)], False),
        ([index(zeros=10)], False),
        ([index(frame=11, victims=("v",))], False),
    ],
)
def test_it_is_used_once_and_only_if_all_rows_are_newer(indexes: list[SstIndex], used: bool) -> None:
    ahead = ahead_of(OLD)
    assert (ahead.take(indexes) is not None) == used
    assert (ahead.added(OLD) is None) == used
    assert (ahead.take([]) is None) == used, "what somebody writes to is nobody else's"
    ahead.drop()
    assert ahead.take([]) is None
