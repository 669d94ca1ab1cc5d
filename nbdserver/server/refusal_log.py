"""The log of refusals, of what clients are refused: so many lines a minute of one address, and so many of all.

A client that is refused knows why, but its operator reads the server's log; and a client that means harm must not fill
a disk with it.
"""

import logging
from collections import Counter

from nbdserver.server.peer import Peer

logger = logging.getLogger("nbdserver")

PERIOD_SECONDS = 60.0

LINES_PER_ADDRESS = 10
"""Of one address in a period; the last of them says that no more follow."""

LINES = 200
"""Of all addresses together, for who has many of them. It bounds what is remembered, too."""

LENGTH_MAX = 200
"""Characters of a reason, which may hold what a client sent."""


class RefusalLog:
    """The log of one server's refusals."""

    def __init__(self) -> None:
        self._ends = 0.0
        self._lines: Counter[str] = Counter()
        self._total = 0

    def note(self, peer: Peer, now: float, event: str, reason: str, *, level: int = logging.INFO) -> None:
        """Log that something, such as "client_refused", befell a client; `now` in seconds of the loop's clock."""
        if now >= self._ends:
            self._ends, self._total = now + PERIOD_SECONDS, 0
            self._lines.clear()
        if self._total >= LINES or self._lines[peer.address] >= LINES_PER_ADDRESS or not logger.isEnabledFor(level):
            return
        self._total += 1
        self._lines[peer.address] += 1
        text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in reason[:LENGTH_MAX])
        if self._total == LINES:
            text += f" (no more is logged for up to {PERIOD_SECONDS:.0f} s)"
        elif self._lines[peer.address] == LINES_PER_ADDRESS:
            text += f" (no more of {peer.address} is logged for up to {PERIOD_SECONDS:.0f} s)"
        logger.log(level, event, extra={"peer": peer.name, "reason": text})
