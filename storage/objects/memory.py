"""A store of objects in a dictionary: the reference for what all others must do."""

from collections.abc import Callable, Sequence

from storage.buffers import Buffer
from storage.errors import AlreadyExists, NotFound
from storage.objects.base import (
    ANSWER_BYTES_MAX,
    Capabilities,
    ObjectInfo,
    answer_length,
    check_name,
    check_prefix,
    check_range,
)


class MemoryStore:
    """Objects in memory, gone with the process. Every call is atomic: none of them awaits."""

    def __init__(self, url: str = "memory://", clock: Callable[[], float] = lambda: 0.0) -> None:
        self._url = url
        self._clock = clock
        self._objects: dict[str, bytes] = {}
        self._modified: dict[str, float] = {}

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_create=True)

    async def create(self, name: str, data: Buffer) -> None:
        check_name(name)
        if name in self._objects:
            raise AlreadyExists(f"{name} is in {self.url} already")
        await self.put(name, data)

    async def put(self, name: str, data: Buffer) -> None:
        check_name(name)
        self._objects[name] = bytes(data)
        self._modified[name] = self._clock()

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        check_range(offset, length)
        data = self._find(name)
        return data[offset : offset + answer_length(name, len(data), offset, length, limit)]

    async def head(self, name: str) -> ObjectInfo:
        return self._info(name, self._find(name))

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> list[ObjectInfo]:
        check_prefix(prefix)
        names = sorted(name for name in self._objects if name.startswith(prefix) and name > start_after)
        return [self._info(name, self._objects[name]) for name in names[:limit]]

    async def delete(self, names: Sequence[str]) -> None:
        for name in names:
            check_name(name)
        for name in names:
            self._objects.pop(name, None)
            self._modified.pop(name, None)

    async def close(self) -> None:
        pass

    def _info(self, name: str, data: bytes) -> ObjectInfo:
        return ObjectInfo(name, len(data), self._modified.get(name))

    def _find(self, name: str) -> bytes:
        check_name(name)
        try:
            return self._objects[name]
        except KeyError:
            raise NotFound(f"there is no {name} in {self.url}") from None
