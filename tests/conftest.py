"""Fixtures for all tests: the markers, the need of tools, MinIO, and the real program on a store.

Markers: a test is `fast` unless it is `integration` (runs the real program or real clients), `guest` (boots a
virtual machine), `slow` or `thorough` (half a second or more). `scripts/check` runs the fast ones,
`scripts/test` all.
"""

import gc
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.failures import FailuresAtOnce
from tests.support.interleaved import Interleaved
from tests.support.leftovers import Leftovers
from tests.support.memory import folder_in_memory
from tests.support.minio import RunningMinio
from tests.support.parts import Parts
from tests.support.program import Host, Server
from tests.support.requirements import require
from tests.support.sightings import Sightings
from tests.support.stores import StoreUnderTest, folder_store, minio_store

MARKERS = {
    "fast": "needs nothing but Python; the default",
    "integration": "runs the real program, real clients or MinIO",
    "guest": "boots a virtual machine with the kernel's NBD client",
    "slow": "takes more than a few seconds",
    "thorough": "takes half a second or more, and has quicker ones beside it: for a run of all tests",
}


LONG = ("guest", "slow")
LONG_SECONDS_MAX = 1200
"""When such a test is taken for one that hangs, unless it says itself; the limit of all others is in pyproject.toml."""

# No test is about time: a machine that is busy must not fail one.
hypothesis.settings.register_profile("all", deadline=None)
hypothesis.settings.register_profile("fast", deadline=None, max_examples=25)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", metavar="NUMBER/COUNT", help="run this share of the tests, as of several side by side")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # of those that run tests side by side, their parent
        config.pluginmanager.register(Leftovers())
        config.pluginmanager.register(FailuresAtOnce(config))
        config.pluginmanager.register(Sightings())
    else:
        config.pluginmanager.register(Interleaved())
    if config.option.part is not None:
        config.pluginmanager.register(Parts(config.option.part))
    # Before a commit a quarter of the examples; `tests.support.examples` has those of tests that have their own number.
    hypothesis.settings.load_profile("fast" if config.option.markexpr.startswith("fast") else "all")
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_sessionstart() -> None:
    """Shells start what is in the background without SIGINT, and all that it starts has none: programs are interrupted
    here.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    real = f"{Path(__file__).parent / 'integration'}/"
    for item in items:
        names = {mark.name for mark in item.iter_markers()}
        if str(item.path).startswith(real):
            item.add_marker(pytest.mark.integration)
        elif names.isdisjoint(MARKERS):
            item.add_marker(pytest.mark.fast)
        if not names.isdisjoint(LONG) and "timeout" not in names:
            item.add_marker(pytest.mark.timeout(LONG_SECONDS_MAX))


def pytest_collection_finish() -> None:
    """All that was imported lives as long as the process: no collection need look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(name="require")
def require_fixture() -> Callable[..., None]:
    """`require("nbdinfo", "/dev/fuse", "root")`: skips the test naming what is missing; fails it where
    CI=true.
    """
    return require


@pytest.fixture
def work() -> Iterator[Path]:
    """A folder with a short path (Unix sockets allow 107 bytes), removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, as journals ask for."""
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture(scope="session")
def minio() -> Iterator[RunningMinio]:
    """One MinIO for the session (one per xdist worker); tests keep apart by prefix."""
    require("minio")
    with tempfile.TemporaryDirectory(prefix="nbd-minio-") as folder:
        running = RunningMinio(Path(folder))
        running.start()
        yield running
        running.stop()


@pytest.fixture(params=["file", "minio"])
def store(request: pytest.FixtureRequest, work: Path) -> StoreUnderTest:
    """An empty store; a test that uses it runs on a folder and on MinIO."""
    if request.param == "file":
        return folder_store(work)
    return minio_store(request.getfixturevalue("minio"), f"test-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def local_store(work: Path) -> StoreUnderTest:
    """An empty store in a folder, for tests that have nothing to gain from MinIO."""
    return folder_store(work)


@pytest.fixture
def host(work: Path) -> Host:
    """A machine with its own state and runtime folders, without credentials for any store."""
    return Host(work)


@pytest.fixture
def make_server(work: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers (not started) that are gone when the test ends; takes what `Server` takes."""
    made: list[Server] = []

    def make(store: StoreUnderTest, *, on: Host | None = None, **options: object) -> Server:
        where = on or Host(work, store.environment)
        made.append(Server(where, store.location, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def server(store: StoreUnderTest, make_server: Callable[..., Server]) -> Server:
    """The real program with an empty 256 MiB device `disk`, running, on a folder store and on MinIO."""
    running = make_server(store, create={"disk": "256MiB"})
    running.start()
    return running
