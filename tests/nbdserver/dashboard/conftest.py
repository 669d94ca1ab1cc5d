"""A dashboard on a real port, of a real NBD server on a store in memory, and who asks it."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from nbdserver.dashboard.access_tokens import AccessTokens, tokens_of
from nbdserver.dashboard.curves import Curves
from nbdserver.dashboard.samples import Sampler
from nbdserver.dashboard.web import Dashboard
from nbdserver.server.listener import Listener
from storage import Store, StoreOptions, open_store
from storage.crypto.keys import Cost
from storage.env import RealEnv
from tests.support.running import Running

TOKENS = tokens_of(b"a secret of tests")


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    env = RealEnv()
    opened = await open_store(
        "memory://", b"password", env=env, create=True, options=StoreOptions(cost=Cost.for_tests())
    )
    yield opened
    await opened.close()
    env.close()


@pytest.fixture
async def sampler(store: Store, running: Running) -> AsyncIterator[Sampler]:
    made = sampler_of(store, running.server)
    yield made
    await made.stop()


def sampler_of(store: Store, server: Listener) -> Sampler:
    return Sampler(
        lambda: store,
        server,
        lambda: {"clients": server.clients(), "stopping": False},
        lambda _: [],
        RealEnv(),
        scrub_days=lambda: 30.0,
        snapshot_seconds=lambda: None,
    )


@dataclass
class Asker:
    """Asks a dashboard, with a token or without, and with whatever headers."""

    session: aiohttp.ClientSession
    url: str
    tokens: AccessTokens = TOKENS

    async def ask(
        self, method: str, path: str, token: str | None = None, body: object = None, **headers: str
    ) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers, and what came, as JSON if it is that. `Host_` and the like are headers without the end."""
        given = {name.replace("_", "-").strip("-"): value for name, value in headers.items()}
        if token is not None:
            given.setdefault("Authorization", f"Bearer {token}")
        async with self.session.request(
            method, self.url + path, json=body, headers=given, allow_redirects=False
        ) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, answer.headers, await answer.json() if is_json else await answer.read()

    async def status(self, method: str, path: str, token: str | None = None, **headers: str) -> int:
        return (await self.ask(method, path, token, **headers))[0]


Serve = Callable[..., Any]


@pytest.fixture
async def board(store: Store, running: Running, sampler: Sampler) -> AsyncIterator[Dashboard]:
    curves = Curves(running.server, lambda: store.request_stats.requests, RealEnv())
    made = Dashboard(lambda: store, running.server, sampler, curves, TOKENS, hosts=["disks.example"], context=None)
    await made.listen("127.0.0.1", 0)
    yield made
    await made.stop()


@pytest.fixture
async def asker(board: Dashboard) -> AsyncIterator[Asker]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield Asker(session, board.url.rstrip("/"))
