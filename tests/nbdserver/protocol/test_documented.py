"""docs/protocol.md shows the table that the handshake obeys, and names everything that is offered and answered."""

import re
from pathlib import Path

import pytest

from nbdserver.protocol import wire
from nbdserver.protocol.commands import COMMANDS
from nbdserver.protocol.option_answers import OPTIONS
from nbdserver.protocol.states import TRANSITIONS, Event, HandshakeState, picture

DOCUMENT = Path(__file__).parents[3].joinpath("docs", "protocol.md").read_text()


def test_the_picture_is_drawn_from_the_table() -> None:
    """If it fails, put `picture()` into the document."""
    (shown,) = re.findall(r"```mermaid\n(.*?)```", DOCUMENT, re.DOTALL)
    assert shown == picture()


def test_the_picture_shows_every_move() -> None:
    drawn = re.findall(r"^ +(\w+) --> (\w+): (.*)$", picture(), re.MULTILINE)
    moves = [
        (state.name, after.name, event.value) for state in TRANSITIONS for event, after in TRANSITIONS[state].items()
    ]
    assert drawn == moves
    assert set(re.findall(r"note right of (\w+): ", picture())) == {state.name for state in HandshakeState}


@pytest.mark.parametrize("member", [*HandshakeState, *Event])
def test_a_label_does_not_end_early(member: HandshakeState | Event) -> None:
    """Mermaid reads a label up to a colon or semicolon."""
    assert not set(":;\n") & set(member.value)


@pytest.mark.parametrize(
    "name",
    [
        *(rule.name for rule in OPTIONS.values()),
        *(command.name for command in COMMANDS.values()),
        *(
            name.removeprefix(prefix)
            for name in vars(wire)
            for prefix in ("REP_", "INFO_", "FLAG_", "CMD_FLAG_")
            if name.startswith(prefix) and not name.startswith("FLAG_C_")
        ),
        *(name for name in vars(wire) if re.fullmatch(r"E[A-Z]+", name) and isinstance(vars(wire)[name], int)),
    ],
)
def test_everything_is_named(name: str) -> None:
    assert re.search(rf"\b(INFO_)?{name}\b", DOCUMENT), f"{name} is not in docs/protocol.md"
