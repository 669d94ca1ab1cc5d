"""What is served: a store that this process writes, or the views of one that somebody else writes."""

import asyncio
from typing import Protocol

from nbdserver.exports import Exports
from storage import Follower, Store
from storage.errors import StorageError


class Served(Protocol):
    """A store, as whoever serves it sees it."""

    @property
    def newest(self) -> Store:
        """What clients that come now get, and what is asked about it."""

    @property
    def failed(self) -> asyncio.Future[StorageError]:
        """Resolves when it can go on no more."""

    async def close(self) -> None:
        """Give everything back."""


class OwnStore:
    """A store that this process writes: there is one, and it is always the newest."""

    def __init__(self, store: Store) -> None:
        self.newest = store
        self.failed = store.failed
        self.close = store.close


def tell_of_clients(served: Served, exports: Exports) -> None:
    """From now on it knows which clients have which device."""
    if isinstance(served, Follower):
        served.is_held = lambda view: view.open_devices.has(exports.held())
        served.clients_of = exports.clients_of
    served.newest.open_devices.clients_of = exports.clients_of
