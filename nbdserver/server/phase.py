"""Phases of a connection: the handshake, the transmission, and the time in which it closes.

A `Connection` has one phase at a time and hands on to it what the event loop says. Each phase has only what exists in
it: no session in the handshake, no deadline of the handshake in the transmission.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from nbdserver.slow_operations import SlowOperation
from nbdserver.traffic import Traffic
from storage.units import KIB

shared_buffer = memoryview(bytearray(64 * KIB))
"""Where the bytes of all handshakes arrive, since they are taken out of it in the same turn of the loop, and what is
dropped."""


class PhaseOwner(Protocol):
    """The connection, as its phases see it."""

    def proceed(self) -> None:
        """What stopped the parsing may be over: go on, in whichever phase that is."""

    def guarded(self, function: Callable[..., None], *arguments: object) -> None:
        """Run a step; whatever goes wrong in it ends this connection and no other."""

    def refused(self, event: str, reason: str) -> None:
        """The client did not get what it wanted: "client_refused", or "client_dropped" if that ended it."""

    def drop(self, why: str) -> None:
        """Say why, and drop the client at once."""

    def fail(self) -> None:
        """Drop the client at once, with all that was not carried out."""

    def close(self) -> None:
        """End the connection when what is queued has been sent, or after a while without that."""


class Phase:
    """One phase of one connection; what a phase does not say is that it does nothing."""

    buffer: Callable[[], memoryview]
    """Where the next bytes are to be put."""
    slow_operations: Callable[[], Iterable[SlowOperation]] = tuple
    """Those under way that are slow already."""

    @property
    def traffic(self) -> Traffic:
        """What was counted of this client so far."""
        return Traffic()

    def received(self, count: int) -> None:
        """`count` bytes were put where `buffer` said. ProtocolError: no way to go on."""

    def proceed(self) -> None:
        """What stopped the parsing may be over: go on."""

    def writing_paused(self) -> None:
        """Too much is unsent."""

    def writing_resumed(self) -> None:
        """The client has taken most of it."""

    def send(self) -> None:
        """Hand what is ready to the transport."""

    def drain(self) -> bool:
        """The server is stopping: finish what is under way, and take nothing more. False: nothing is under way."""
        return False

    @property
    def owes_replies(self) -> bool:
        """The client said DISC, and replies that it waits for are not ready."""
        return False

    @property
    def is_last_word(self) -> bool:
        """No further request will come, so that the client only reads to the end."""
        return False

    def leave(self) -> None:
        """The phase is over: end what was under way in it."""


class Closing(Phase):
    """Before a connection is made, and when it has ended: what arrives is dropped."""

    def __init__(self, traffic: Traffic) -> None:
        """`traffic` stays as it was."""
        self.buffer = lambda: shared_buffer
        self._traffic = traffic

    @property
    def traffic(self) -> Traffic:
        return self._traffic
