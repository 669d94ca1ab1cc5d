"""While a command waits for a running server: every few seconds a line on standard error that says for what.

The server is asked on a connection of its own, in a thread: the command itself is waiting in a call that blocks.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nbdserver.cli.shared.standard import complain

if TYPE_CHECKING:
    from nbdserver.admin.client import AdminClient

ASK_SECONDS = 2.0
"""A server that does not say how it is within that does not answer."""


@contextlib.contextmanager
def reminding(server: AdminClient, *, shows_progress: bool = False) -> Iterator[None]:
    """Say what the block waits for; with `shows_progress` only where something is wrong."""
    from nbdserver.service.waiting import FIRST_SECONDS, REPEAT_SECONDS

    over = threading.Event()

    def repeat() -> None:
        pause = FIRST_SECONDS
        while not over.wait(pause):
            sentence = _sentence(server, shows_progress=shows_progress)
            if sentence and not over.is_set():
                complain(sentence)
            pause = REPEAT_SECONDS

    threading.Thread(target=repeat, name="reminding", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _sentence(server: AdminClient, *, shows_progress: bool) -> str:
    from nbdserver.service.condition import waits_for
    from storage.errors import StorageError

    try:
        store = server.status(seconds=ASK_SECONDS)["store"]
    except StorageError as error:
        return f"still waiting: {error}"
    if shows_progress and not store["failing"]:
        return ""
    return f"still waiting: {waits_for(store)}"
