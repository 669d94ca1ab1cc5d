"""What a host cannot keep is logged once, said as long as it is so, tried again, and nobody's end."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from storage.env import RealEnv
from storage.errors import AccessDenied, Corrupt, OutOfSpace, StorageError
from storage.lsm.recovery.unsaved import FOLDER_SECONDS, SAVE_AGAIN_SECONDS, SILENT, Unsaved
from tests.simulation.virtual import virtually
from tests.storage.fs.snapshots.test_clearing import Clock

T = TypeVar("T")


class Folder:
    """Where things are saved, in the order in which that came to pass."""

    def __init__(self) -> None:
        self.error: StorageError | None = None
        self.saved: list[str] = []

    def save(self, data: str) -> Callable[[], str]:
        def call() -> str:
            if self.error is not None:
                raise self.error
            self.saved.append(data)
            return data

        return call


async def test_what_cannot_be_kept_is_said_until_it_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    unsaved, folder, env = Unsaved(), Folder(), RealEnv()
    assert await unsaved.attempt(env, "reads", folder.save("a")) == "a"
    assert unsaved.sentence() is None
    assert caplog.messages == []
    for reason in ("no room", "still no room"):
        folder.error = OutOfSpace(reason)
        assert await unsaved.attempt(env, "reads", folder.save("b")) is None
    assert unsaved.sentence() == "this host cannot keep when what is stored was last read: still no room"
    folder.error = AccessDenied("it is not ours")
    await unsaved.attempt(env, "anchor", folder.save("c"))
    assert unsaved.sentence() == (
        "this host cannot keep when what is stored was last read, how far it has seen the store: still no room"
    )
    folder.error = None
    assert await unsaved.attempt(env, "reads", folder.save("d")) == "d"
    assert unsaved.sentence() == "this host cannot keep how far it has seen the store: it is not ours"
    assert caplog.messages == ["state_not_kept", "state_not_kept", "state_kept"]
    env.close()


@virtually
async def test_what_failed_is_tried_again_and_the_newest_stands() -> None:
    """Nobody may come or go for months: who is attached is kept once there is room."""
    unsaved, folder, env = Unsaved(), Folder(), Clock()
    running = asyncio.create_task(unsaved.run(env))
    folder.error = OutOfSpace("no room")
    await unsaved.attempt(env, "attached", folder.save("old"))
    await unsaved.attempt(env, "attached", folder.save("new"))
    await unsaved.attempt(env, "reads", folder.save("old reads"))
    await asyncio.sleep(3 * SAVE_AGAIN_SECONDS)
    assert unsaved.sentence() is not None
    folder.error = None
    await unsaved.attempt(env, "reads", folder.save("new reads"))
    await asyncio.sleep(SAVE_AGAIN_SECONDS)
    assert unsaved.sentence() is None
    assert folder.saved == ["new reads", "new"]
    await asyncio.sleep(3 * SAVE_AGAIN_SECONDS)
    assert len(folder.saved) == 2
    running.cancel()
    env.close()


async def test_what_is_newer_waits_for_what_is_being_saved() -> None:
    unsaved, folder, env = Unsaved(), Folder(), RealEnv()
    order = [unsaved.attempt(env, "attached", folder.save(str(number))) for number in range(20)]
    await asyncio.gather(*order)
    assert folder.saved == [str(number) for number in range(20)]
    env.close()


async def test_other_errors_are_not_tolerated() -> None:
    unsaved, folder, env = Unsaved(), Folder(), RealEnv()
    folder.error = Corrupt("anchor", "torn")
    with pytest.raises(Corrupt):
        await unsaved.attempt(env, "anchor", folder.save("a"))
    assert unsaved.sentence() is None
    env.close()


async def test_a_save_that_was_cancelled_is_over_before_the_next_one_begins() -> None:
    """Its thread goes on, and both write to the same files."""
    unsaved, env = Unsaved(), RealEnv()
    begun, goes_on, saved = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        assert goes_on.wait(60)
        saved.append("old")

    first = asyncio.ensure_future(unsaved.attempt(env, "reads", slow))
    assert await asyncio.to_thread(begun.wait, 60)
    first.cancel()
    second = asyncio.ensure_future(unsaved.attempt(env, "reads", lambda: saved.append("new")))
    await asyncio.sleep(0.1)
    assert saved == []
    goes_on.set()
    await second
    assert saved == ["old", "new"]
    with pytest.raises(asyncio.CancelledError):
        await first
    env.close()


class HangingClock(Clock):
    """Virtual time, in which files of the host hang until `goes_on` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()
        self.calls = 0

    async def run(self, pool: str, function: Callable[..., T], *args: object) -> T:
        if pool == "store":
            self.calls += 1
            await self.goes_on.wait()
        return await super().run(pool, function, *args)


@virtually
async def test_a_folder_that_hangs_is_waited_for_once_and_the_newest_stands(caplog: pytest.LogCaptureFixture) -> None:
    unsaved, folder, env = Unsaved(), Folder(), HangingClock()
    running = asyncio.create_task(unsaved.run(env))
    sentence = f"this host cannot keep how far it has seen the store: {SILENT}"
    first = asyncio.create_task(unsaved.attempt(env, "anchor", folder.save("first")))
    await asyncio.sleep(1)
    second = asyncio.create_task(unsaved.attempt(env, "anchor", folder.save("second")))
    await asyncio.sleep(FOLDER_SECONDS - 1.5)
    assert (first.done(), second.done(), unsaved.sentence()) == (False, False, None)
    assert (await first, await second) == (None, None)
    assert unsaved.sentence() == sentence
    given_up = env.monotonic()
    assert await unsaved.attempt(env, "anchor", folder.save("third")) is None
    assert env.monotonic() == given_up, "nobody else waits for what hangs"
    await asyncio.sleep(3 * SAVE_AGAIN_SECONDS)
    assert env.calls == 1, "all of them write to the same files"
    env.goes_on.set()
    await asyncio.sleep(0.1)
    assert folder.saved == ["first"]
    assert unsaved.sentence() == sentence, "what is newer is not kept yet"
    await asyncio.sleep(SAVE_AGAIN_SECONDS)
    assert folder.saved == ["first", "third"]
    assert unsaved.sentence() is None
    assert caplog.messages == ["state_not_kept", "state_kept"]
    running.cancel()
    env.close()


@virtually
async def test_what_ends_late_without_success_is_not_kept() -> None:
    """An error that is tolerated is said, and any other raised to whoever comes next."""
    unsaved, folder, env = Unsaved(), Folder(), HangingClock()
    folder.error = OutOfSpace("no room")
    assert await unsaved.attempt(env, "anchor", folder.save("a")) is None
    env.goes_on.set()
    await asyncio.sleep(0.1)
    assert unsaved.sentence() == "this host cannot keep how far it has seen the store: no room"
    env.goes_on.clear()
    folder.error = Corrupt("anchor", "torn")
    assert await unsaved.attempt(env, "anchor", folder.save("b")) is None
    env.goes_on.set()
    await asyncio.sleep(0.1)
    assert unsaved.sentence() is not None
    with pytest.raises(Corrupt):
        await unsaved.run(env)
    env.close()


@virtually
async def test_one_that_is_cancelled_waits_no_longer_for_a_folder_that_hangs() -> None:
    unsaved, folder, env = Unsaved(), Folder(), HangingClock()
    begun = env.monotonic()
    saving = asyncio.create_task(unsaved.attempt(env, "anchor", folder.save("a")))
    await asyncio.sleep(1)
    saving.cancel()
    await asyncio.wait({saving})
    assert (saving.cancelled(), env.monotonic() - begun) == (True, FOLDER_SECONDS)
    assert unsaved.sentence() is not None
    env.goes_on.set()
    await asyncio.sleep(0.1)
    assert (folder.saved, unsaved.sentence()) == (["a"], None)
    env.close()


@virtually
async def test_what_is_loaded_is_waited_for_however_long_it_takes() -> None:
    """Taken for nothing it would be saved over what is there."""
    unsaved, env = Unsaved(), HangingClock()
    loading = asyncio.create_task(unsaved.load(env, "requests", lambda: b"what was counted"))
    await asyncio.sleep(10 * FOLDER_SECONDS)
    assert not loading.done()
    env.goes_on.set()
    assert await loading == b"what was counted"
    env.close()
