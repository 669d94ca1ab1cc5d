"""Who has only the older data key, and can write to the bucket: while both are in use what he makes is refused; what he
sets back, then and afterwards, a host that has not seen the newer key takes, unless the password is another one.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from storage.errors import Corrupt, RolledBack, WrongPassword
from storage.format.envelope import HEADER_BYTES
from storage.format.manifest import Manifest
from storage.format.names import MANIFESTS, SPARES, manifest_name
from storage.fs.opening import open_store
from storage.fs.store import Store
from tests.storage.fs.forging import Forger, in_the_midst
from tests.storage.fs.places import PASSWORD, kill
from tests.storage.fs.rotating import KEY_ID_AT, PARTS_AT, SIZE_AT, VERSION_AT, RotatedPlace, rotate
from tests.support.format_reader import FormatReader
from tests.support.inside import engine_of
from tests.support.recover_script import recover


@pytest.fixture
def place(tmp_path: Path) -> RotatedPlace:
    return RotatedPlace(tmp_path)


async def open_elsewhere(place: RotatedPlace, tmp_path: Path, password: bytes = PASSWORD) -> Store:
    """By a host that remembers nothing."""
    options = replace(place.options, state_folder=tmp_path / "elsewhere")
    return await open_store(str(place.folder), password, env=place.env, take_over=True, options=options)


async def refused_to_all(place: RotatedPlace, tmp_path: Path) -> None:
    """To who reads, to this host, and to another one."""
    with pytest.raises(Corrupt, match="somebody who has an older key alone"):
        await place.reader()
    with pytest.raises(Corrupt, match="somebody who has an older key alone"):
        await place.open()
    with pytest.raises(Corrupt, match="somebody who has an older key alone"):
        await open_elsewhere(place, tmp_path)


@pytest.mark.parametrize("copies_stay", [True, False])
async def test_a_newest_manifest_is_refused_by_each_host(
    place: RotatedPlace, tmp_path: Path, copies_stay: bool
) -> None:
    """Also where he deleted the copies of those under the newer key: their writer had committed."""
    store = await in_the_midst(place)
    await store.close()
    path = Forger(place, engine_of(store)).manifest()
    for name in [] if copies_stay else [each for each in place.files() if each.startswith(SPARES)]:
        if name.endswith(".manifest"):
            (place.folder / name).unlink()
    await refused_to_all(place, tmp_path)
    with pytest.raises(ValueError, match="the newest manifest is under an older key"):
        FormatReader(place.folder, PASSWORD)
    path.unlink()
    store = await open_elsewhere(place, tmp_path)
    await place.holds(store)
    await store.close()


@pytest.mark.parametrize("takeover_stays", [False, True])
async def test_where_what_was_before_it_is_gone_too_this_host_knows_better(
    place: RotatedPlace, takeover_stays: bool
) -> None:
    """A take-over without a copy, and with nothing of its writer behind it, is as good as none: so lies that of
    somebody who was too slow, and took a number that a deleted manifest had left.
    """
    store = await in_the_midst(place)
    await store.close()
    kept = manifest_name(engine_of(store).manifests.manifest.takeovers[-1]) if takeover_stays else ""
    own = Forger(place, engine_of(store)).manifest()
    for name, raw in place.files().items():
        if name.startswith((MANIFESTS, "spare/")) and name.endswith(".manifest") and raw[KEY_ID_AT] == 2:
            if name == kept:
                continue
            (place.folder / name).unlink()
    assert own.exists()
    assert (place.folder / kept).exists()
    FormatReader(place.folder, PASSWORD)
    with pytest.raises(RolledBack, match="has an older key"):
        await place.open()


@pytest.mark.parametrize("what", ["another key", "another format", "nothing behind it"])
async def test_no_header_alone_keeps_a_store_from_being_opened(place: RotatedPlace, what: str) -> None:
    """Who has no key at all names one, or another format, in the header of a manifest that counts for nothing."""
    store = await place.make()
    await rotate(store)
    await store.close()
    first = place.folder / manifest_name(1)
    raw = bytearray(first.read_bytes())
    raw[VERSION_AT if what == "another format" else KEY_ID_AT] = 2
    if what == "nothing behind it":
        del raw[HEADER_BYTES:]
        raw[SIZE_AT : SIZE_AT + 8], raw[PARTS_AT : PARTS_AT + 4] = HEADER_BYTES.to_bytes(8, "little"), bytes(4)
    first.write_bytes(raw)
    assert recover.Store(place.folder, PASSWORD).missing == []
    store = await place.open()
    await place.holds(store)
    await store.close()


@pytest.mark.parametrize("ended", ["closed", "killed", "killed at the start"])
async def test_an_end_of_the_log_is_refused_by_each_host(place: RotatedPlace, tmp_path: Path, ended: str) -> None:
    """Behind all that was flushed, behind objects of the newer key, and behind the fence."""
    store = await in_the_midst(place)
    if ended == "killed":
        await kill(store)
    else:
        await store.close()
    if ended == "killed at the start":
        store = await place.open()
        await kill(store)
    path = Forger(place, engine_of(store)).end_of_log(engine_of(store).epoch)
    await refused_to_all(place, tmp_path)
    with pytest.raises(ValueError, match="the log goes back to an older key"):
        FormatReader(place.folder, PASSWORD)
    path.unlink()
    store = await open_elsewhere(place, tmp_path)
    await place.holds(store)
    await store.close()


async def test_the_manifest_says_from_where_on_the_log_is_under_its_key(place: RotatedPlace) -> None:
    """Of the first take-over under a key it is not known; that goes on over the next one."""
    found: list[Manifest] = []
    store = await place.make()
    found.append(engine_of(store).manifests.manifest)
    await rotate(store)
    await store.close()
    place.look_seconds = 1e9
    store = await place.open()
    await kill(store)
    before = FormatReader(place.folder, PASSWORD).manifest
    store = await place.open()
    fence = engine_of(store).log_end
    await engine_of(store).flush_memtable(always=True)
    found.append(engine_of(store).manifests.manifest)
    await store.close()
    store = await place.open()
    await store.close()
    found.append(engine_of(store).manifests.manifest)
    assert (found[0].rekeyed, before[17], found[1].rekeyed, found[2].rekeyed) == (0, None, fence, fence)


async def set_back_after_the_end(place: RotatedPlace, new: bytes | None) -> None:
    """The rotation has ended, and the password was changed behind it, if `new` is one. Then all is set back, under
    higher numbers, by somebody who had copied it before.
    """
    store = await place.make()
    await store.close()
    forger, copied = Forger(place, engine_of(store)), place.files()
    disks = {name: bytearray(content) for name, content in place.disks.items()}
    store = await place.open()
    await rotate(store)
    await store.close()
    store = await place.open()
    place.some(store)
    await store.flush()
    await place.until(lambda: place.is_rotated(store))
    if new is not None:
        await store.passwords.change(PASSWORD, new)
    await store.close()
    keys = max(int(path.stem) for path in (place.folder / "keys").iterdir() if path.suffix == ".keys")
    forger.set_back(copied, keys + 1)
    place.disks = disks


async def test_what_is_set_back_after_the_end_is_taken_by_a_host_that_remembers_nothing(
    place: RotatedPlace, tmp_path: Path
) -> None:
    """With the password of then it cannot be told from the store; so docs/operations.md says what helps."""
    await set_back_after_the_end(place, None)
    with pytest.raises(RolledBack, match="has an older key"):
        await place.open()
    store = await open_elsewhere(place, tmp_path)
    assert engine_of(store).key.key_id == 1
    await place.holds(store)
    await store.close()


async def test_a_password_that_was_changed_behind_the_rotation_opens_nothing_that_is_set_back(
    place: RotatedPlace, tmp_path: Path
) -> None:
    await set_back_after_the_end(place, b"changed behind it")
    for opening in (place.open(b"changed behind it"), open_elsewhere(place, tmp_path, b"changed behind it")):
        with pytest.raises(WrongPassword):
            await opening
