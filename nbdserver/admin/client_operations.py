"""Operations on the clients of a server: who is connected, what they waited long for, and who gets an export again."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from nbdserver.admin.asked import NO_CLIENTS, Answer, Clients

if TYPE_CHECKING:
    from storage import Store


class ListClients(msgspec.Struct, frozen=True, tag="list-clients"):
    """Everybody who is connected."""

    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        return {"clients": clients.clients()}


class DisconnectClient(msgspec.Struct, frozen=True, tag="disconnect-client"):
    """One client is dropped, with all it sent that was not carried out."""

    id: int
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        return {"id": self.id, "disconnected": clients.disconnect(self.id)}


class ShowSlow(msgspec.Struct, frozen=True, tag="show-slow"):
    """What clients waited for at least `seconds` for, of all devices or of one: what ended, with numbers above `after`,
    and then what is under way. With `last`, the number to go on after.
    """

    device: str | None
    seconds: float
    after: int
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        found = clients.slow_operations(self.after)
        last = max((each.number for each in found), default=self.after)
        ours = [each for each in found if self.device in (None, each.device)]
        if self.device is not None and not ours:
            store.device(self.device)  # NotFound: a name that is not there
        slow = [each for each in ours if each.seconds >= self.seconds]
        return {"last": max(last, self.after), "operations": [msgspec.to_builtins(each) for each in slow]}


class AcceptClients(msgspec.Struct, frozen=True, tag="accept-clients"):
    """Clients that may miss what they were answered get this export again."""

    export: str
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        return {"export": self.export, "accepted": await clients.accept(self.export)}
