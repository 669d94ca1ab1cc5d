"""Who is refused when a store comes back to a host that had it before: what another host has kept meanwhile counts, and
what this one alone can know does too.
"""

import dataclasses
import shutil
from pathlib import Path

import pytest

from nbdserver.attachments import HERE, Attachment
from nbdserver.service import last_server
from nbdserver.service.last_server import attachments_after
from storage.errors import OutOfSpace
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.lsm.recovery.anchor import HostState
from tests.storage.fs.places import MIB, Place, kill

LOCAL = Attachment("a", HERE)
REMOTE = Attachment("a", "10.0.0.5")


class OneOfAPair(Place):
    """A host that gives signs of life, with a store that it has in common with another one."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder)
        self.state = folder / name

    @property
    def options(self) -> StoreOptions:
        return dataclasses.replace(super().options, signs=True)


async def attach(store: Store, *clients: Attachment) -> None:
    """As a server of this machine does."""
    attachments = await attachments_after(store, "refuse")
    for client in clients:
        recorded = attachments.attach(client)
        assert recorded is not None
        await recorded


async def taken_elsewhere(other: OneOfAPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is taken over on another machine, served there, and closed."""
    store = await other.open(take_over=True)
    with monkeypatch.context() as there:
        there.setattr(last_server, "boot", lambda: "of the other machine")
        assert (await attachments_after(store, "refuse")).refused == [REMOTE], "who is local there is another one"
    await store.close()


async def test_clients_of_this_machine_are_not_forgotten_for_another_hosts_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were attached when the store was lost to the other host, and come back to this one."""
    here, there = OneOfAPair(tmp_path, "here"), OneOfAPair(tmp_path, "there")
    store = await here.open(create=True)
    await store.create_device("a", 4 * MIB)
    await attach(store, LOCAL, REMOTE)
    await kill(store)
    await taken_elsewhere(there, monkeypatch)
    store = await here.open()
    assert (await attachments_after(store, "refuse")).refused == [REMOTE, LOCAL]
    await store.close()


async def test_a_store_that_was_set_back_has_its_epochs_again(tmp_path: Path) -> None:
    """The record of a later epoch is of the life before: it counts once, and then what is kept from now on."""
    here = OneOfAPair(tmp_path, "here")
    store = await here.open(create=True)
    await store.create_device("a", 4 * MIB)
    await store.close()
    backup = tmp_path / "backup"
    shutil.copytree(here.folder, backup)
    for _ in range(2):
        store = await here.open()
        await attach(store, LOCAL)
        await kill(store)
    shutil.rmtree(here.folder)
    shutil.copytree(backup, here.folder)
    store = await here.open(accept_rollback=True)
    attachments = await attachments_after(store, "refuse")
    assert attachments.refused == [LOCAL]
    await attachments.accept("a")
    recorded = attachments.attach(REMOTE)
    assert recorded is not None
    await recorded
    await kill(store)
    store = await here.open()
    assert (await attachments_after(store, "refuse")).refused == [REMOTE]
    await store.close()


async def test_a_host_that_cannot_keep_the_record_leaves_it_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(host: HostState, epoch: int, data: bytes) -> None:
        raise OutOfSpace("there is no room")

    here, there = OneOfAPair(tmp_path, "here"), OneOfAPair(tmp_path, "there")
    store = await here.open(create=True)
    await store.create_device("a", 4 * MIB)
    await attach(store)
    monkeypatch.setattr(HostState, "save_attached", full)
    await attach(store, REMOTE)
    monkeypatch.undo()
    await kill(store)
    for host in (here, there):
        store = await host.open(take_over=True)
        assert (await attachments_after(store, "refuse")).refused == [REMOTE]
        await kill(store)
