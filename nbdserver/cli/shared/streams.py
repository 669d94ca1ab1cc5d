"""Snapshot streams from and to whoever calls, through the server of a store or on one at rest."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from nbdserver.cli.shared.backend import Way, at_rest
from nbdserver.cli.shared.reminding import reminding

if TYPE_CHECKING:
    from nbdserver.admin.asked import Answer
    from storage import Store


def export_stream(way: Way, name: tuple[str, str], since: str | None, take: Callable[[bytes], None]) -> None:
    """Give the stream of a snapshot (of what changed `since` another one) to `take`, part by part."""
    import asyncio

    from nbdserver.admin.snapshot_stream import StreamEncoder
    from nbdserver.admin.snapshot_transfer import send

    async def work(store: Store) -> None:
        async with contextlib.aclosing(send(store, *name, since, StreamEncoder())) as parts:
            async for part in parts:
                # Who takes it may wait for long: the store has to go on meanwhile.
                await asyncio.to_thread(take, part)

    if way.server is None:
        at_rest(way.place, work, writes=False, password=way.password, shows_progress=True)
        return
    with reminding(way.server, shows_progress=True), way.server.read_stream(*name, since) as received:
        for part in received:
            take(part)


def import_stream(way: Way, name: str, parts: Iterator[bytes]) -> Answer:
    """Make of a device what a stream holds. `parts` must raise no OSError of its own."""
    import asyncio

    from nbdserver.admin.snapshot_transfer import receive

    async def in_thread() -> AsyncIterator[bytes]:
        # Where they come from may have to be waited for: the store has to go on meanwhile.
        while part := await asyncio.to_thread(next, parts, b""):
            yield part

    async def work(store: Store) -> Answer:
        return await receive(store, name, in_thread())

    if way.server is None:
        return at_rest(way.place, work, writes=True, password=way.password, shows_progress=True)
    with reminding(way.server, shows_progress=True):
        return way.server.write_stream(name, parts)
