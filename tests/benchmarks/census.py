"""How long the event loop is kept by what looks at the whole index: maintenance that counts what is live and plans.

    scripts/bench census [--tib N]

The index is made up: every block mapped, one in twenty patched, in SSTs of 16 MiB; nothing is in the store. Beside each
look a task takes every turn of the event loop: the longest time between two of its turns is what a client may wait. It
is given as processor time of the loop's own thread, and as time on the clock beside the same of a loop that does
nothing: that is what the machine and threads with the interpreter lock add.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable
from dataclasses import astuple, dataclass

import msgspec
import numpy as np

from nbdserver.service.tuning import tune
from storage.format.blocks import SstRef
from storage.format.columns import Columns
from storage.format.sst_list import SstList
from storage.lsm.compaction.plan import decide
from storage.lsm.compaction.repack import live_frames
from storage.lsm.engine import Engine
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.bulk_load import load_bases, load_patches
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.storage.lsm.worlds import World
from tests.support.inside import forget_usage, jobs_of, layers_of

BLOCKS_PER_TIB = 1 << 22
FRAMES_PER_SST = 64
FRAME_BYTES = 256 * 1024
ROUNDS = 5
SELDOM = 3600.0


@dataclass
class Took:
    """Of one look: milliseconds, and the longest of them without a turn for others: of processor, on the clock."""

    total: float
    busy: float
    wall: float


def main() -> None:
    parser = argparse.ArgumentParser(description="measure looks at a large index")
    parser.add_argument("--tib", type=float, default=1.0)
    tune()
    asyncio.run(measure(parser.parse_args().tib))


async def measure(tib: float) -> None:
    world = World(options=EngineOptions(maintenance=MaintenanceOptions(look_seconds=SELDOM)), threads=True)
    engine, _ = await world.start()
    await asyncio.sleep(0.2)  # maintenance has looked at the empty store, and does so no more
    fill(engine, layers_of(engine).forest.heads()[1], int(tib * BLOCKS_PER_TIB))
    jobs, options = jobs_of(engine)

    async def plan() -> None:
        snapshot = await engine.compactor.look()
        await jobs.ssts.encode(lambda: decide(snapshot, options))

    async def victims() -> None:
        await live_frames({1: layers_of(engine).forest.heads()[1]}, range(1000, 1004))

    async def nothing() -> None:
        await asyncio.sleep(0.1)

    async def usage() -> None:
        forget_usage(engine)
        await engine.meter.count()

    looks = {"nothing": nothing, "plan the next job": plan, "frames of four victims": victims, "what is used": usage}
    for name, look in looks.items():
        took = [await beside(look()) for _ in range(ROUNDS)]
        total, busy, wall = (sorted(times)[ROUNDS // 2] for times in zip(*map(astuple, took), strict=True))
        print(f"{name}: {total:.0f} ms, in one piece at most {busy:.2f} ms ({wall:.2f} on the clock)", flush=True)
    await world.crash(engine)


def fill(engine: Engine, index: BlockMap, blocks: int) -> None:
    """Put `blocks` mapped blocks into an index, one in twenty of them patched, and the SSTs of all that on the list."""
    numbers = jobs_of(engine)[0].sst_numbers
    table = SstList.of(
        SstRef(f"{n:026d}", FRAMES_PER_SST * FRAME_BYTES + 8192, FRAMES_PER_SST * FRAME_BYTES + 64, bytes(16), 64)
        for n in range(blocks * 21 // 20 // FRAMES_PER_SST + 1)
    )
    first = int(numbers.numbers(table.ids)[0])
    frame = np.arange(blocks, dtype=np.uint64)
    location = (frame // FRAMES_PER_SST + first) << np.uint64(32) | frame % FRAMES_PER_SST * FRAME_BYTES
    size = np.full(blocks, FRAME_BYTES, np.uint32)
    block = np.arange(blocks, dtype=np.uint32)
    load_bases(index, {"block": block, "location": location, "length": size, "tag": frame})
    some = slice(0, blocks, 20)
    patches: Columns = {
        "block": block[some],
        "mask": np.ones(len(block[some]), np.uint64),
        "location": location[some] + np.uint64(blocks // FRAMES_PER_SST << 32),
        "length": size[some] // 64,
        "tag": frame[some],
    }
    load_patches(index, patches)
    manifests = engine.manifests
    manifests.merged_ssts = table
    manifests.manifest = msgspec.structs.replace(manifests.manifest, checkpoint=table[0])


async def beside(look: Awaitable[None]) -> Took:
    """Do it, with somebody beside it who wants every turn."""
    busy, wall, done = 0.0, 0.0, False

    async def turns() -> None:
        nonlocal busy, wall
        used, before = time.thread_time(), time.perf_counter()
        while not done:
            await asyncio.sleep(0)
            now_used, now = time.thread_time(), time.perf_counter()
            busy, used = max(busy, now_used - used), now_used
            wall, before = max(wall, now - before), now

    watching = asyncio.ensure_future(turns())
    await asyncio.sleep(0)
    began = time.perf_counter()
    await look
    total = time.perf_counter() - began
    done = True
    await watching
    return Took(total * 1000, busy * 1000, wall * 1000)


if __name__ == "__main__":
    main()
