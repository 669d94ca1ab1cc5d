"""A rotation of the data key on a store that denies deletions: everything is sealed anew and served, and the older key
stays, which is said with the reason, until the store lets go what it sealed.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from storage.buffers import Buffer
from storage.crypto.keys import keys_name
from storage.crypto.spare_keys import spare_keys_name
from storage.errors import AccessDenied, Invalid, Unfinished
from storage.fs.succession.stored_attachments import StoredAttachments
from storage.objects.local import LocalStore
from tests.storage.fs.places import PASSWORD, kill
from tests.storage.fs.rotating import RotatedPlace, rotate
from tests.support.inside import engine_of, objects_of

REASON = "the credentials may not delete"


@pytest.mark.parametrize("standing_by", [False, True], ids=["alone", "with records for a server that stands by"])
async def test_it_goes_on_and_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standing_by: bool
) -> None:
    place = RotatedPlace(tmp_path)
    store = await place.make()
    if standing_by:
        await StoredAttachments(objects_of(store), engine_of(store).key, place.env).keep(store.epoch, b"attached")
        await rotate(store)

    async def denied(self: LocalStore, names: Sequence[str]) -> None:
        raise AccessDenied(REASON)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "delete", denied)
        if not standing_by:
            with pytest.raises(Unfinished, match=r"the change is in force, but keys/0*1\.keys .* could not be deleted"):
                await rotate(store)
        await store.close()
        store = await place.open()
        assert store.key_id == 2

        def waits() -> str:
            rotation = store.status().rotation
            assert rotation is not None, "the older key left while it opens what is there"
            return rotation.waits_for

        await place.until(lambda: REASON in waits())
        place.some(store)
        await store.flush()
        await place.holds(store)
        status = store.status().rotation
        assert status is not None
        assert status.left_objects == 0
    await place.until(lambda: place.is_rotated(store))
    assert place.of_key(1) == []
    await place.holds(store)
    # What was deleted at last was no part of the log that a start needs.
    await kill(store)
    store = await place.open()
    await place.holds(store)
    await store.close()


@pytest.mark.parametrize("copied", [True, False])
async def test_keys_that_stay_and_a_copy_that_is_refused_are_seen_to_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    """At the end the older keys object may not be deleted, and the store may take no copy of the new one."""
    place = RotatedPlace(tmp_path)
    store = await place.make()
    await rotate(store)
    await store.close()
    create, delete = LocalStore.create, LocalStore.delete
    refused: list[str] = []

    async def created(self: LocalStore, name: str, data: Buffer) -> None:
        if name == spare_keys_name(3) and not copied and name not in refused:
            refused.append(name)
            raise Invalid(REASON)  # which is not tried again
        await create(self, name, data)

    async def deleted(self: LocalStore, names: Sequence[str]) -> None:
        if keys_name(2) in names and keys_name(2) not in refused:
            refused.append(keys_name(2))
            raise Invalid(REASON)
        await delete(self, names)

    monkeypatch.setattr(LocalStore, "create", created)
    monkeypatch.setattr(LocalStore, "delete", deleted)
    store = await place.open()
    await place.until(lambda: place.is_rotated(store))
    await place.until(lambda: engine_of(store).manifests.manifest.keys == 3)
    wanted = {keys_name(3), spare_keys_name(3)}
    await place.until(lambda: {name for name in place.files() if name.endswith(".keys")} == wanted)
    assert sorted(refused) == [keys_name(2), *([] if copied else [spare_keys_name(3)])]
    assert place.files()[keys_name(3)] == place.files()[spare_keys_name(3)]
    await store.close()


async def test_a_password_that_changes_at_the_very_end_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the older key leaves all the same, as soon as it can."""
    place = RotatedPlace(tmp_path)
    store = await place.make()
    await rotate(store)
    await store.close()
    create = LocalStore.create
    changed: list[str] = []

    async def created(self: LocalStore, name: str, data: Buffer) -> None:
        if name == keys_name(3) and not changed:
            changed.append(name)
            await store.passwords.add(PASSWORD, b"another", "second")
        await create(self, name, data)

    monkeypatch.setattr(LocalStore, "create", created)
    store = await place.open()
    await place.until(lambda: bool(changed) and place.is_rotated(store))
    await store.close()
    store = await place.open(b"another")
    assert engine_of(store).key.older == ()
    await place.holds(store)
    await store.close()
