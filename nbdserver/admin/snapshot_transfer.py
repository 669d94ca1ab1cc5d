"""Snapshots as streams, out of a store and into one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from nbdserver.admin.asked import Answer
from nbdserver.admin.snapshot_stream import STREAM_VERSION, Range, StreamDecoder, StreamEncoder, StreamHeader
from nbdserver.admin.transfer import EXCLUSIVE_USER, Filler, data_ranges, read_in_order
from storage.fs.devices.filling import IncomingSnapshot
from storage.units import MIB

if TYPE_CHECKING:
    from nbdserver.block_device import ChangeMap
    from storage import Store

READ_BYTES = MIB
"""At once; several are under way."""

READER = "an export"
"""What needs a snapshot while it is read."""


async def send(
    store: Store, device: str, snapshot: str, since: str | None, encoder: StreamEncoder
) -> AsyncGenerator[bytes]:
    """The stream of a snapshot: all that it holds, or what changed `since` another one. Both are kept meanwhile.
    NotFound. StorageError: it cannot be read.
    """
    with store.snapshots.reading(device, snapshot, READER) as kept, contextlib.ExitStack() as stack:
        base = None if since is None else stack.enter_context(store.snapshots.reading(device, since, READER))
        source = store.device(f"{device}@{snapshot}")
        store_id = bytes.fromhex(store.status().store_id)
        header = StreamHeader(STREAM_VERSION, store_id, device, snapshot, kept.identity, kept.born, kept.size)
        if base is None:
            yield encoder.header(header)
            ranges = data_ranges(source, kept.size)
        else:
            yield encoder.header(msgspec.structs.replace(header, base=base.identity, base_name=base.name))
            ranges = _changed_ranges(source.history.since(base.name), kept.size)
        async with contextlib.aclosing(read_in_order(source, ranges)) as parts:
            async for offset, pieces in parts:
                for piece in pieces:
                    if not isinstance(piece, int):
                        for record in encoder.data(offset, piece):
                            yield record
                        offset += len(piece)
                        continue
                    if base is not None:
                        yield encoder.zeros(offset, piece)
                    offset += piece
        yield encoder.end(kept.size)


async def _changed_ranges(changes: ChangeMap, size: int) -> AsyncIterator[tuple[int, int]]:
    """(offset, length) of what may differ, cut at multiples of `READ_BYTES`."""
    at = 0
    while at < size:
        for length, changed in changes.extents(at, size - at):
            end = at + length
            while changed and at < end:
                step = min(READ_BYTES - at % READ_BYTES, end - at)
                yield at, step
                at += step
            at = end
        await asyncio.sleep(0)


async def receive(store: Store, name: str, chunks: AsyncIterable[bytes]) -> Answer:
    """Make of a device what a stream holds, with its snapshot: a new device, or one that holds exactly what the stream
    goes on from. Wholly or not at all; durable on return. Corrupt: it is no whole stream, or was altered. Conflict: the
    device does not hold what it goes on from. AlreadyExists: the device, or that snapshot of it, is there.
    """
    decoder, parts = StreamDecoder(), aiter(chunks)
    ranges: list[Range] = []
    while decoder.header is None:
        ranges += decoder.feed(await _next(parts, decoder))
    header = decoder.header
    arrival = IncomingSnapshot(header.snapshot, header.identity, header.size, header.born)
    if header.base:
        held = store.filling.onto(name, header.base, EXCLUSIVE_USER, arrival)
    else:
        held = store.filling.new(name, header.size, EXCLUSIVE_USER, arrival)
    async with held as device:
        filler = Filler(device)
        while True:
            for offset, content in ranges:
                if isinstance(content, int):
                    await filler.zero(offset, content)
                else:
                    await filler.write(offset, content)
            if decoder.ended:
                break
            ranges = decoder.feed(await _next(parts, decoder))
        async for data in parts:
            decoder.feed(data)
        decoder.finish()
    return {"name": name, "size": header.size, "snapshot": f"{name}@{header.snapshot}"}


async def _next(parts: AsyncIterator[bytes], decoder: StreamDecoder) -> bytes:
    """The next bytes of a stream that has to go on. Corrupt: it does not."""
    try:
        return await anext(parts)
    except StopAsyncIteration:
        decoder.finish()
        raise
