"""How to make image files that are worth copying: data, compressible data, holes."""

import random
from pathlib import Path

MIB = 1 << 20


def make_image(path: Path, mib: int, *, seed: int = 1) -> None:
    """A sparse file of `mib` MiB: a third incompressible, a sixth compressible, the rest holes."""
    chance = random.Random(seed)
    with path.open("wb") as image:
        image.truncate(mib * MIB)
        for place in range(0, (mib - 3) * MIB, 3 * MIB):
            image.seek(place + 4096 * chance.randrange(64))
            image.write(chance.randbytes(MIB))
            image.write(b"the same line again and again\n" * (MIB // 2 // 30))
