"""A change of the tree of names, on its way to being durable."""

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TreeChange:
    """A change of the tree that was applied. Awaited, it is durable; who does not wait for that may let it go."""

    durable: Callable[[], Awaitable[None]]

    def __await__(self) -> Generator[Any, Any, None]:
        return self.durable().__await__()
