"""Throughput: a client that holds what others wait for, and moves nothing or too little, is stuck. No I/O."""

from nbdserver.server.limits import PROGRESS_RATE_MIN


class Progress:
    """One stream of bytes, looked at now and then. It is stuck if for `seconds` it moves at less than
    PROGRESS_RATE_MIN."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._moved = 0

    def is_stuck(self, now: float, moved: int) -> bool:
        """`moved` bytes of it so far: counted from the first of these calls, or from `begin_anew`."""
        if self._since is None or moved - self._moved > PROGRESS_RATE_MIN * (now - self._since):
            self._since, self._moved = now, moved
            return False
        return now - self._since >= self._seconds

    def begin_anew(self) -> None:
        """Nobody waits for it, or it is not its fault."""
        self._since = None
