"""A store whose data key is rotated: all of it is there before, during and after, and at the end the older key opens
nothing of it.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from storage.errors import Conflict, Corrupt, KeyChanged
from storage.fs.following import open_follower
from storage.fs.store import Store
from storage.objects.local import LocalStore
from tests.storage.fs.places import PASSWORD, kill
from tests.storage.fs.rotating import RotatedPlace, rotate
from tests.support.inside import engine_of
from tests.support.memory import folder_in_memory

States = list[dict[str, bytes]]


@pytest.fixture
def place(tmp_path: Path) -> RotatedPlace:
    return RotatedPlace(tmp_path)


async def rotated(place: RotatedPlace) -> Store:
    """Rotated, killed with a log behind its SSTs, and not opened since."""
    store = await place.make()
    await rotate(store)
    place.some(store)
    place.some(store, "clone")
    await store.flush()
    await kill(store)
    return store


async def test_the_objects_of_the_rotation_put_back_are_refused(place: RotatedPlace) -> None:
    """Also if nothing was written since, and the server was killed."""
    await rotated(place)
    with_ring = place.files()["keys/00000000000000000002.keys"]
    store = await place.open()
    await place.until(lambda: place.is_rotated(store))
    await place.until(lambda: engine_of(store).manifests.manifest.keys == 3)
    await kill(store)
    for folder in ("keys", "spare"):
        (place.folder / folder / "00000000000000000003.keys").unlink()
    (place.folder / "keys/00000000000000000002.keys").write_bytes(with_ring)
    with pytest.raises(Corrupt, match="keys object 3 is missing"):
        await place.open()


async def test_a_writer_goes_on_under_its_key_until_it_is_started_again(place: RotatedPlace) -> None:
    store = await place.make()
    await rotate(store)
    with pytest.raises(Conflict, match="being rotated already"):
        await rotate(store)
    place.some(store)
    assert store.key_id == 1
    assert store.status().rotation is None
    await store.close()
    assert place.of_key(2) == []
    await place.is_whole()
    store = await place.open()
    assert store.key_id == 2
    await place.holds(store)
    await store.close()


async def states_of(
    place: RotatedPlace, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Awaitable[None]]
) -> States:
    """What lies in the folder before and behind each request that changes something, while `work` is done: what a crash
    right there leaves.
    """
    states: States = []

    def note() -> None:
        while (found := place.files()) != place.files():
            pass  # a deletion came in between
        if found not in states:
            states.append(found)

    def noting(method: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def noted(self: LocalStore, *arguments: Any) -> None:
            note()
            await method(self, *arguments)
            note()

        return noted

    with monkeypatch.context() as patched:
        for name in ("create", "put", "delete"):
            patched.setattr(LocalStore, name, noting(getattr(LocalStore, name)))
        await work()
    return states


async def test_a_crash_anywhere_leaves_a_store_that_goes_on(
    place: RotatedPlace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = await place.make()
    await store.flush()

    async def rotate_and_end() -> None:
        await rotate(store)
        await kill(store)
        again = await place.open()
        await place.until(lambda: place.is_rotated(again))
        await again.close()

    states = await states_of(place, monkeypatch, rotate_and_end)
    assert len(states) > 15
    for number, files in enumerate(states):
        copy = RotatedPlace(tmp_path / str(number), look_seconds=0.01 if number % 8 == 1 else 1e9)
        copy.disks = place.disks
        for name, raw in files.items():
            (copy.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (copy.folder / name).write_bytes(raw)
        found = await copy.open(take_over=True)
        await copy.holds(found)
        if number % 8 == 1 and found.status().rotation is not None:
            await copy.until(partial(copy.is_rotated, found))
            assert copy.of_key(1) == []
            await copy.holds(found)
        await found.close()


async def test_a_follower_says_that_it_is_to_be_started_again(place: RotatedPlace) -> None:
    store = await place.make()
    follower = await open_follower(str(place.folder), PASSWORD, env=place.env, options=place.options)
    follower.start()
    await rotate(store)
    await store.close()
    store = await place.open()
    error = await follower.failed
    assert isinstance(error, KeyChanged)
    assert "the data key was changed since it was started; start it again" in str(error)
    await follower.close()
    await store.close()


async def test_a_journal_of_the_older_key_is_replayed(place: RotatedPlace) -> None:
    """What was answered and not flushed, before a kill, a rotation, and a start; and once more under the new key."""
    with folder_in_memory() as place.journal:
        await journal_of_each_key(place)


async def journal_of_each_key(place: RotatedPlace) -> None:
    store = await place.make()
    place.some(store)
    engine_of(store).journal.keep()
    await rotate(store)
    place.some(store)
    engine_of(store).journal.keep()
    await kill(store)
    for _ in range(2):
        store = await place.open()
        assert store.opening.problem is None
        assert store.opening.restored
        await place.holds(store)
        place.some(store, "clone")
        engine_of(store).journal.keep()
        await kill(store)
