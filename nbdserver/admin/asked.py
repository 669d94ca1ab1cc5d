"""What operations are given beside the store, and what they give."""

from typing import Any, Protocol

from nbdserver.slow_operations import SlowOperation
from storage.errors import NotFound

Answer = dict[str, Any]
"""A JSON document, of which the operation says what is in it."""

RELEASED = b"released"
"""The answer to a stop, at its end: the server has let go of everything. One that dies before that does not say it."""


class Clients(Protocol):
    """The clients of a server, as operations see them."""

    def clients(self) -> list[Answer]:
        """Everybody who is connected."""

    def clients_of(self, name: str) -> list[Answer]:
        """Those that are attached to a device."""

    def disconnect(self, number: int) -> str:
        """Drop one; what it was called. NotFound."""

    def slow_operations(self, after: int = 0) -> list[SlowOperation]:
        """What clients waited long for: what ended, with numbers above `after`, and then what is under way."""

    async def accept(self, export: str) -> list[str]:
        """Refuse nobody this export any more for what was lost; gives whom it was refused."""


class NoClients:
    """The clients of a store that is not served."""

    def clients(self) -> list[Answer]:
        return []

    def clients_of(self, name: str) -> list[Answer]:
        return []

    def disconnect(self, number: int) -> str:
        raise NotFound("the store is not served here, so it has no clients")

    def slow_operations(self, after: int = 0) -> list[SlowOperation]:
        return []

    async def accept(self, export: str) -> list[str]:
        return []


NO_CLIENTS = NoClients()
