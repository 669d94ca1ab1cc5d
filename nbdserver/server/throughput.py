"""Throughput: a client that holds what others wait for, and moves nothing or too little, is stuck. No I/O."""

from nbdserver.server.limits import PROGRESS_RATE_MIN


class Progress:
    """One stream of bytes, looked at now and then. It is stuck if for `seconds` it moves at less than
    PROGRESS_RATE_MIN. A look that comes more than `gap_seconds` behind the one before begins anew: this process stood
    still itself, and what came meanwhile lies in the kernel."""

    def __init__(self, seconds: float, gap_seconds: float) -> None:
        self._seconds = seconds
        self._gap_seconds = gap_seconds
        self._since: float | None = None
        self._looked = 0.0
        self._moved = 0

    def is_stuck(self, now: float, moved: int) -> bool:
        """`moved` bytes of it so far: counted from the first of these calls, or from `begin_anew`."""
        looked, self._looked = self._looked, now
        if now - looked > self._gap_seconds:
            self.begin_anew()
        if self._since is None or moved - self._moved > PROGRESS_RATE_MIN * (now - self._since):
            self._since, self._moved = now, moved
            return False
        return now - self._since >= self._seconds

    def begin_anew(self) -> None:
        """Nobody waits for it, or it is not its fault."""
        self._since = None
