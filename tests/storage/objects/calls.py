"""One call of each kind on a store, and credentials to sign them with."""

from collections.abc import Awaitable, Callable

from storage.objects.base import ObjectStore

SECRET = "a-secret-that-is-nowhere"

OPERATIONS: dict[str, Callable[[ObjectStore], Awaitable[object]]] = {
    "create": lambda store: store.create("wal/1", b"data"),
    "put": lambda store: store.put("wal/1", b"data"),
    "get": lambda store: store.get("wal/1"),
    "range": lambda store: store.get("wal/1", 10, 20),
    "head": lambda store: store.head("wal/1"),
    "list": lambda store: store.list("wal/"),
    "delete": lambda store: store.delete(["wal/1"]),
}


async def ask(store: ObjectStore, operation: str) -> object:
    return await OPERATIONS[operation](store)
