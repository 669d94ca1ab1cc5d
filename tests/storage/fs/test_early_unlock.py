"""The keys of a store, opened beside the loading of the program."""

import asyncio
import dataclasses
import threading
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.errors import Invalid, NotFound, RolledBack, WrongPassword
from storage.fs.early_unlock import EarlyUnlock
from storage.fs.opening import open_reader, open_store
from storage.fs.store_options import StoreOptions
from storage.lsm.recovery.anchor import HostState
from tests.support.keys import LEAST

SECONDS = 5.0
PASSWORD = b"a password"


@pytest.fixture
async def location(tmp_path: Path) -> str:
    """A store that is closed."""
    made = str(tmp_path / "store")
    store = await open_store(
        made, PASSWORD, env=RealEnv(), create=True, options=StoreOptions(state_folder=tmp_path / "state", cost=LEAST)
    )
    await store.close()
    return made


async def test_what_it_finds_opens_the_store(location: str, tmp_path: Path) -> None:
    early = EarlyUnlock(location, PASSWORD, SECONDS)
    options = StoreOptions(state_folder=tmp_path / "state", cost=LEAST, unlocked=early)
    store = await open_store(location, b"not asked for", env=RealEnv(), options=options)
    assert store.epoch == 2
    await store.close()


async def test_another_password_opens_nothing(location: str, tmp_path: Path) -> None:
    options = StoreOptions(unlocked=EarlyUnlock(location, b"another one", SECONDS), state_folder=tmp_path / "state")
    with pytest.raises(WrongPassword):
        await open_store(location, PASSWORD, env=RealEnv(), options=options)


@pytest.mark.parametrize("known", [False, True])
async def test_where_nothing_is(tmp_path: Path, known: bool) -> None:
    """As without it: a store is made, or the host remembers one."""
    location, state = str(tmp_path / "store"), tmp_path / "state"
    options = StoreOptions(state_folder=state, cost=LEAST, unlocked=EarlyUnlock(location, PASSWORD, SECONDS))
    if known:
        elsewhere = await open_store(
            str(tmp_path / "other"),
            PASSWORD,
            env=RealEnv(),
            create=True,
            options=StoreOptions(state_folder=state, cost=LEAST),
        )
        await elsewhere.close()
        anchor = HostState(state, elsewhere.url).load()
        assert anchor is not None
        HostState(state, f"file://{location}").save(anchor)
        with pytest.raises(RolledBack):
            await open_store(location, PASSWORD, env=RealEnv(), create=True, options=options)
        return
    with pytest.raises(NotFound):
        await open_store(location, PASSWORD, env=RealEnv(), options=options)


async def test_its_thread_ends(location: str) -> None:
    early = EarlyUnlock(location, PASSWORD, SECONDS)
    await early.result()
    while any(thread.name == "keys" for thread in threading.enumerate()):  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def test_no_such_kind_of_place() -> None:
    with pytest.raises(Invalid):
        EarlyUnlock("ftp://somewhere", PASSWORD, SECONDS)


async def test_a_store_that_is_made_meanwhile_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    """Its keys come before all else: who finds the rest and has found no keys looks for them again."""
    location = str(tmp_path / "store")
    options = StoreOptions(state_folder=tmp_path / "state", cost=LEAST)
    early = EarlyUnlock(location, PASSWORD, SECONDS)
    with pytest.raises(NotFound):
        await early.result()
    await (await open_store(location, PASSWORD, env=RealEnv(), create=True, options=options)).close()
    store = await open_reader(location, PASSWORD, env=RealEnv(), options=dataclasses.replace(options, unlocked=early))
    assert not store.created
    await store.close()
