"""No secret is in anything the program says, whatever fails, at every step, in every format of the log.

Passwords, the data key and all keys made of it, and the content of a disk are planted; commands and a server run into a
failure at each request to the store, and into mistakes of this program's own in the functions that hold secrets.
"""

import asyncio
import contextlib
import functools
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import storage
import storage.fs.opening
from nbdserver.admin.api import Admin
from nbdserver.admin.client import AdminClient
from nbdserver.admin.content_frames import encode, encode_end
from nbdserver.admin.operations import CreateDevice, Flush
from nbdserver.admin.password_operations import ChangePassword
from nbdserver.exports import Exports
from nbdserver.server.listener import Listener
from nbdserver.service import logs
from storage.crypto import cipher as crypto
from storage.crypto import data_key, keys, keyslots
from storage.crypto.cipher import Cipher, Sealer
from storage.crypto.keys import Cost
from storage.env import RealEnv
from storage.errors import AccessDenied, StorageError
from storage.fs import early_unlock
from storage.fs.store_options import StoreOptions
from storage.objects import locations
from storage.objects.memory import MemoryStore
from storage.secret import Secret
from tests.nbdserver.inside import run_command
from tests.support.inside import contents
from tests.support.nbd import Client
from tests.support.planted import found_in, unique

KIB = 1024
OLD, NEW, WRONG = unique(), unique(), unique()
CONTENT = unique()
BLOCK = (CONTENT * 4096)[: 64 * KIB]
STEPS_MAX = 200
SILENCE_SECONDS = 1
"""How long a client waits for the answer that a server with a mistake never gives. Too short only ends it sooner."""


class Failing(MemoryStore):
    """A store that fails at one request and works at all others."""

    def __init__(self, objects: dict[str, bytes], at: int, error: BaseException) -> None:
        super().__init__()
        self._objects = dict(objects)
        self.requests = 0
        self.at, self.error = at, error

    def _find(self, name: str) -> bytes:
        self._step()
        return super()._find(name)

    async def put(self, name: str, data: Any) -> None:
        self._step()
        await super().put(name, data)

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Any:
        self._step()
        return await super().list(prefix, start_after, limit)

    async def delete(self, names: Sequence[str]) -> None:
        self._step()
        await super().delete(names)

    def _step(self) -> None:
        self.requests += 1
        if self.requests == self.at:
            raise self.error


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """All secrets by name; keys are added as they are made."""
    secrets = {"old": OLD, "new": NEW, "wrong": WRONG, "content": CONTENT}

    def random_bytes(self: RealEnv, count: int) -> bytes:
        drawn = unique(count)
        if count == 32:
            secrets[f"data key {len(secrets)}"] = drawn
        return drawn

    def derive(key: Any, purpose: str, store_id: bytes) -> Secret:
        derived = original(key, purpose, store_id)
        secrets[f"the key for {purpose} {len(secrets)}"] = bytes(derived)
        return derived

    original = crypto.derive
    monkeypatch.setattr(data_key, "derive", derive)
    monkeypatch.setattr(RealEnv, "random_bytes", random_bytes)
    monkeypatch.setattr(storage, "StoreOptions", functools.partial(StoreOptions, cost=Cost.for_tests()))
    unlock = functools.partial(early_unlock.EarlyUnlock, cost=Cost.for_tests())
    monkeypatch.setattr(early_unlock, "EarlyUnlock", unlock)
    return secrets


class Log(NamedTuple):
    """A file in each format."""

    console: Path
    json: Path

    def content(self) -> bytes:
        return self.console.read_bytes() + self.json.read_bytes()


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """The log of the test run as it was, afterwards."""
    logger, raising = logging.getLogger(), logging.raiseExceptions
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers, logger.level, logging.raiseExceptions = handlers, level, raising


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """All is logged, in both formats, to these files."""
    set_up = logs.set_up
    written = Log(tmp_path / "console", tmp_path / "json")
    console, json = logs.LogFile(written.console), logs.LogFile(written.json)

    def everything(*_: object) -> None:
        set_up("json", logging.DEBUG, [json])
        set_up("console", logging.DEBUG, [console])
        logging.getLogger().addHandler(json)

    monkeypatch.setattr(logs, "set_up", everything)
    yield written
    console.close()
    json.close()


COMMANDS = {
    "init": (("init",), OLD),
    "status": (("status",), OLD),
    "wrong password": (("device", "list"), WRONG),
    "password change": (("password", "change"), OLD),
    "password add": (("password", "add", "second"), OLD),
    "password list": (("password", "list"), OLD),
    "create": (("device", "create", "new", "1MiB"), OLD),
    "import": (("device", "import", "new", "image"), OLD),
    "export": (("device", "export", "--overwrite", "disk", "copy"), OLD),
    "flush": (("flush",), OLD),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_fails_at_a_request(
    command: str,
    planted: dict[str, bytes],
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    error = AccessDenied("denied")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").write_bytes(BLOCK)
    (tmp_path / "run").mkdir(mode=0o700)
    made: dict[str, bytes] = {}

    def run(words: Sequence[str], password: bytes, store: Failing) -> int:
        for module in (storage.fs.opening, early_unlock, locations):
            monkeypatch.setattr(module, "open_location", lambda *_: store)
        for name, value in {
            "NBDSERVER_PASSWORD": password.decode(errors="surrogateescape"),
            "NBDSERVER_NEW_PASSWORD": NEW.decode(errors="surrogateescape"),
            "NBDSERVER_STORE": str(tmp_path / "store"),
            "NBDSERVER_RUNTIME_FOLDER": str(tmp_path / "run"),
            "NBDSERVER_DEBUG": "1",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["nbdserver", *words])
        return run_command()

    words, password = COMMANDS[command]
    if command != "init":
        whole = Failing({}, 0, error)
        assert run(["init"], OLD, whole) == 0
        assert run(["device", "import", "disk", "image"], OLD, whole) == 0
        made = contents(whole)
    statuses = []
    for at in range(1, STEPS_MAX):
        store = Failing(made, at, error)
        statuses.append(run(words, password, store))
        if store.requests < at:
            break
    assert len(statuses) > 2
    assert statuses[-1] == (12 if command == "wrong password" else 0)
    output = b"".join(capfdbinary.readouterr()) + log.content()
    assert b"Traceback" in output
    assert len(planted) > 6
    assert found_in(output, planted) == []


MISTAKES: list[tuple[object, str]] = [
    (keyslots, "core"),
    (keyslots, "_seal"),
    (keys, "seal_slot"),
    (keys, "open_slot"),
    (keys, "encode"),
    (Cipher, "sealer"),
    (Cipher, "open"),
    (Sealer, "seal"),
    (MemoryStore, "put"),
    (MemoryStore, "get"),
    (RealEnv, "run"),
]


@contextlib.asynccontextmanager
async def served(store: storage.Store, env: RealEnv, work: Path) -> AsyncIterator[tuple[AdminClient, Path]]:
    admin = Admin(lambda: store, dict)
    server = Listener(Exports(store.device, store.names), env=env)
    await admin.start(work / "admin")
    await server.listen_unix(work / "nbd")
    try:
        yield AdminClient(work / "admin"), work / "nbd"
    finally:
        await server.stop(0)
        await admin.stop()


def attempts(client: AdminClient, nbd: Path) -> Iterator[Callable[[], object]]:
    """What a user of a server does, each by itself."""

    def use() -> None:
        with Client(nbd, "disk", timeout=SILENCE_SECONDS) as disk:
            disk.write(0, BLOCK)
            disk.write(4096, BLOCK[:4096], flags=1)
            disk.read(0, len(BLOCK))
            disk.flush()

    def export() -> None:
        with client.read_content("disk") as (_, pieces):
            list(pieces)

    yield use
    yield lambda: client.perform(ChangePassword(Secret(WRONG), Secret(NEW)))
    yield lambda: client.perform(ChangePassword(Secret(OLD), Secret(NEW)))
    yield lambda: client.perform(CreateDevice("more", 1 << 20))
    frames = [encode(0, BLOCK), encode_end(len(BLOCK))]
    yield lambda: client.write_content("new", frames, size=len(BLOCK), overwrite=False)
    yield export
    yield lambda: client.perform(Flush())


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: each[1])
async def test_a_server_with_a_mistake(
    mistake: tuple[Any, str],
    planted: dict[str, bytes],
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    work: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    asyncio.get_running_loop().set_exception_handler(logs.on_loop_error)
    logs.set_up("console", logging.INFO, [])
    env = RealEnv()
    store = await storage.open_store(
        "memory://", OLD, env=env, create=True, options=StoreOptions(cost=Cost.for_tests())
    )
    await store.create_device("disk", 1 << 20)
    answers = []
    async with served(store, env, work) as (client, nbd):
        for attempt in attempts(client, nbd):
            with monkeypatch.context() as broken:
                broken.setattr(*mistake, _mistaken)
                try:
                    async with asyncio.timeout(10):
                        answers.append(repr(await asyncio.to_thread(attempt)))
                except (StorageError, OSError, TimeoutError) as error:
                    answers.append(f"{error!r} {error}")
    with contextlib.suppress(Exception):
        async with asyncio.timeout(10):
            await store.close()
    env.close()
    output = b"".join(capfdbinary.readouterr()) + log.content() + "\n".join(answers).encode()
    assert found_in(output, planted) == []


def _mistaken(*arguments: object, **options: object) -> None:
    raise RuntimeError("a mistake")


async def test_what_a_loop_says_of_callbacks(log: Log, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """asyncio prints a callback with its arguments."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.on_loop_error)
    logs.set_up("console", logging.INFO, [])
    loop.call_soon(_mistaken, OLD)
    loop.call_soon(functools.partial(_mistaken, CONTENT))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    output = b"".join(capfdbinary.readouterr()) + log.content()
    assert output.count(b"a mistake") >= 2
    assert found_in(output, {"old": OLD, "content": CONTENT}) == []
