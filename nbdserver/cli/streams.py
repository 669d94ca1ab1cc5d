"""Snapshot streams from and to files, through the server of a store or on one at rest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from nbdserver.cli.backend import at_rest
from nbdserver.cli.parameters import Place
from nbdserver.cli.reminding import reminding

if TYPE_CHECKING:
    from nbdserver.admin.asked import Answer
    from nbdserver.cli.images import ImageReader, ImageWriter
    from storage import Store


def export_stream(
    place: Place, name: tuple[str, str], since: str | None, writer: ImageWriter, advance: Callable[[int], None]
) -> int:
    """Write the stream of a snapshot (of what changed `since` another one) to a file; its size in bytes."""
    from nbdserver.admin.client import find_server
    from nbdserver.admin.snapshot_stream import StreamEncoder
    from nbdserver.admin.snapshot_transfer import send

    position = 0

    def take(part: bytes) -> None:
        nonlocal position
        writer.write(position, part)
        position += len(part)
        advance(position)

    async def work(store: Store) -> None:
        async with contextlib.aclosing(send(store, *name, since, StreamEncoder())) as parts:
            async for part in parts:
                take(part)

    server = find_server(place.store, os.environ)
    if server is None:
        at_rest(place, work, writes=False, shows_progress=True)
    else:
        with reminding(server, shows_progress=True), server.read_stream(*name, since) as received:
            for part in received:
                take(part)
    return position


def import_stream(place: Place, name: str, reader: ImageReader, advance: Callable[[int], None]) -> Answer:
    """Make of a device what a stream holds."""
    from nbdserver.admin.client import find_server
    from nbdserver.admin.snapshot_transfer import receive

    async def parts() -> AsyncIterator[bytes]:
        for part in reader.raw(advance):
            yield part

    async def work(store: Store) -> Answer:
        return await receive(store, name, parts())

    server = find_server(place.store, os.environ)
    if server is None:
        return at_rest(place, work, writes=True, shows_progress=True)
    with reminding(server, shows_progress=True):
        return server.write_stream(name, reader.raw(advance))
