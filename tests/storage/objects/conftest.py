"""Fixtures for the tests of object stores: an environment, stores, a server that misbehaves, virtual time."""

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.objects.local import LocalStore
from storage.objects.s3 import S3Store
from tests.storage.objects.calls import SECRET
from tests.storage.objects.stubs import StubServer


@pytest.fixture
def env() -> Iterator[RealEnv]:
    env = RealEnv()
    yield env
    env.close()


@pytest.fixture
async def local(tmp_path: Path, env: RealEnv) -> AsyncIterator[LocalStore]:
    """A folder store that has not been made yet."""
    store = LocalStore(tmp_path / "store", env)
    yield store
    await store.close()


@pytest.fixture
def stub() -> Iterator[StubServer]:
    """An HTTP server that answers what it is told to."""
    with StubServer() as server:
        yield server


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials, and nothing of this machine's own set-up."""
    for name in ("PROFILE", "SESSION_TOKEN", "REGION", "DEFAULT_REGION", "ENDPOINT_URL", "CA_BUNDLE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
async def s3(stub: StubServer, env: RealEnv, monkeypatch: pytest.MonkeyPatch, aws: None) -> AsyncIterator[S3Store]:
    """The bucket `bucket` at the stub."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.endpoint)
    store = S3Store.from_environment("bucket", "some/prefix", env)
    yield store
    await store.close()


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for time to pass, lets it pass."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += timeout
        return ready


class _VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@pytest.fixture
def virtual_time() -> Callable[..., float]:
    """`virtual_time(coroutine)` runs it on a clock that jumps; returns the seconds it took on that clock."""

    def run(coroutine: Coroutine[None, None, None]) -> float:
        with asyncio.Runner(loop_factory=_VirtualTimeLoop) as runner:
            runner.run(coroutine)
            return runner.get_loop().time()

    return run
