"""A rotation of the data key beside everything else: restarts, copies of the store, who is attached, checks."""

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from storage.check.anatomy import anatomy
from storage.check.read_run import CheckProgress
from storage.crypto import key_rotation, keys
from storage.errors import Closed, Conflict, KeyChanged
from storage.format.envelope import ObjectKind
from storage.format.names import MANIFESTS, SPARES, TABLES, WALS, wal_name
from storage.fs.check import CheckOptions
from storage.fs.early_unlock import EarlyUnlock, UnlockedBefore
from storage.fs.opening import open_store, view_ahead
from storage.fs.store import Store
from storage.fs.succession.stored_attachments import StoredAttachments
from storage.lsm.compaction.compactor import Compactor
from storage.lsm.options import LEFTOVER_SECONDS_MIN
from tests.storage.fs.places import PASSWORD, kill
from tests.storage.fs.rotating import COST, KEY_ID_AT, KIND_AT, RotatedPlace, rotate
from tests.support.inside import engine_of, objects_of

OPEN_SECONDS = 120.0


@pytest.fixture
def place(tmp_path: Path) -> RotatedPlace:
    return RotatedPlace(tmp_path)


async def to_the_end(place: RotatedPlace, store: Store) -> None:
    """All is sealed anew, and there as it was."""
    await place.until(lambda: place.is_rotated(store))
    assert place.of_key(1) == []
    await place.holds(store)
    await store.close()
    await place.is_whole()


async def test_a_key_drawn_between_the_read_ahead_and_the_take_over_is_taken_at_the_next_start(
    place: RotatedPlace,
) -> None:
    """`nbdserver restart` opens the keys, and reads ahead, while the old server has the store."""
    store = await place.make()
    early = EarlyUnlock(str(place.folder), PASSWORD, OPEN_SECONDS, COST)
    ahead = await view_ahead(str(place.folder), early, env=place.env, options=place.options)
    await rotate(store)
    place.some(store)
    await store.close()
    before = UnlockedBefore(str(place.folder), early, OPEN_SECONDS)
    options = replace(place.options, unlocked=before, ahead=ahead)
    store = await open_store(str(place.folder), PASSWORD, env=place.env, options=options)
    assert store.key_id == 1, "what it had been given"
    await place.holds(store)
    place.some(store)
    await store.close()
    assert place.of_key(2) == []

    store = await place.open()
    assert store.key_id == 2
    await to_the_end(place, store)
    # Who was given the older key only, and comes now, is told so, and has changed nothing.
    files = place.files()
    with pytest.raises(KeyChanged, match="start it again"):
        await open_store(str(place.folder), PASSWORD, env=place.env, options=options)
    assert place.files() == files


async def test_a_number_of_keys_that_nobody_vouches_for_takes_the_place_of_none(place: RotatedPlace) -> None:
    """Somebody who can create objects, and has no key, makes one of a higher number while a server is started again."""
    store = await place.make()
    early = EarlyUnlock(str(place.folder), PASSWORD, OPEN_SECONDS, COST)
    await early.result()
    await store.close()
    sound = place.files()
    (place.folder / keys.keys_name(99)).write_bytes(b"anything")
    options = replace(place.options, unlocked=UnlockedBefore(str(place.folder), early, OPEN_SECONDS))
    store = await open_store(str(place.folder), PASSWORD, env=place.env, options=options)
    place.some(store)
    await store.close()
    found = place.files()
    assert found[keys.keys_name(1)] == sound[keys.keys_name(1)]
    # Nor does it come to the manifest, which would miss it when somebody takes it away.
    (place.folder / keys.keys_name(99)).unlink()
    store = await place.open()
    await place.holds(store)
    await store.close()


async def test_what_went_past_the_log_under_the_newer_key_is_found_behind_a_kill(place: RotatedPlace) -> None:
    """The log refers to an SST, and does not say by itself which key that is of: its object's key is."""
    store = await place.make()
    await rotate(store)
    await store.close()
    place.look_seconds = 1e9
    store = await place.open()
    size = 8 << 20
    await store.create_device("large", size)
    place.disks["large"] = bytearray(os.urandom(size))
    before = set(place.of_key(2))
    store.device("large").write(0, bytes(place.disks["large"]))
    await store.flush()
    await kill(store)
    assert [name for name in set(place.of_key(2)) - before if name.startswith("compacted/")]
    store = await place.open()
    await place.holds(store)
    await store.close()


async def test_what_was_read_ahead_under_both_keys_is_gone_on_with(place: RotatedPlace) -> None:
    """A restart in the midst of a rotation; and one during which it ends."""
    store = await place.make()
    await rotate(store)
    await store.close()
    place.look_seconds = 1e9
    store = await place.open()
    place.some(store)
    early = EarlyUnlock(str(place.folder), PASSWORD, OPEN_SECONDS, COST)
    ahead = await view_ahead(str(place.folder), early, env=place.env, options=place.options)
    await store.close()
    assert place.of_key(1)
    unlocked = UnlockedBefore(str(place.folder), early, OPEN_SECONDS)
    store = await open_store(
        str(place.folder), PASSWORD, env=place.env, options=replace(place.options, unlocked=unlocked, ahead=ahead)
    )
    await place.holds(store)
    await store.close()
    place.look_seconds = 0.01
    await to_the_end(place, await place.open())
    options = replace(place.options, unlocked=UnlockedBefore(str(place.folder), early, OPEN_SECONDS), ahead=ahead)
    store = await open_store(str(place.folder), PASSWORD, env=place.env, options=options)
    await to_the_end(place, store)


async def test_a_check_of_a_server_with_the_older_key_finds_nothing(place: RotatedPlace) -> None:
    store = await place.make()
    await rotate(store)
    report = await store.check(CheckOptions(read_data=True, rate=0), CheckProgress())
    assert report.findings == []
    await store.close()


async def test_of_changes_at_once_the_newest_counts_whichever_says_so_first(place: RotatedPlace) -> None:
    """The end of a rotation, and a change of passwords, come to the manifest in any order."""
    store = await place.make()
    await rotate(store)
    await store.close()
    place.look_seconds = 1e9
    store = await place.open()
    engine = engine_of(store)
    engine.keys_are(9)
    engine.keys_are(8)
    await engine.flush_memtable(always=True)
    assert engine.manifests.manifest.keys == 9
    assert not store.failed.done()
    await kill(store)


async def test_what_lands_late_keeps_no_rotation_from_its_end(place: RotatedPlace) -> None:
    """Manifests, and SSTs that its writer has let go, arrive once more from a proxy that repeats requests."""
    store = await place.make()
    late = place.files()
    await rotate(store)
    await store.close()
    store = await place.open()

    def arrive() -> bool:
        if place.is_rotated(store):
            return True  # what arrives later waits for the next sweep
        for name, raw in late.items():
            if name.startswith((MANIFESTS, SPARES, "compacted/")) and not name.endswith(".keys"):
                path = place.folder / name
                if not path.exists() and name not in place.takeovers:
                    path.write_bytes(raw)
        return not engine_of(store).source.older.keys() & named(store)

    await place.until(arrive)
    await to_the_end(place, store)


async def test_what_a_kill_left_below_a_manifest_keeps_no_rotation_from_its_end(place: RotatedPlace) -> None:
    """A kill between the commit of a flush and its deletions, of the log and of the older tree of names. The rotation
    does not wait a day for the sweep.
    """
    place.leftover_seconds = LEFTOVER_SECONDS_MIN
    store = await place.make()
    await rotate(store)
    place.some(store)
    await store.flush()
    await kill(store)
    before = {name: raw for name, raw in place.files().items() if name.startswith((WALS, TABLES))}
    place.look_seconds = 1e9
    store = await place.open()
    await engine_of(store).flush_memtable(always=True)
    await engine_of(store).garbage.finish()
    await kill(store)
    left = before.keys() - place.files().keys()
    assert {name.partition("/")[0] + "/" for name in left} == {WALS, TABLES}
    for name in left:
        (place.folder / name).write_bytes(before[name])
    place.look_seconds = 0.01
    store = await place.open()
    await to_the_end(place, store)
    assert {wal_name(number) for number in engine_of(store).manifests.manifest.fences} <= place.files().keys()


def named(store: Store) -> set[str]:
    """The SSTs that its manifest lists."""
    return {f"compacted/{ref.id}.sst" for ref in engine_of(store).manifests.listed()}


async def test_who_was_attached_is_known_before_during_and_after(place: RotatedPlace) -> None:
    store = await place.make()

    def records() -> StoredAttachments:
        return StoredAttachments(objects_of(store), engine_of(store).key, place.env)

    await records().keep(store.epoch, b"who is attached")
    epoch = store.epoch
    await rotate(store)
    await store.close()
    place.look_seconds = 1e9
    store = await place.open()
    assert await records().load() == (epoch, b"who is attached")
    await store.close()
    place.look_seconds = 0.01
    store = await place.open()
    await place.until(lambda: place.is_rotated(store))
    assert await records().load() == (epoch, b"who is attached")
    await records().keep(store.epoch, b"others")
    assert await records().load() == (store.epoch, b"others")
    await to_the_end(place, store)


async def test_a_copy_that_is_adopted_in_the_midst_has_an_end_of_its_own(place: RotatedPlace, tmp_path: Path) -> None:
    store = await place.make()
    await rotate(store)
    await store.close()
    place.look_seconds = 1e9
    store = await place.open()
    place.some(store)
    await store.close()
    other = RotatedPlace(tmp_path / "other")
    other.disks = {name: bytearray(content) for name, content in place.disks.items()}
    shutil.copytree(place.folder, other.folder)
    await to_the_end(other, await other.open(adopt=True))
    place.look_seconds = 0.01
    store = await place.open()
    await to_the_end(place, store)


async def test_each_object_says_what_it_is_under_either_key(place: RotatedPlace) -> None:
    store = await place.make()
    await rotate(store)
    await store.close()
    place.look_seconds = 1e9
    store = await place.open()
    place.some(store)
    await store.maintenance.flush()
    await store.maintenance.compact_step(None)
    place.some(store)
    await store.flush()
    key = engine_of(store).key
    await kill(store)
    objects = place.files()
    found = {name: anatomy(name, raw, key, records=True) for name, raw in objects.items()}
    kinds = {each["kind"] for each in found.values()}
    assert kinds >= {"keys", "manifest", "wal", "fence", "data", "metadata", "checkpoint"}
    assert {raw[KIND_AT] for name, raw in objects.items() if raw[KEY_ID_AT] == 2} >= {
        ObjectKind.DATA,
        ObjectKind.CHECKPOINT,
    }


async def test_a_writer_that_is_superseded_takes_no_older_key_away(place: RotatedPlace, tmp_path: Path) -> None:
    """It does not know it yet, and all that it saw was done: so was it for whoever came after it."""
    store = await place.make()
    await rotate(store)
    await store.close()
    place.look_seconds = 1e9
    stalled = await place.open()
    key = engine_of(stalled).key
    elsewhere = replace(place.options, state_folder=tmp_path / "elsewhere")
    second = await open_store(str(place.folder), PASSWORD, env=place.env, take_over=True, options=elsewhere)
    place.some(second)
    await second.flush()
    assert not engine_of(stalled).failed.done()
    await asyncio.gather(engine_of(stalled).flush_memtable(always=True), return_exceptions=True)
    await stalled.close()
    found, _ = await keys.load(objects_of(second), PASSWORD, place.env, COST)
    assert [each.key_id for each in found.older] == [1]
    assert await key_rotation.retire(objects_of(second), key.older[0], COST) is None
    await place.holds(second)
    await kill(second)
    assert isinstance(await second.failed, Closed)


async def test_what_a_read_may_still_ask_for_is_left_to_maintenance(
    place: RotatedPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: while an answer of the store took a minute the SST was repacked, and then deleted as one that an older key
    had sealed: the read failed as if the data were lost.
    """
    store = await place.make()
    await rotate(store)
    await store.close()
    raw = {name: content for name, content in place.files().items() if name.startswith(TABLES)}

    async def not_yet(*_: object) -> None:
        raise Conflict("the test goes on first")

    with monkeypatch.context() as patched:
        patched.setattr(key_rotation, "retire", not_yet)
        patched.setattr(Compactor, "may_be_read", lambda *_: True)
        store = await place.open()
        await place.until(lambda: not [name for name in place.of_key(1) if name in raw])
        for name, content in raw.items():
            (place.folder / name).write_bytes(content)
        await place.until(lambda: "objects that are to be deleted" in waits_for(store))
        await engine_of(store).garbage.delete_now()
        assert {name for name in place.of_key(1) if name in raw} == set(raw)
    await to_the_end(place, store)


def waits_for(store: Store) -> str:
    rotation = store.status().rotation
    assert rotation is not None
    return rotation.waits_for
