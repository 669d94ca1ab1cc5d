"""A store before, during and after a rotation of its data key, as others see it: a check, a reader, two programs
that were written from the page of the format alone.
"""

from pathlib import Path

import pytest

from storage.errors import Corrupt
from storage.format.envelope import NO_LINK, ObjectKind
from storage.format.manifest import encode
from storage.format.names import manifest_name
from tests.storage.fs.forging import Forger, in_the_midst
from tests.storage.fs.places import PASSWORD, kill
from tests.storage.fs.rotating import RotatedPlace, rotate
from tests.support.format_reader import FormatReader
from tests.support.inside import engine_of
from tests.support.recover_script import recover


@pytest.fixture
def place(tmp_path: Path) -> RotatedPlace:
    return RotatedPlace(tmp_path)


async def all_read_it(place: RotatedPlace, tmp_path: Path) -> None:
    """A check, two programs written from the page alone, and a reader."""
    await place.is_whole()
    reader = FormatReader(place.folder, PASSWORD)
    script = recover.Store(place.folder, PASSWORD)
    assert script.missing == []
    for name, content in place.disks.items():
        assert reader.content(name) == content
        assert script.export(script.tree.disks()[name], tmp_path / "image") == []
        assert (tmp_path / "image").read_bytes() == content
        (tmp_path / "image").unlink()
    store = await place.reader()
    rotation = store.status().rotation
    assert (rotation is not None and rotation.left_objects > 0) == (store.key_id == 2 and bool(place.of_key(1)))
    await place.holds(store)
    await store.close()


async def test_everything_reads_it_before_during_and_after(place: RotatedPlace, tmp_path: Path) -> None:
    store = await place.make()
    await kill(store)
    await all_read_it(place, tmp_path)
    store = await place.open()
    old_keys = place.files()["keys/00000000000000000001.keys"]
    await rotate(store)
    await kill(store)
    await all_read_it(place, tmp_path)

    place.look_seconds = 1e9
    store = await place.open()
    status = store.status().rotation
    assert status is not None
    assert (status.key, status.older_keys) == (2, [1])
    assert status.left_objects > 0
    place.some(store)
    await store.flush()
    await kill(store)
    assert place.of_key(1)
    assert place.of_key(2)
    await all_read_it(place, tmp_path)

    place.look_seconds = 0.01
    store = await place.open()
    await place.until(lambda: place.is_rotated(store))
    assert place.of_key(1) == []
    assert sorted(name for name in place.files() if name.startswith("keys/")) == ["keys/00000000000000000003.keys"]
    await place.holds(store)
    place.some(store)
    await store.close()
    await all_read_it(place, tmp_path)

    # Who puts the old object back, with the password of then, gets nothing.
    for folder in ("keys", "spare"):
        (place.folder / folder / "00000000000000000003.keys").unlink()
    (place.folder / "keys/00000000000000000001.keys").write_bytes(old_keys)
    with pytest.raises(Corrupt):
        await place.open()


async def test_manifests_from_before_it_that_land_late_say_nothing_about_the_store(place: RotatedPlace) -> None:
    """A writer that was overtaken had another one on its way in the place of each that was committed."""
    store = await in_the_midst(place)
    await store.close()
    newest = engine_of(store).manifests.manifest
    late = set(range(1, newest.takeovers[-1])) - set(newest.takeovers)
    assert any(number + 1 in newest.takeovers for number in late)
    assert any(number + 1 in late for number in late)
    for number in late:
        raw = Forger(place, engine_of(store)).make(ObjectKind.MANIFEST, number, encode(newest), NO_LINK, newest.epoch)
        (place.folder / manifest_name(number)).write_bytes(raw)
    await place.is_whole()


async def test_what_was_made_with_the_older_key_alone_is_no_part_of_it(place: RotatedPlace) -> None:
    """A newest manifest, and an end of the log."""
    store = await in_the_midst(place)
    await store.close()
    forger = Forger(place, engine_of(store))
    path = forger.manifest()
    with pytest.raises(recover.Stop, match="under an older key"):
        recover.Store(place.folder, PASSWORD)
    path.unlink()
    forger.end_of_log(engine_of(store).epoch)
    assert "under an older key" in recover.Store(place.folder, PASSWORD).missing[0]
