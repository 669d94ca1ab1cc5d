"""A rotation of the data key on a store that denies deletions: everything is sealed anew and served, and the older key
stays, which is said with the reason, until the store lets go what it sealed.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from storage.errors import AccessDenied, Unfinished
from storage.fs.succession.stored_attachments import StoredAttachments
from storage.objects.local import LocalStore
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
    await store.close()
