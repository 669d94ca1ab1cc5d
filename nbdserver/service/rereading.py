"""Rereading at SIGHUP: which options of a running server the configuration file may change. Each that is named here is
applied by `Service._reread`.

What the command line or a variable says weighs more than the file, as ever, and is not in here. All that changed is
taken, or nothing is: a file that is half right must not leave a server that is half of it.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

logger = logging.getLogger("nbdserver")

CHANGEABLE = frozenset(
    {
        "default_export",
        "exclusive",
        "exports",
        "keep",
        "max_connections",
        "max_connections_per_address",
        "prices",
        "request_budget",
        "scrub_days",
    }
)
"""Fields of the settings that count from the next client, or from the next look at what is due."""

OF_WRITERS = frozenset({"keep", "prices", "request_budget", "scrub_days"})
"""Of these, what a server that only follows a store does not do by itself."""


@dataclass(frozen=True, slots=True)
class Change:
    """An option whose value in the file is another one than that by which the server runs."""

    field: str
    """Of the settings."""
    option: str
    """As people write it: `--max-connections`."""
    value: Any


class Rereading(Protocol):
    """The file, as the server sees it."""

    def changes(self) -> Sequence[Change]:
        """What is in it now that the server does not run by. Invalid, AccessDenied: the file is not right."""

    def accept(self, changes: Sequence[Change]) -> None:
        """The server runs by these from now on."""


def take_all(steps: Sequence[Callable[[], None]]) -> None:
    """Carry out each step of a rereading. One that fails is a sentence in the log, and the next is taken all the same:
    the service manager waits for the end of a rereading, whatever comes of it."""
    from storage.errors import StorageError  # here: `serve --help` loads this module, and no storage

    for step in steps:
        try:
            step()
        except Exception as error:
            known = isinstance(error, StorageError)
            sentence = str(error) if known else f"a mistake in this program: {type(error).__name__}: {error}"
            logger.error("configuration_not_reloaded", extra={"error": sentence})
