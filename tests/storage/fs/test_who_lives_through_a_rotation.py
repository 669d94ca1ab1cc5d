"""Who has the keys of a store from the midst of a rotation, and lives through its end, and through the next one."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from storage.check.read_run import CheckProgress
from storage.check.subject import Subject
from storage.check.survey import survey
from storage.crypto import keys
from storage.errors import Corrupt, KeyChanged
from storage.fs.check import CheckOptions
from storage.fs.early_unlock import EarlyUnlock, UnlockedBefore
from storage.fs.following import open_follower
from storage.fs.name_tree import NameTree
from storage.fs.opening import check_store, open_damaged, open_reader, open_standby, open_store
from storage.fs.store import Store
from tests.storage.fs.places import PASSWORD, contents, kill
from tests.storage.fs.rotating import COST, RotatedPlace, rotate
from tests.support.inside import engine_of, objects_of

OPEN_SECONDS = 120.0


@pytest.fixture
def place(tmp_path: Path) -> RotatedPlace:
    return RotatedPlace(tmp_path)


async def begun(place: RotatedPlace) -> None:
    """Rotated, and not served since: all is under the older key."""
    store = await place.make()
    await rotate(store)
    await store.close()


async def ended(place: RotatedPlace) -> Store:
    """Served, and the rotation has ended."""
    store = await place.open()
    await place.until(lambda: place.is_rotated(store) and engine_of(store).manifests.manifest.keys == 3)
    return store


async def test_a_follower_says_that_it_has_ended_and_goes_on(place: RotatedPlace) -> None:
    await begun(place)
    options = replace(place.options, look_seconds=0.05, state_folder=place.folder.parent / "elsewhere")
    follower = await open_follower(str(place.folder), PASSWORD, env=place.env, options=options)
    left = follower.newest.status().rotation
    assert left is not None
    assert left.left_objects > 0
    store = await ended(place)
    newest = engine_of(store).manifests.number
    await place.until(lambda: engine_of(follower.newest).manifests.number >= newest)
    assert follower.newest.status().rotation is None
    await place.holds(follower.newest)

    await rotate(store)
    await store.close()
    store = await place.open()
    async with asyncio.timeout(OPEN_SECONDS):
        assert isinstance(await follower.failed, KeyChanged)
    await follower.close()
    await store.close()


async def test_a_log_that_is_all_under_the_newer_key_is_not_left(place: RotatedPlace) -> None:
    """To who has both keys, and sees the log of a writer that goes on."""
    await begun(place)
    early = EarlyUnlock(str(place.folder), PASSWORD, OPEN_SECONDS, COST)
    options = replace(place.options, unlocked=early)
    await early.result()
    reader = await open_reader(str(place.folder), PASSWORD, env=place.env, options=options)
    left = reader.status().rotation
    assert left is not None
    assert left.left_objects > 1
    await reader.close()
    store = await ended(place)
    place.some(store)
    await store.flush()
    reader = await open_reader(str(place.folder), PASSWORD, env=place.env, options=options)
    left = reader.status().rotation
    assert left is not None
    assert left.left_objects == 0
    await reader.close()
    await store.close()


async def test_a_writer_whose_key_was_rotated_away_says_what_the_rotation_waits_for(place: RotatedPlace) -> None:
    """A server that was read ahead by a restart, or stood by, since the midst of the rotation before."""
    await begun(place)
    early = EarlyUnlock(str(place.folder), PASSWORD, OPEN_SECONDS, COST)
    await early.result()
    store = await ended(place)
    await rotate(store)
    await store.close()
    unlocked = UnlockedBefore(str(place.folder), early, OPEN_SECONDS)
    store = await open_store(
        str(place.folder), PASSWORD, env=place.env, options=replace(place.options, unlocked=unlocked)
    )
    assert store.key_id == 2
    await place.holds(store)

    def waits() -> bool:
        found = store.status().rotation
        return found is not None and found.left_objects == 0 and "nbdserver restart" in found.waits_for

    await place.until(waits)
    await store.close()
    store = await place.open()
    assert store.key_id == 3
    await place.until(lambda: place.is_rotated(store))
    await place.holds(store)
    await store.close()


async def test_older_keys_that_were_put_back_are_said_to_be_so_to_everybody(place: RotatedPlace) -> None:
    """To be started again does not help then."""
    store = await place.make()
    older = {name: raw for name, raw in place.files().items() if name.endswith(".keys")}
    await rotate(store)
    await store.close()
    await (await ended(place)).close()
    for path in place.folder.glob("*/*.keys"):
        path.unlink()
    for name, raw in older.items():
        (place.folder / name).write_bytes(raw)
    said = "which no keys object there holds: an older one was put back"
    with pytest.raises(Corrupt, match=said) as refused:
        await open_follower(str(place.folder), PASSWORD, env=place.env, options=place.options)
    assert not isinstance(refused.value, KeyChanged)
    early = EarlyUnlock(str(place.folder), PASSWORD, OPEN_SECONDS, COST)
    standby = await open_standby(str(place.folder), early, env=place.env, options=place.options)
    with pytest.raises(Corrupt, match=said):
        await standby.wait()
    await standby.close()


async def test_a_check_that_was_begun_before_a_change_of_keys_finds_no_damage(place: RotatedPlace) -> None:
    """Of a store that a server elsewhere has: between the keys and the newest manifest that changes the password, and
    then the data key.
    """
    store = await place.make()
    key, number = await keys.load(objects_of(store), PASSWORD, place.env, COST)
    await store.passwords.add(PASSWORD, b"another", "second")
    options = place.options.engine
    subject = Subject(objects_of(store), key, number, place.env, NameTree, None, options=options)
    assert [each.sentence for each in (await survey(subject)).findings.all] == []
    await store.passwords.rotate_key(PASSWORD, [b"another"], drop_others=False)
    await store.close()
    store = await place.open()
    subject = Subject(objects_of(store), key, number, place.env, NameTree, None, options=options)
    with pytest.raises(KeyChanged, match="start it again"):
        await survey(subject)
    await store.close()


async def test_keys_of_a_later_moment_than_the_rest_are_refused(place: RotatedPlace) -> None:
    """An older copy of a store, and beside it the keys of now. Where a checkpoint has the rows of all that the retired
    key sealed, nothing of that is opened before somebody reads it.
    """
    await begun(place)
    place.look_seconds = 1e9
    store = await place.open()
    manifests = engine_of(store).manifests
    while (checkpoint := manifests.manifest.checkpoint) is None or checkpoint.key_id == 1:
        await store.maintenance.compact_step(None)
    await place.until(lambda: (tree := manifests.manifest.tree) is not None and tree.key_id == 2)
    await kill(store)
    midst = place.files()
    place.look_seconds = 0.01
    await (await ended(place)).close()
    later = {name: raw for name, raw in place.files().items() if name.endswith(".keys")}
    copy = RotatedPlace(place.folder.parent / "copy")
    for name, raw in {**{name: raw for name, raw in midst.items() if not name.endswith(".keys")}, **later}.items():
        (copy.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (copy.folder / name).write_bytes(raw)
    said = "data key 1, which keys/ holds no more: that is of a later moment"
    with pytest.raises(Corrupt, match=said):
        await copy.open(take_over=True)
    with pytest.raises(Corrupt, match=said):
        await copy.reader()
    check, progress = CheckOptions(read_data=False, rate=0), CheckProgress()
    report = await check_store(
        str(copy.folder), PASSWORD, env=copy.env, check=check, progress=progress, options=copy.options
    )
    assert len([each for each in report.findings if said.partition(", which ")[2] in each.sentence]) == 1
    damaged = await open_damaged(str(copy.folder), PASSWORD, env=copy.env, options=copy.options)
    with pytest.raises(Corrupt, match="is sealed under data key 1, which is not known"):
        await contents(damaged.device("disk"))
    await damaged.close()
