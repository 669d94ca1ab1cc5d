"""A store that is written lightly for weeks: how many objects it keeps, and what a start asks for then.

    scripts/bench light [--days N]

Three times 4 KiB at random places of 256 MiB are written and flushed every minute, in virtual time, on a store in
memory: a month takes about an hour. The figures are the same on every machine.
"""

import argparse
import asyncio
import random
import time

from storage.lsm.options import EngineOptions
from tests.simulation.loop import VirtualLoop
from tests.storage.lsm.worlds import InlineEnv, World, durable

SECTOR = 4096
SECTORS = 1 << 16
WRITES = 3
"""A minute."""


class VirtualEnv(InlineEnv):
    """Whose clock is the loop's."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def main() -> None:
    parser = argparse.ArgumentParser(description="a store that is written lightly")
    parser.add_argument("--days", type=int, default=30, metavar="N")
    days = parser.parse_args().days
    loop = VirtualLoop(steps_max=10**12)
    try:
        loop.run(write(days))
    finally:
        loop.wind_up()


async def write(days: int) -> None:
    """So many days, with a line after each; then a start."""
    world = World(options=EngineOptions(cache_bytes=64 << 20))
    world.env = VirtualEnv()
    engine, layer = await world.start()
    chance = random.Random(1)
    most, began = 0, time.monotonic()
    for day in range(days):
        for _ in range(24 * 60):
            for _ in range(WRITES):
                layer.write(chance.randrange(SECTORS) * SECTOR, chance.randbytes(SECTOR))
            await durable(engine, layer)
            await asyncio.sleep(60)
            most = max(most, len(world.store.objects))
        counts = {part: len(world.store.names(part + "/")) for part in ("manifest", "wal", "compacted")}
        size = sum(len(content) for content in world.store.objects.values())
        seconds = time.monotonic() - began
        print(f"day {day + 1}: {counts}, {size >> 20} MiB, at most {most} objects ({seconds:.0f} s)", flush=True)
    await world.crash(engine)
    world.store.calls.clear()
    await world.open()
    calls = world.store.calls
    fetched = sum(length for verb, _, length in calls if verb == "get")
    print(f"a start after kill -9: {len(calls)} requests, {fetched >> 10} KiB asked for")


if __name__ == "__main__":
    main()
