"""The options that a store is opened with, and how far its opening is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from storage.crypto.keys import DEFAULT_COST, Cost
from storage.fs.early_unlock import OPEN_SECONDS_MAX, Unlocked
from storage.fs.snapshots.retention import Keep
from storage.lsm.options import EngineOptions
from storage.lsm.recovery.view import ViewAhead
from storage.objects.health import Health
from storage.prices import PriceList

FOLLOW_SECONDS = 5.0
"""A look is a LIST and a HEAD, which at AWS are three dollars a month at this pace."""


LastLook = Callable[[], Awaitable[None]]


async def no_look() -> None:
    """Nothing is looked at."""


@dataclass(slots=True)
class Opening:
    """How far the opening of a store is, for whoever waits for it. Changed by the opening, read by others."""

    step: str = "the store"
    """What is read now, for people."""
    health: Health | None = None
    """Whether the store answers, as far as is known."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store is opened. `state_folder` is where this host remembers stores; None: the system's place for that.
    `journal_folder` is where on this host, in memory, the journal lies that outlives the process; None: there is none.
    `admin_socket` is where the commands of this host will reach the process that opens it, if they can.

    `keep` is the schedule of snapshots that its writer takes and deletes, by period (see `retention`); empty: none.
    `scrub_seconds`: in so long all data is read once, beside its clients; None: never.

    `signs`: its writer gives signs of life, for servers elsewhere that stand by. `tried`: the place was tried out, and
    can do what a store needs. `last_look`: awaited when all is read; if it raises, the store is not taken.

    `prices` are those by which the status says what the store costs; None: it does not. `request_budget`: background
    work slows down where a month would have more requests; None: it does not.

    `patience_seconds` is how long an open store keeps asking one that does not answer, or is full, before it fails.
    None, for servers: for ever.
    """

    engine: EngineOptions = field(default_factory=EngineOptions)
    state_folder: Path | None = None
    admin_socket: Path | None = None
    journal_folder: Path | None = None
    keep: Keep = field(default_factory=dict)
    scrub_seconds: float | None = None
    signs: bool = False
    tried: bool = False
    last_look: LastLook = no_look
    prices: PriceList | None = None
    request_budget: int | None = None
    store_deadline_seconds: float = OPEN_SECONDS_MAX
    patience_seconds: float | None = None
    look_seconds: float = FOLLOW_SECONDS
    """So often who follows a writer looks whether it has gone on."""
    cost: Cost = DEFAULT_COST
    unlocked: Unlocked | None = None
    """The keys of this very store, which somebody has begun to open with its password."""
    ahead: ViewAhead | None = None
    """What was read of this very store while another writer had it (see `view_ahead`)."""
    opening: Opening = field(default_factory=Opening)
    """Told of the opening of this one store."""
