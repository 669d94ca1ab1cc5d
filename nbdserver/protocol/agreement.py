"""This file knows what a handshake is about: the exports a client may choose from, and what both sides agree on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from nbdserver.protocol import wire

BASE_ALLOCATION = "base:allocation"
BASE_ALLOCATION_ID = 1


class Export(Protocol):
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


ExportT = TypeVar("ExportT", bound=Export)


class Catalogue(Protocol[ExportT]):
    """Which exports there are for this client."""

    def names(self) -> Sequence[str]:
        """The names that LIST shows."""

    def find(self, name: str) -> ExportT | None:
        """The export a client means by `name` ("" is the default one), or None."""

    def refusal(self, export: ExportT) -> str | None:
        """A sentence why the export cannot be attached now, or None; asked when a client is about to attach."""


@dataclass(frozen=True, slots=True)
class Agreement(Generic[ExportT]):
    """What the two sides agreed on for the transmission phase."""

    export: ExportT
    structured: bool
    block_status: bool
    """Whether base:allocation was selected for this very export."""


def transmission_flags(*, read_only: bool, structured: bool) -> int:
    """The transmission flags of an export ("Transmission flags").

    CAN_MULTI_CONN holds because all connections of an export share one device: a FLUSH on one covers the
    completed writes of all.
    """
    flags = wire.FLAG_HAS_FLAGS | wire.FLAG_SEND_FLUSH | wire.FLAG_SEND_FUA
    flags |= wire.FLAG_CAN_MULTI_CONN | wire.FLAG_SEND_CACHE
    if read_only:
        flags |= wire.FLAG_READ_ONLY
    else:
        flags |= wire.FLAG_SEND_TRIM | wire.FLAG_SEND_WRITE_ZEROES | wire.FLAG_SEND_FAST_ZERO
    if structured:
        flags |= wire.FLAG_SEND_DF
    return flags
