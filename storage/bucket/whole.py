"""Whole sealed objects, read from the store in bounded memory whoever put them there.

A name says of which kind an object is, and a kind how large it may be (`sizes`). What is larger is damage, and none of
it is read. Of what is large all the same, the first part is read and must open before the rest is: only who has the key
can make one. So strangers' bytes in memory are `UNPROVEN_BYTES_MAX` for one object, and `ROOM_BYTES` for all that are
read at once.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from storage.crypto.cipher import Cipher
from storage.env import Env
from storage.errors import Corrupt
from storage.format.envelope import FIRST_PART_BYTES, ObjectKind, check_first_part
from storage.objects.base import ObjectStore
from storage.units import MIB

UNPROVEN_BYTES_MAX = 16 * MIB
"""As large as log objects are but for the rarest: those cost one request."""

ROOM_BYTES = 64 * MIB
"""Read at once: at 100 ms a request that is 640 MB/s."""


class BytesSemaphore:
    """Room for so many bytes at once. What needs more than all of it waits until it is empty, and goes alone."""

    def __init__(self, total: int = ROOM_BYTES) -> None:
        self.taken = 0
        self._total = total
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes of it; waits for them."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self.taken or self.taken + size <= self._total)
            self.taken += size
        try:
            yield
        finally:
            self.taken -= size
            async with self._changed:
                self._changed.notify_all()


async def read_whole(
    store: ObjectStore,
    name: str,
    size: int,
    *,
    limit: int,
    cipher: Cipher,
    store_id: bytes,
    kinds: tuple[ObjectKind, ...],
    number: int,
    env: Env,
) -> bytes:
    """The bytes of an object that the store says has `size` of them. Corrupt: it is none of ours, or damaged.
    NotFound.
    """
    if size > limit:
        raise Corrupt(name, f"it has {size} bytes, and such an object at most {limit}")
    if size > UNPROVEN_BYTES_MAX:
        first = await store.get(name, 0, FIRST_PART_BYTES)

        def check() -> None:
            check_first_part(cipher, name, first, size, store_id=store_id, kinds=kinds, number=number)

        await env.run("codec", check)
    return await store.get(name, limit=size)
