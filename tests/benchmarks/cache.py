"""How often what is read is in the cache: the server's cache beside LRU of the same size, over traces of reads.

    scripts/bench cache [--blocks N] [--reads N]

Traces are made up, from a fixed seed: blocks of 256 KiB by Zipf's law, the same with a scan of everything in between
(a backup), a working set that moves, and a loop over a little more than fits. The bound is what a cache of any size
would have: each block is fetched once. No I/O; the figures are the same on every machine.
"""

import argparse
import bisect
import itertools
import random
from collections import OrderedDict
from collections.abc import Iterator

from storage.cache.frame_cache import FrameCache, weight

SEED = 2023
BLOCK = bytes(256 * 1024)
SHARES = (0.05, 0.1, 0.25)
"""Of all blocks, those that fit in the cache."""


def main() -> None:
    parser = argparse.ArgumentParser(description="hit rates of the cache")
    parser.add_argument("--blocks", type=int, default=8192, metavar="N")
    parser.add_argument("--reads", type=int, default=200_000, metavar="N")
    chosen = parser.parse_args()
    print(f"{'trace':34}{'fits':>6}{'server':>9}{'LRU':>9}{'bound':>9}")
    for name, trace in traces(chosen.blocks, chosen.reads).items():
        for share in SHARES:
            room = int(chosen.blocks * share)
            bound = 1 - len(set(trace)) / len(trace)
            print(f"{name:34}{share:6.0%}{of_server(trace, room):9.1%}{of_lru(trace, room):9.1%}{bound:9.1%}")


def traces(blocks: int, reads: int) -> dict[str, list[int]]:
    """Blocks in the order in which they are read, by name."""
    chance = random.Random(SEED)
    places = list(range(blocks))
    chance.shuffle(places)
    zipf = [places[at] for at in itertools.islice(by_zipf(chance, blocks, 0.9), reads)]
    scan = list(range(blocks))
    third = reads // 3
    moving = [(at * 3 // reads * blocks // 3 + places[n] // 3) % blocks for at, n in enumerate(zipf)]
    loop = blocks // 8
    return {
        "Zipf 0.9": zipf,
        "Zipf 0.9, and two scans": zipf[:third] + scan + zipf[third : 2 * third] + scan + zipf[2 * third :],
        "a working set that moves twice": moving,
        "a loop over an eighth": [at % loop for at in range(reads)],
    }


def by_zipf(chance: random.Random, count: int, power: float) -> Iterator[int]:
    """Numbers below `count`, the n-th with a weight of 1 / n^power."""
    sums = list(itertools.accumulate(1 / (n + 1) ** power for n in range(count)))
    while True:
        yield bisect.bisect(sums, chance.random() * sums[-1])


def of_server(trace: list[int], room: int) -> float:
    """Share of reads that the server's cache answers; it holds `room` blocks."""
    cache, hits = FrameCache(room * weight(BLOCK)), 0
    for block in trace:
        if cache.get(block) is not None:
            hits += 1
        else:
            cache.put(block, BLOCK)
    return hits / len(trace)


def of_lru(trace: list[int], room: int) -> float:
    """The same of a cache that lets go what was not used for longest."""
    kept: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for block in trace:
        if block in kept:
            hits += 1
            kept.move_to_end(block)
        else:
            kept[block] = None
            if len(kept) > room:
                kept.popitem(last=False)
    return hits / len(trace)


if __name__ == "__main__":
    main()
