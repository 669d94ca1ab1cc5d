"""A handler of requests that writes down what it is asked."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

Call = tuple[object, ...]


@dataclass
class Recorder:
    """Calls in order. `takes` decides, call by call, whether one is taken or is to be offered again."""

    takes: Callable[[], bool] = lambda: True
    calls: list[Call] = field(default_factory=list)
    offered: int = 0
    allocated: list[memoryview] = field(default_factory=list)

    def _call(self, *call: object) -> bool:
        self.offered += 1
        if not self.takes():
            return False
        self.calls.append(call)
        return True

    def read(self, cookie: bytes, offset: int, length: int, *, dont_fragment: bool = False) -> bool:
        return self._call("read", cookie, offset, length, dont_fragment)

    def write(self, cookie: bytes, offset: int, data: bytes | memoryview, *, fua: bool = False) -> bool:
        return self._call("write", cookie, offset, bytes(data), fua)

    def zero(self, cookie: bytes, offset: int, length: int, *, command: int, allocated: bool, fua: bool) -> bool:
        return self._call("zero", cookie, offset, length, allocated, fua)

    def flush(self, cookie: bytes) -> bool:
        return self._call("flush", cookie)

    def cache(self, cookie: bytes, offset: int, length: int) -> bool:
        return self._call("cache", cookie, offset, length)

    def block_status(
        self, cookie: bytes, offset: int, length: int, *, one: bool, only: Collection[int] | None = None
    ) -> bool:
        return self._call("block_status", cookie, offset, length, one, *(() if only is None else [tuple(only)]))

    def nothing(self, cookie: bytes, *, read: bool) -> bool:
        return self._call("nothing", cookie, read)

    def refuse(self, cookie: bytes, error: int, message: str) -> bool:
        return self._call("refuse", cookie, error)

    def disconnect(self) -> None:
        self.calls.append(("disconnect",))

    def allocate(self, length: int) -> memoryview | None:
        if not self.takes():
            return None
        self.allocated.append(memoryview(bytearray(length)))
        return self.allocated[-1]
