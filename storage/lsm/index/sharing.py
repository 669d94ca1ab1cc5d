"""What several maps refer to: bytes counted once, and what a snapshot alone refers to. No I/O; for a thread."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED
from storage.format.columns import Columns
from storage.format.trunks import TrunkRef
from storage.lsm.index.image import bases_of, kept_blocks, patches_of
from storage.lsm.index.rows import Frozen

_NAMES = ("block", "location", "length")


def each_once(parts: Sequence[Columns]) -> Columns:
    """The places of some columns, with the length of each, once; at least one column."""
    location = np.concatenate([part["location"] for part in parts])
    length = np.concatenate([part["length"] for part in parts])
    places, first = np.unique(location, return_index=True)
    return {"location": places, "length": length[first]}


def bytes_once(frozen: Sequence[Frozen]) -> int:
    """Bytes of the frames that some maps refer to."""
    parts = [_frames(part) for part in frozen]
    return int(each_once(parts)["length"].sum(dtype=np.int64)) if parts else 0


def exclusive_bytes(frozen: Mapping[int, Frozen], trunks: Sequence[TrunkRef]) -> dict[int, int]:
    """Bytes of frames that nothing would refer to any more, if one snapshot were deleted, by its layer.

    Those are in its map alone, and of blocks that the next older snapshot holds already: what that does not hold, it
    would be handed.
    """
    rows = {layer: _frames(part) for layer, part in frozen.items()}
    places, times = np.unique(
        np.concatenate([np.unique(part["location"]) for part in rows.values()] or [np.zeros(0, np.uint64)]),
        return_counts=True,
    )
    alone = places[times == 1]
    found = {}
    for ref in trunks:
        older: NDArray[np.uint32] | None = None
        for layer in ref.layers[:-1]:
            own = rows[layer]
            freed = _among(own["location"], alone)
            if older is not None:
                freed &= _among(own["block"], older)
            found[layer] = int(own["length"][freed].sum(dtype=np.int64))
            older = kept_blocks(frozen[layer])
    return found


def _among(values: NDArray[np.unsignedinteger], ascending: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
    """Which of them are among others that ascend: looked up, where `np.isin` sorts all of those for each snapshot."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    found: NDArray[np.bool_] = ascending[np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)] == values
    return found


def _frames(frozen: Frozen) -> Columns:
    """Block, location and length of all frames that a map refers to."""
    patches = patches_of(frozen)
    data = patches["location"] > ALLOCATED
    parts = [*bases_of(frozen), {name: patches[name][data] for name in _NAMES}]
    return {name: np.concatenate([part[name] for part in parts]) for name in _NAMES}
