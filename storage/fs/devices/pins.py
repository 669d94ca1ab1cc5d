"""Pins: snapshots that something under way needs, and that are not deleted meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager


class Pins:
    """Who needs which snapshots of one open store, as layers by number: those are not deleted meanwhile."""

    def __init__(self) -> None:
        self._users: dict[int, list[str]] = {}

    def __contains__(self, number: object) -> bool:
        return number in self._users

    def user(self, number: int) -> str | None:
        """Who needs it, for people; None: nobody."""
        users = self._users.get(number)
        return users[0] if users else None

    @contextmanager
    def pin(self, number: int, user: str) -> Iterator[None]:
        """It is needed by `user`, such as "an export", in here."""
        self._users.setdefault(number, []).append(user)
        try:
            yield
        finally:
            self._users[number].remove(user)
            if not self._users[number]:
                del self._users[number]
