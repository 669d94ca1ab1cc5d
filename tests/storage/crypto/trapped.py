"""A store at which a process ends, or another comes first, at a chosen request."""

from collections.abc import Awaitable, Callable, Sequence

from storage.buffers import Buffer
from storage.objects.base import ANSWER_BYTES_MAX, ObjectInfo
from storage.objects.memory import MemoryStore


class Interrupted(Exception):
    """The process dies here."""


class Trapped(MemoryStore):
    """A memory store that does something else at one step, before or after the step takes effect.

    Steps are named by their method; `trap` runs at the n-th call of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.traps: dict[tuple[str, str, int], Callable[[], Awaitable[None]]] = {}
        self._calls: dict[str, int] = {}

    def trap(self, method: str, when: str, do: Callable[[], Awaitable[None]], *, nth: int = 1) -> None:
        self._calls[method] = 0
        self.traps[method, when, nth] = do

    async def _at(self, method: str, when: str) -> None:
        if when == "before":
            self._calls[method] = self._calls.get(method, 0) + 1
        do = self.traps.pop((method, when, self._calls[method]), None)
        if do is not None:
            await do()

    async def create(self, name: str, data: Buffer) -> None:
        await self._at("create", "before")
        await super().create(name, data)
        await self._at("create", "after")

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        await self._at("get", "before")
        return await super().get(name, offset, length, limit)

    async def head(self, name: str) -> ObjectInfo:
        await self._at("head", "before")
        return await super().head(name)

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> list[ObjectInfo]:
        await self._at("list", "before")
        return await super().list(prefix, start_after, limit)

    async def delete(self, names: Sequence[str]) -> None:
        await self._at("delete", "before")
        await super().delete(names)
        await self._at("delete", "after")


async def die() -> None:
    raise Interrupted
