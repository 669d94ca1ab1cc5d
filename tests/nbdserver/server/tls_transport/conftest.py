"""A server with TLS and its certificates."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from nbdserver.server.limits import Limits
from storage.env import RealEnv
from tests.nbdserver.server.tls_transport.tls_server import Running
from tests.support.certificates import Authority, write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pki")
    write_folder(made, Authority(), client="backup.example.com")
    return made


@pytest.fixture(scope="module")
def context(folder: Path) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=folder / "ca-cert.pem")
    made.load_cert_chain(folder / "client-cert.pem", folder / "client-key.pem")
    return made


@pytest.fixture
def env() -> Iterator[RealEnv]:
    made = RealEnv()
    yield made
    made.close()


@pytest.fixture
async def make(folder: Path, work: Path, env: RealEnv) -> AsyncIterator[Callable[..., Running]]:
    made: list[Running] = []

    def build(limits: Limits | None = None, *, required: bool = False, verify: bool = False) -> Running:
        made.append(Running(folder, work, env, limits or Limits(), required=required, verify=verify))
        return made[-1]

    yield build
    for running in made:
        await running.server.stop(0)
        for talk in running.talks:
            talk.close()


@pytest.fixture
async def running(make: Callable[..., Running]) -> Running:
    started = make()
    await started.start()
    return started
