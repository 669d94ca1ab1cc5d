"""Maintenance that somebody asks for: what is said before it, what it does, and what is kept."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from storage.crypto.keyslots import Cost
from storage.env import RealEnv
from storage.errors import AccessDenied, NotFound
from storage.format.names import manifest_name
from storage.fs.opening import open_reader, open_store
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.lsm.gc import sweep
from storage.lsm.options import MANIFESTS_KEPT, EngineOptions, MaintenanceOptions
from storage.objects.local import LocalStore
from tests.simulation.virtual import in_virtual_time
from tests.storage.fs.places import contents
from tests.storage.fs.snapshots.test_clearing import DAY, Clock
from tests.support.inside import at_rest, engine_of

KIB = 1024
MIB = 1024 * KIB
BLOCK = 256 * KIB
SIZE = 8 * MIB
PASSWORD = b"password"


class Place:
    def __init__(self, folder: Path, *, manifests_kept: int = MANIFESTS_KEPT) -> None:
        self.folder = folder / "store"
        maintenance = MaintenanceOptions(look_seconds=1e9)
        self.options = StoreOptions(
            engine=EngineOptions(maintenance=maintenance, manifests_kept=manifests_kept),
            state_folder=folder / "state",
            cost=Cost.for_tests(),
        )

    async def open(self, *, create: bool = False) -> Store:
        return await open_store(f"file://{self.folder}", PASSWORD, env=RealEnv(), create=create, options=self.options)

    async def reader(self) -> Store:
        return await open_reader(f"file://{self.folder}", PASSWORD, env=RealEnv(), options=self.options)

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    async def overwritten(self) -> tuple[Store, bytes]:
        """A store with two devices that were overwritten, and what the first one holds."""
        store = await self.open(create=True)
        draw = random.Random(1)
        for name in ("a", "b"):
            await store.create_device(name, SIZE)
            store.device(name).write(0, draw.randbytes(SIZE // 2))
            for _ in range(3):
                for _ in range(20):
                    store.device(name).write(4 * KIB * draw.randrange(SIZE // 4 // KIB), draw.randbytes(4 * KIB))
                store.device(name).write(BLOCK * draw.randrange(8), draw.randbytes(BLOCK * 4))
                await store.maintenance.flush()
        await at_rest(store)
        return store, await contents(store.device("a"))


async def compacted(store: Store, device: str | None) -> list[str]:
    """The kinds of all jobs until nothing is left to do."""
    jobs: list[str] = []
    for _ in range(200):
        step = await store.maintenance.compact_step(device)
        if step.job is None:
            return jobs
        jobs.append(step.job)
    raise AssertionError("a compaction does not come to its end")


async def test_a_compaction_says_what_it_would_do_does_it_and_comes_to_its_end(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store, content = await place.overwritten()
    before = place.files()
    plan = await store.maintenance.plan_compaction(None)
    assert place.files() == before, "a plan writes nothing"
    assert plan.stored_before == store.status().stored_bytes
    assert plan.stored_after < plan.stored_before
    assert plan.consolidated > 0
    jobs = await compacted(store, None)
    assert {"WriteCheckpoint", "Drop", "Consolidate"} <= set(jobs)
    assert len(jobs) == len(await compacted(store, None)) + len(jobs), "a second one has nothing to do"
    engine = engine_of(store)
    assert not engine.manifests.manifest.ssts, "a start reads nothing beside the checkpoint"
    assert not any(layer.index.is_patched(block) for layer in engine.layers.values() for block in range(SIZE // BLOCK))
    await store.count_usage()
    status = store.status()
    assert status.dead_bytes <= status.live_bytes // 9
    assert await contents(store.device("a")) == content
    after = await store.maintenance.plan_compaction(None)
    assert (after.stored_after, after.uploaded_bytes, after.consolidated) == (after.stored_before, 0, 0)
    await store.close()
    store = await place.open()
    assert await contents(store.device("a")) == content
    await store.close()


async def test_one_device_is_compacted_and_the_other_left(tmp_path: Path) -> None:
    store, content = await Place(tmp_path).overwritten()
    with pytest.raises(NotFound):
        await store.maintenance.compact_step("nobody")
    first, second = engine_of(store).layers.values()
    patched = [block for block in range(SIZE // BLOCK) if second.index.is_patched(block)]
    assert patched
    of_one, of_both = [await store.maintenance.plan_compaction(device) for device in ("a", None)]
    assert 0 < of_one.consolidated < of_both.consolidated
    await compacted(store, "a")
    assert not any(first.index.is_patched(block) for block in range(SIZE // BLOCK))
    assert [block for block in range(SIZE // BLOCK) if second.index.is_patched(block)] == patched
    assert await contents(store.device("a")) == content
    await store.close()


async def test_a_reader_plans_and_writes_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store, _ = await place.overwritten()
    await store.close()
    before = place.files()
    reader = await place.reader()
    assert (await reader.maintenance.plan_compaction(None)).stored_before == reader.status().stored_bytes
    await reader.maintenance.collect(dry_run=True)
    for refused in (reader.maintenance.compact_step(None), reader.maintenance.collect(dry_run=False)):
        with pytest.raises(AccessDenied):
            await refused
    await reader.close()
    assert place.files() == before


async def test_what_nothing_needs_is_deleted_now_and_what_is_kept_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, manifests_kept=1)
    store, _ = await place.overwritten()
    await compacted(store, None)
    await store.close()
    # What a crashed writer leaves. The name of an SST has its writer's epoch.
    sst = next(path for path in (place.folder / "compacted").iterdir())
    young = sst.with_name(sst.name[:-7] + "000.sst")
    young.write_bytes(sst.read_bytes())
    store = await place.open()
    plan = await store.maintenance.collect(dry_run=True)
    (kept,) = [kept for kept in plan.kept if "younger than a day" in kept.reason]
    assert kept.objects >= 1
    await store.delete_device("b")
    store.device("a").zero(0, SIZE, allocated=False)
    await store.maintenance.flush()
    done = await store.maintenance.collect(dry_run=False)
    assert (done.waiting, done.refused) == (0, False)
    assert done.dropped > 0
    assert not len((await engine_of(store).compactor.look()).ssts.unused)
    manifests = engine_of(store).manifests
    kept_manifests = {manifest_name(number) for number in (manifests.number, *manifests.manifest.takeovers)}
    assert {path.relative_to(place.folder).as_posix() for path in place.folder.glob("manifest/*")} == kept_manifests
    assert kept.objects == next(kept.objects for kept in done.kept if "younger than a day" in kept.reason)
    assert young.exists()
    listed = {ref.id for ref in engine_of(store).manifests.listed()}
    left = {path.stem for path in (place.folder / "compacted").glob("*.sst")}
    assert listed <= left

    def refused(self: LocalStore, names: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(LocalStore, "_delete", refused)
    store.device("a").write(0, bytes([1]) * BLOCK)
    await store.maintenance.flush()
    assert (await store.maintenance.collect(dry_run=False)).refused
    monkeypatch.undo()
    assert await contents(store.device("a"), BLOCK, BLOCK) == bytes(BLOCK)
    await store.close()


async def test_a_dry_run_deletes_no_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: sweep.Sweeper, seconds: float) -> None:
        """The sweep in the background, on a slow machine, would find the leftover before this test asks."""

    monkeypatch.setattr(sweep.Sweeper, "run", never)
    place = Place(tmp_path)
    store, _ = await place.overwritten()
    await store.close()
    sst = next(path for path in (place.folder / "compacted").iterdir())
    left = sst.with_name(sst.name[:-7] + "000.sst")
    left.write_bytes(sst.read_bytes())
    store = await place.open()
    await store.maintenance.collect(dry_run=False)
    assert left.exists(), "it is young"
    await store.close()
    now = msgspec.structs.replace(place.options.engine, leftover_seconds=0.0)
    place.options = replace(place.options, engine=now)
    store = await place.open()
    await at_rest(store)
    plan = await store.maintenance.collect(dry_run=True)
    assert plan.leftovers > 0
    assert (plan.waiting, plan.deleted) == (0, 0)
    assert left.exists()
    done = await store.maintenance.collect(dry_run=False)
    assert (done.leftovers, done.waiting) == (plan.leftovers, 0)
    assert not left.exists()
    await store.close()


@pytest.mark.parametrize("scrub_seconds", [None, 2 * DAY])
def test_who_asked_for_a_scrub_has_all_read_in_time_and_nobody_else(scrub_seconds: float | None) -> None:
    async def case() -> None:
        engine = EngineOptions(watch_seconds=DAY, sweep_seconds=DAY, maintenance=MaintenanceOptions(look_seconds=DAY))
        options = StoreOptions(engine=engine, cost=Cost.for_tests(), scrub_seconds=scrub_seconds)
        env = Clock()
        store = await open_store("memory://", PASSWORD, env=env, create=True, options=options)
        await store.create_device("a", MIB)
        store.device("a").write(0, b"x" * MIB)
        await store.maintenance.flush()
        await asyncio.sleep(1.5 * DAY)
        said = {one.since: one.ssts for one in (await store.maintenance.read_report()).last_read if one.ssts}
        assert said == ({"never": 1} if scrub_seconds is None else {"within a day": 1})
        await store.close()
        env.close()

    in_virtual_time(case())


async def test_maintenance_rests_behind_a_flush_ahead_and_a_close_waits_for_no_rest(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store, content = await place.overwritten()
    engine = engine_of(store)
    await store.maintenance.flush_ahead()
    assert engine.compactor.working.locked(), "no job begins"
    number = engine.manifests.number
    await store.maintenance.flush_ahead()
    assert engine.manifests.number == number, "again it is the same rest"
    async with asyncio.timeout(10):
        await store.close()
    store = await place.open()
    assert await contents(store.device("a")) == content
    await store.close()
