"""The admin API as commands use it: a real store, a real socket, the real client."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from nbdserver.admin.api import Admin
from nbdserver.admin.client import AdminClient, find_server
from nbdserver.admin.content_frames import encode, encode_end
from nbdserver.admin.operations import (
    CreateDevice,
    DeleteDevice,
    Flush,
    ListDevices,
    Operation,
    RenameDevice,
    ResizeDevice,
    ShowDevice,
)
from nbdserver.admin.password_operations import ChangePassword
from nbdserver.admin.sockets import socket_path
from nbdserver.cli.shared.exit_status import status_of
from storage import CheckOptions, Store
from storage.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    Corrupt,
    Fenced,
    Invalid,
    NotFound,
    StorageError,
    Unavailable,
    Unfinished,
    WrongPassword,
)
from storage.fs.devices.device import Device
from storage.fs.status import ViewStatus
from storage.secret import Secret
from tests.support.inside import objects_of

MIB = 1 << 20
T = TypeVar("T")


@pytest.fixture
async def client(store: Store, work: Path) -> AsyncIterator[AdminClient]:
    admin = Admin(lambda: store, lambda: {"listening": ["nbd://somewhere/"]})
    await admin.start(work / "a.sock")
    yield AdminClient(work / "a.sock")
    await admin.stop()
    assert os.listdir(work) == []


async def ask(function: Callable[..., T], *args: object, **options: object) -> T:
    return await asyncio.to_thread(function, *args, **options)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0])
async def test_a_check_at_a_rate_that_is_none_is_refused(client: AdminClient, rate: float) -> None:
    with pytest.raises(Invalid, match="no number of bytes a second"):
        await ask(client.check, CheckOptions(rate=rate), lambda _: None)


async def test_the_life_of_a_device(client: AdminClient) -> None:
    made = await ask(client.perform, CreateDevice("a/b", MIB))
    assert (made["name"], made["size"], made["client_count"]) == ("a/b", MIB, 0)
    assert (await ask(client.perform, ResizeDevice("a/b", 2 * MIB, False)))["size"] == 2 * MIB
    assert (await ask(client.perform, RenameDevice("a/b", "ü c")))["name"] == "ü c"
    assert (await ask(client.perform, ShowDevice("ü c")))["created"] == made["created"]
    listed = (await ask(client.perform, ListDevices()))["devices"]
    assert [device["name"] for device in listed] == ["ü c"]
    await ask(client.perform, Flush())
    await ask(client.perform, DeleteDevice("ü c"))
    assert await ask(client.perform, ListDevices()) == {"devices": []}


async def test_one_that_follows_says_how_old_its_answer_is(client: AdminClient, store: Store) -> None:
    await ask(client.perform, CreateDevice("disk", MIB))
    assert "view" not in await ask(client.perform, ShowDevice("disk"))
    ages = iter((3.5, 0.5))
    store.view = lambda: ViewStatus(as_of=1.0, age_seconds=next(ages), older=0, collected=0, reason="", missing="")
    assert (await ask(client.perform, ShowDevice("disk")))["view"]["age_seconds"] == 3.5, "as it was before the answer"
    assert (await ask(client.perform, ListDevices()))["view"]["age_seconds"] == 0.5
    store.view = lambda: None


async def test_errors_arrive_as_themselves(client: AdminClient, store: Store) -> None:
    await ask(client.perform, CreateDevice("a", MIB))
    cases: list[tuple[Operation, type[StorageError]]] = [
        (CreateDevice("a", MIB), AlreadyExists),
        (CreateDevice("b", 5), Invalid),
        (ResizeDevice("a", 512, False), Conflict),
        (DeleteDevice("c"), NotFound),
    ]
    for operation, kind in cases:
        with pytest.raises(kind) as caught:
            await ask(client.perform, operation)
        with pytest.raises(kind) as local:
            await operation.perform(store)
        assert str(caught.value) == str(local.value)


async def test_damage_and_mistakes_arrive_too(
    client: AdminClient, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for error in (Corrupt("wal/1", "a bit is wrong"), Fenced("gone")):

        async def flush(error: StorageError = error) -> None:
            raise error

        monkeypatch.setattr(store, "flush", flush)
        with pytest.raises(type(error)) as caught:
            await ask(client.perform, Flush())
        assert str(caught.value) == str(error)

    async def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(store, "flush", broken)
    with pytest.raises(StorageError, match="its log says more"):
        await ask(client.perform, Flush())
    assert "ZeroDivisionError" in caplog.text


async def test_the_status(client: AdminClient) -> None:
    status = await ask(client.status)
    assert status["pid"] == os.getpid()
    assert status["listening"] == ["nbd://somewhere/"]
    assert status["store"]["epoch"] == 1


async def test_only_the_user_can_open_the_socket(client: AdminClient) -> None:
    found = client.path.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600


async def test_content_goes_in_and_comes_out(client: AdminClient) -> None:
    data = os.urandom(MIB)

    def frames() -> Iterator[bytes]:
        for n in range(0, 40, 2):
            yield encode(n * MIB, data)
        yield encode_end(40 * MIB)

    answer = await ask(client.write_content, "a/ü b", frames(), size=40 * MIB, overwrite=False)
    assert answer == {"name": "a/ü b", "size": 40 * MIB}

    def read() -> bytes:
        whole = bytearray(40 * MIB)
        with client.read_content("a/ü b") as (size, pieces):
            assert size == 40 * MIB
            for offset, piece in pieces:
                whole[offset : offset + len(piece)] = piece
        return bytes(whole)

    assert await ask(read) == (data + bytes(MIB)) * 20


async def test_a_refused_import_is_told_although_more_was_to_come(client: AdminClient) -> None:
    await ask(client.perform, CreateDevice("a", MIB))
    with pytest.raises(Conflict, match="make it larger"):
        await ask(client.write_content, "a", iter([encode(0, b"x" * MIB)] * 50), size=50 * MIB, overwrite=False)


async def test_an_import_that_is_cut_off_leaves_no_device(client: AdminClient, store: Store) -> None:
    with pytest.raises(Invalid, match="cut off"):
        await ask(client.write_content, "a", iter([encode(0, b"x")]), size=MIB, overwrite=False)
    assert store.devices() == []


async def test_an_import_whose_client_goes_leaves_no_device(
    client: AdminClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(Exception):
        pass

    made, over = asyncio.Event(), asyncio.Event()
    hold_new = store.filling.new

    @asynccontextmanager
    async def hold_and_tell(name: str, size: int, holder: str) -> AsyncIterator[Device]:
        try:
            async with hold_new(name, size, holder) as device:
                device.gate.closed = True  # the server waits for its store, not for the client
                made.set()
                yield device
        finally:
            over.set()

    monkeypatch.setattr(store.filling, "new", hold_and_tell)
    loop = asyncio.get_running_loop()

    def frames() -> Iterator[bytes]:
        yield encode(0, b"x" * 1000)
        asyncio.run_coroutine_threadsafe(made.wait(), loop).result()
        raise Gone

    with pytest.raises(Gone):
        await ask(client.write_content, "a", frames(), size=MIB, overwrite=False)
    await over.wait()
    assert store.devices() == []


async def test_an_export_that_fails_says_why(
    client: AdminClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(client.write_content, "a", iter([encode(0, b"x"), encode_end(MIB)]), size=MIB, overwrite=False)

    async def read(offset: int, length: int) -> list[bytes]:
        raise Corrupt("compacted/1", "a bit is wrong")

    monkeypatch.setattr(store.device("a"), "read", read)

    def consume() -> None:
        with client.read_content("a") as (_, pieces):
            list(pieces)

    with pytest.raises(Corrupt, match="compacted/1 is damaged"):
        await ask(consume)


async def test_a_server_is_found_by_its_store(store: Store, work: Path) -> None:
    environ = {"NBDSERVER_RUNTIME_FOLDER": str(work)}
    assert find_server("memory://", environ) is None
    admin = Admin(lambda: store, dict)
    await admin.start(socket_path(work, "memory://"))
    found = await ask(find_server, "memory://", environ)
    assert found is not None
    assert (await ask(found.status))["pid"] == os.getpid()
    assert await ask(find_server, "file:///other", environ) is None
    await admin.stop()
    assert find_server("memory://", environ) is None


async def test_a_dead_server_is_no_server(work: Path, store: Store) -> None:
    path = socket_path(work, "memory://")
    admin = Admin(lambda: store, dict)
    await admin.start(path)
    await admin.stop()
    path.touch()
    assert find_server("memory://", {"NBDSERVER_RUNTIME_FOLDER": str(work)}) is None


async def test_a_superseded_server_does_not_remove_the_socket_of_its_successor(store: Store, work: Path) -> None:
    path = work / "a.sock"
    old, new = Admin(lambda: store, lambda: {"who": "old"}), Admin(lambda: store, lambda: {"who": "new"})
    await old.start(path)
    await new.start(path)
    await old.stop()
    assert (await ask(AdminClient(path).status))["who"] == "new"
    await new.stop()
    assert not path.exists()


async def test_a_server_that_stops_does_not_wait_for_a_transfer(
    store: Store, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = Admin(lambda: store, dict)
    await admin.start(work / "a.sock")
    client = AdminClient(work / "a.sock")
    started, stopped = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    hold_new = store.filling.new

    @asynccontextmanager
    async def hold_and_tell(name: str, size: int, holder: str) -> AsyncIterator[Device]:
        async with hold_new(name, size, holder) as device:
            started.set()
            yield device

    monkeypatch.setattr(store.filling, "new", hold_and_tell)

    def frames() -> Iterator[bytes]:
        yield encode(0, b"x")
        asyncio.run_coroutine_threadsafe(stopped.wait(), loop).result()
        yield encode_end(MIB)

    transfer = asyncio.create_task(ask(client.write_content, "a", frames(), size=MIB, overwrite=False))
    await started.wait()
    await admin.stop()
    stopped.set()
    with pytest.raises(Unavailable, match="stopped before it had answered"):
        await transfer
    assert store.devices() == []


async def test_a_password_that_is_changed_while_the_old_keys_stay(
    client: AdminClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in force, and the command ends: with what is left to be done, and status 3."""

    delete = objects_of(store).delete

    async def deletes_no_keys(names: Sequence[str]) -> None:
        if any(name.startswith("keys/") for name in names):
            raise AccessDenied("a policy keeps them")
        await delete(names)

    monkeypatch.setattr(objects_of(store), "delete", deletes_no_keys)
    async with asyncio.timeout(60):
        with pytest.raises(Unfinished, match="the change is in force") as left:
            await ask(client.perform, ChangePassword(Secret(b"password"), Secret(b"another")))
        assert status_of(left.value) == 3
        with pytest.raises(WrongPassword):
            await ask(client.perform, ChangePassword(Secret(b"password"), Secret(b"a third")))
