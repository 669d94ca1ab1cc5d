"""Operations that one round of a replication asks of its two stores, beside those on snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from nbdserver.admin.asked import NO_CLIENTS, Answer, Clients
from storage.errors import Conflict, NotFound

if TYPE_CHECKING:
    from storage import Store

COMPARING = "a comparison"
"""What needs a snapshot while it is compared."""

SETTLE_SECONDS = 5.0
"""How long an import may take to be undone after it was cut short: an answer is due before ANSWER_SECONDS."""

_LOOK_SECONDS = 0.05


class ShowHistory(msgspec.Struct, frozen=True, tag="show-history"):
    """The identity of the store, and the snapshots of a device, oldest first; None for them: there is no such device,
    and one may be made.

    What an import that was cut short has left is waited for. Conflict: one is under way. Invalid, Conflict: there is no
    such device, and none may be made.
    """

    device: str
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        answer = {"store_id": store.status().store_id, "snapshots": None}
        try:
            await _settled(store, self.device)
            layers = store.snapshots.of_device(self.device)
        except NotFound:
            store.filling.check_new(self.device)
            return answer
        found = [{"name": one.name, "identity": one.identity.hex(), "created": one.born / 1e9} for one in layers]
        return {**answer, "snapshots": found}


class FindHeld(msgspec.Struct, frozen=True, tag="find-held"):
    """Which of these snapshots a device holds exactly, the first one that it does; None: none of them."""

    device: str
    snapshots: list[str]
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await _settled(store, self.device)
        return {"snapshot": await store.snapshots.which_is_held(self.device, self.snapshots, COMPARING)}


class DeleteUnneeded(msgspec.Struct, frozen=True, tag="delete-unneeded"):
    """These snapshots of a device go, together; what is in use, gone already, or over what cannot be read now, is
    passed over. Which ones went.
    """

    device: str
    snapshots: list[str]
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        try:
            there = {one.name: one.number for one in store.snapshots.of_device(self.device)}
        except NotFound:
            return {"deleted": []}
        going = {name: there[name] for name in self.snapshots if name in there}
        refused = await store.snapshots.delete_several(list(going.values()))
        return {"deleted": [name for name, number in going.items() if number not in refused]}


async def _settled(store: Store, device: str) -> None:
    """Return when nobody has the device for themselves. Conflict: whoever has it goes on. NotFound. A reader does not
    wait: nothing is undone in what it shows.
    """
    import asyncio  # a command that only asks a server does without

    try:
        async with asyncio.timeout(0 if store.status().read_only else SETTLE_SECONDS):
            while store.device(device).exclusive_user is not None:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        user = store.device(device).exclusive_user
        raise Conflict(f"{device!r} is in use by {user}: wait for its end") from None
