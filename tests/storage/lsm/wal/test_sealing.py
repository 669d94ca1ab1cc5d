"""Sealing of objects of the log: in threads of its own, since somebody may wait for what is in them."""

import asyncio
import threading

from storage.env import CODEC_THREADS
from storage.lsm.options import LogOptions
from tests.storage.lsm.worlds import World, durable


async def test_a_flush_does_not_wait_for_what_is_sealed_for_ssts() -> None:
    """Memtable flushes and maintenance keep the other threads busy for as long as clients write."""
    world = World(threads=True)
    engine, layer = await world.start()
    release = threading.Event()
    busy = [asyncio.ensure_future(world.env.run("codec", release.wait)) for _ in range(CODEC_THREADS)]
    try:
        layer.write(0, bytes(range(256)) * (LogOptions().seal_inline_bytes_max // 128))
        await asyncio.wait_for(durable(engine, layer), 10)
        assert not any(each.done() for each in busy)
    finally:
        release.set()
        await asyncio.gather(*busy)
    await world.crash(engine)
    world.env.close()
