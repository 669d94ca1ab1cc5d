"""The state machine of the handshake: TRANSITIONS is the table that `Handshake` obeys.

An event that a state does not list ends the connection. The picture in docs/protocol.md is `picture()`.
"""

from enum import Enum


class HandshakeState(Enum):
    """Where a handshake is."""

    GREETED = "the greeting is out, the client's flags are awaited"
    PLAIN = "newstyle without the fix, only EXPORT_NAME can follow"
    UNSECURED = "fixed newstyle, but before TLS only STARTTLS and ABORT can succeed"
    HAGGLING = "fixed newstyle, options are answered"
    UPGRADING = "what follows is for TLS"
    TRANSMISSION = "an export was chosen"
    CLOSED = "the client gave up"


class Event(Enum):
    """What moves a handshake."""

    PLAIN_CLIENT = "client without fixed newstyle"
    FIXED_CLIENT = "client with fixed newstyle"
    TLS_FIRST = "client with fixed newstyle, TLS is required"
    ANSWERED = "option answered, with success or an error"
    STARTED_TLS = "STARTTLS acknowledged"
    SECURED = "TLS is up"
    CHOSEN = "EXPORT_NAME or GO succeeded"
    ABORTED = "ABORT acknowledged"


TRANSITIONS: dict[HandshakeState, dict[Event, HandshakeState]] = {
    HandshakeState.GREETED: {
        Event.PLAIN_CLIENT: HandshakeState.PLAIN,
        Event.TLS_FIRST: HandshakeState.UNSECURED,
        Event.FIXED_CLIENT: HandshakeState.HAGGLING,
    },
    HandshakeState.PLAIN: {Event.CHOSEN: HandshakeState.TRANSMISSION},
    HandshakeState.UNSECURED: {
        Event.ANSWERED: HandshakeState.UNSECURED,
        Event.STARTED_TLS: HandshakeState.UPGRADING,
        Event.ABORTED: HandshakeState.CLOSED,
    },
    HandshakeState.HAGGLING: {
        Event.ANSWERED: HandshakeState.HAGGLING,
        Event.STARTED_TLS: HandshakeState.UPGRADING,
        Event.CHOSEN: HandshakeState.TRANSMISSION,
        Event.ABORTED: HandshakeState.CLOSED,
    },
    HandshakeState.UPGRADING: {Event.SECURED: HandshakeState.HAGGLING},
    HandshakeState.TRANSMISSION: {},
    HandshakeState.CLOSED: {},
}


def picture() -> str:
    """TRANSITIONS as a Mermaid diagram: what docs/protocol.md shows."""
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(TRANSITIONS)).name}"]
    for state, moves in TRANSITIONS.items():
        lines += [f"    {state.name} --> {after.name}: {event.value}" for event, after in moves.items()]
        if not moves:
            lines.append(f"    {state.name} --> [*]")
    lines += [f"    note right of {state.name}: {state.value}" for state in TRANSITIONS]
    return "\n".join(lines) + "\n"
