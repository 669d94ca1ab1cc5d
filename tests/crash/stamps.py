"""How to fill sectors so that each says which write it came from, and how to read that back.

Every 512-byte sector is 64 words of 64 bits: a magic number, the device, the sector's own number, the number
of the write, a check value over those, and filling that follows from them all. So a sector read back is
either zeros, or exactly what one write put exactly there; torn, displaced and mixed sectors are recognised,
and so is a single bit.
"""

import numpy as np
from numpy.typing import NDArray

SECTOR_BYTES = 512
WORDS = SECTOR_BYTES // 8
MAGIC = np.uint64(0x6E62647374616D70)
HEADER_WORDS = 5

ZEROS = 0
"""What `decode` says of a sector of zeros: writes are numbered from 1."""

Numbers = NDArray[np.int64]
Words = NDArray[np.uint64]


class Damaged(AssertionError):
    """A sector holds what no write put there."""


def _mix(words: Words) -> Words:
    """The finisher of splitmix64: every input bit reaches every output bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _sectors(device: int, sectors: Words, numbers: Words) -> Words:
    """The words of each of these sectors, written by the write of the same place in `numbers`."""
    seed = _mix(_mix(sectors + np.uint64(device << 48)) ^ (numbers * np.uint64(0x9E3779B97F4A7C15)))
    steps = np.arange(WORDS, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)
    words = _mix(seed[:, None] + steps[None, :])
    words[:, 0] = MAGIC
    words[:, 1] = np.uint64(device)
    words[:, 2] = sectors
    words[:, 3] = numbers
    words[:, 4] = seed
    words[:, WORDS // 2 :] &= np.uint64(0x0F0F0F0F0F0F0F0F)  # half of it compresses, as data does
    return words


def encode(*, device: int, number: int, first: int, count: int) -> bytes:
    """What write `number` puts into `count` sectors from `first` on."""
    sectors = np.arange(first, first + count, dtype=np.uint64)
    return _sectors(device, sectors, np.full(count, number, np.uint64)).tobytes()


def decode(data: bytes | bytearray, *, device: int, first: int) -> Numbers:
    """The number of the write that each sector came from, ZEROS where there are zeros. Damaged: anything
    else.
    """
    words: Words = np.frombuffer(data, np.uint64).reshape(-1, WORDS)
    sectors = np.arange(first, first + len(words), dtype=np.uint64)
    numbers = words[:, 3].copy()
    written = words.any(axis=1)
    expected = _sectors(device, sectors, numbers)
    wrong = np.flatnonzero(written & (words != expected).any(axis=1))
    if len(wrong):
        at = int(wrong[0])
        raise Damaged(
            f"{len(wrong)} sectors hold what no write put there; the first is sector {first + at} "
            f"and says magic {int(words[at, 0]):#x}, device {words[at, 1]}, sector {words[at, 2]}, "
            f"write {words[at, 3]}"
        )
    numbers[~written] = ZEROS
    return numbers.astype(np.int64)
