"""A change of the tree of names, on its way to being durable, and one of trunks before that is made."""

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any

from storage.errors import BrokenInvariant, StorageError


@dataclass(frozen=True, slots=True)
class TreeChange:
    """A change of the tree that was applied. Awaited, it is durable; who does not wait for that may let it go."""

    durable: Callable[[], Awaitable[None]]

    def __await__(self) -> Generator[Any, Any, None]:
        return self.durable().__await__()


class TrunkChange:
    """A change of trunks that is planned and made in one step, when its turn comes; `refused` says why it was not."""

    def __init__(self, plan: Callable[[], tuple[bytes, list[int]]], apply: Callable[[bytes, list[int]], None]) -> None:
        """`plan` gives a record and the heads of its trunks, which `apply` takes."""
        self._plan = plan
        self._apply = apply
        self.refused: StorageError | None = None

    def __call__(self) -> bool:
        """Make it; False if it is refused, and nothing has changed. BrokenInvariant: it does not fit."""
        try:
            self._apply(*self._plan())
        except BrokenInvariant:
            raise
        except StorageError as error:
            self.refused = error
        return self.refused is None
