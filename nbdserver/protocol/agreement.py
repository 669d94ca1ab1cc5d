"""The agreement that a handshake ends in: the exports a client may choose from, and what both sides agree on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Generic, Protocol, TypeVar

from nbdserver.protocol import wire

BASE_ALLOCATION = "base:allocation"
BASE_ALLOCATION_ID = 1

CHANGED_SINCE = ("x-nbdserver:changed:", "qemu:dirty-bitmap:")
"""What the name of a snapshot follows: both say what changed since, the second as QEMU and what knows it ask for it."""

INCARNATION = "x-nbdserver:incarnation:"
"""What the id of an incarnation follows: it is offered while nothing was lost since that was answered."""

CONTEXTS_MAX = 16
"""Of one client: each is looked at for every BLOCK_STATUS."""

WILDCARDS = ("base:", "x-nbdserver:", "qemu:", INCARNATION, *CHANGED_SINCE)
"""Queries of LIST_META_CONTEXT that mean all contexts whose names begin so."""


@dataclass(frozen=True, slots=True)
class MetaContext:
    """A metadata context of an export."""

    name: str
    since: str = ""
    """The snapshot that it is about; empty: it is about none."""
    number: int = BASE_ALLOCATION_ID
    """What BLOCK_STATUS calls it, once it is selected."""


def listed(known: Sequence[MetaContext], queries: Sequence[str]) -> list[MetaContext]:
    """Those that a LIST_META_CONTEXT with these queries means."""
    wanted = set(queries)
    beginnings = tuple(wanted.intersection(WILDCARDS))
    return [each for each in known if not wanted or each.name in wanted or each.name.startswith(beginnings)]


def selected(known: Sequence[MetaContext], queries: Sequence[str]) -> tuple[MetaContext, ...]:
    """Those that a SET_META_CONTEXT with these queries selects, numbered. OptionRefused: too many."""
    wanted = set(queries)
    chosen = [each for each in known if each.name in wanted]
    if len(chosen) > CONTEXTS_MAX:
        raise wire.OptionRefused(wire.REP_ERR_TOO_BIG, f"at most {CONTEXTS_MAX} contexts are given to one client")
    return tuple(replace(each, number=number) for number, each in enumerate(chosen, BASE_ALLOCATION_ID))


class ExportInfo(Protocol):
    """What the handshake tells a client about an export."""

    @property
    def name(self) -> str:
        """Its canonical name."""

    @property
    def description(self) -> str:
        """One line for people."""

    @property
    def size(self) -> int:
        """Bytes now."""

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""

    @property
    def exclusive(self) -> bool:
        """Whether only one connection may have it at a time."""

    @property
    def is_view(self) -> bool:
        """Whether another connection may get another moment of the disk, or another snapshot of the name."""

    def snapshots(self) -> Sequence[str]:
        """The snapshots since which it can say what changed, by name."""

    def incarnations(self, queries: Sequence[str]) -> Sequence[str]:
        """The contexts of the store's incarnation, first, and of those that are asked for and unbroken."""


def contexts_of(export: ExportInfo, queries: Sequence[str]) -> list[MetaContext]:
    """All contexts of an export, as far as these queries may mean them.

    Most clients ask for BASE_ALLOCATION alone; the snapshots of a disk may be many.
    """
    kinds = [kind for kind in CHANGED_SINCE if not queries or any(_may_mean(query, kind) for query in queries)]
    snapshots = export.snapshots() if kinds else ()
    return [
        MetaContext(BASE_ALLOCATION),
        *(MetaContext(kind + snapshot, snapshot) for kind in kinds for snapshot in snapshots),
        *map(MetaContext, export.incarnations(queries)),
    ]


def _may_mean(query: str, kind: str) -> bool:
    return query.startswith(kind) or kind.startswith(query)


ExportT = TypeVar("ExportT", bound=ExportInfo)


class Catalogue(Protocol[ExportT]):
    """Which exports there are for this client."""

    def names(self) -> Sequence[str]:
        """The names that LIST shows; costs next to nothing."""

    def find(self, name: str) -> ExportT | None:
        """The export a client means by `name` ("" is the default one), or None."""

    def refusal(self, export: ExportT) -> str | None:
        """A sentence why the export cannot be attached now, or None; asked when a client is about to attach."""


class Dialect(Enum):
    """How requests and replies look; which one, the client chooses."""

    SIMPLE = "compact requests, simple replies"
    STRUCTURED = "compact requests, structured replies"
    EXTENDED = "extended requests and replies"


@dataclass(frozen=True, slots=True)
class Agreement(Generic[ExportT]):
    """What the two sides agreed on for the transmission phase."""

    export: ExportT
    dialect: Dialect
    contexts: tuple[MetaContext, ...] = ()
    """What was selected for this very export."""

    @property
    def block_status(self) -> bool:
        """Whether anything was."""
        return bool(self.contexts)

    @property
    def structured(self) -> bool:
        """Whether replies come in chunks."""
        return self.dialect is not Dialect.SIMPLE


def transmission_flags(export: ExportInfo, dialect: Dialect, *, block_status: bool) -> int:
    """The transmission flags of an export ("Transmission flags").

    CAN_MULTI_CONN holds because all connections of an export share one device: a FLUSH on one covers the
    completed writes of all. It is not said where a second connection would be refused, or may show something else
    under the name. BLOCK_STATUS_PAYLOAD is for clients that selected a context of this very export (`block_status`).
    """
    flags = wire.FLAG_HAS_FLAGS | wire.FLAG_SEND_FLUSH | wire.FLAG_SEND_FUA
    flags |= wire.FLAG_SEND_CACHE
    if not export.exclusive and not export.is_view:
        flags |= wire.FLAG_CAN_MULTI_CONN
    if export.read_only:
        flags |= wire.FLAG_READ_ONLY
    else:
        flags |= wire.FLAG_SEND_TRIM | wire.FLAG_SEND_WRITE_ZEROES | wire.FLAG_SEND_FAST_ZERO
    if dialect is not Dialect.SIMPLE:
        flags |= wire.FLAG_SEND_DF
    if dialect is Dialect.EXTENDED and block_status:
        flags |= wire.FLAG_BLOCK_STATUS_PAYLOAD
    return flags
