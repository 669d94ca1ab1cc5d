"""The launch of this process: what it takes to start such a server again. Nothing of it is secret.

It is told to whoever may restart it, over the admin socket, and must be made before the process goes to the background,
which changes its folder.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from nbdserver.config import ServeSettings
from storage.secret import without_secrets

OPTION_VARIABLES = "NBDSERVER_"
"""How the variables begin that stand for options."""


ONCE = frozenset(("--take-over", "--accept-rollback", "--replace", "--fork", "--json"))
ONCE_VARIABLES = frozenset(OPTION_VARIABLES + option[2:].replace("-", "_").upper() for option in ONCE)
"""What a server was started with that its successors must not be, or that is for whoever starts them to say."""


def tcp_places(settings: ServeSettings) -> list[tuple[str, int]]:
    """Where a server with these settings listens over TCP."""
    return [place for place in (settings.tcp, settings.metrics, settings.dashboard) if place is not None]


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server was started. `manager`: by one that would take its end for a failure. `command`: for one alone."""

    arguments: tuple[str, ...]
    folder: str
    variables: Mapping[str, str]
    manager: bool
    command: bool
    ports: tuple[int, ...]
    """That it listens on, for clients and for people."""
    unix: str | None


def launch(settings: ServeSettings, environ: Mapping[str, str], *, managed: bool) -> Launch:
    """That of this process. Without the password, and where it comes from: who starts a server knows it; and without
    what somebody has to want each time."""
    return Launch(
        arguments=tuple(argument for argument in sys.argv[1:] if argument not in ONCE),
        folder=os.getcwd(),
        variables={
            name: value
            for name, value in without_secrets(environ).items()
            if name.startswith(OPTION_VARIABLES) and name not in ONCE_VARIABLES
        },
        manager=managed,
        command=settings.run is not None,
        ports=tuple(port for _, port in tcp_places(settings)),
        unix=None if settings.unix is None else str(settings.unix),
    )
