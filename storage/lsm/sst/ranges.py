"""Frames in SSTs: which of them one request brings, and how one is opened. No I/O."""

from storage.cache.frame_cache import Decoded
from storage.crypto.cipher import AuthenticationError
from storage.errors import Corrupt, StorageError
from storage.format.blocks import FrameRef
from storage.format.frame import SECTOR_BYTES, FrameCodec, FrameKind, sectors_of, short_tag
from storage.lsm.index.sst_numbers import OFFSET_MASK
from storage.lsm.options import GAP_BYTES_MAX
from storage.units import KIB, MIB

GET_BYTES_MAX = 4 * MIB + 64 * KIB
"""Bytes of one ranged GET: sixteen whole blocks that do not compress, so that a deep queue still spreads over several
requests.
"""

FRAMES_AT_ONCE_MAX = 64
"""Frames of one GET whose contents are held together: 16 MiB of whole blocks. Their sealed bytes say nothing of that: a
block of one byte value is sealed in a kilobyte, and GET_BYTES_MAX of such would open to a gigabyte.
"""


def decode_frame(codec: FrameCodec, name: str, ref: FrameRef, sealed: memoryview) -> Decoded | StorageError:
    """One frame opened and checked against its pinned tag; an error is returned, since it concerns this frame alone."""
    where = f"the frame of block {ref.block} at byte {ref.location & OFFSET_MASK}"
    if len(sealed) < ref.length:
        return Corrupt(name, f"{where} is cut off: the object ends before it does")
    if len(sealed) != ref.length or short_tag(sealed) != ref.tag:
        return Corrupt(name, f"{where} is not the one its index names")
    try:
        mask, data = codec.decode(sealed, block=ref.block, kind=FrameKind.FULL if ref.full else FrameKind.PATCH)
    except AuthenticationError:
        return Corrupt(name, f"{where} fails authentication")
    except ValueError as error:
        return Corrupt(name, f"{where} is malformed: {error}")
    if ref.full:
        return data
    view = memoryview(data)
    return {sector: view[at * SECTOR_BYTES : (at + 1) * SECTOR_BYTES] for at, sector in enumerate(sectors_of(mask))}


def coalesce(
    refs: list[FrameRef], gap_bytes_max: int = GAP_BYTES_MAX, frames_max: int | None = None
) -> list[list[FrameRef]]:
    """Cut frames sorted by location into groups that one ranged GET can bring. Who opens all frames of a group, and
    holds what is in them, wants `frames_max` of them at most.
    """
    groups: list[list[FrameRef]] = []
    for ref in refs:
        if groups:
            group = groups[-1]
            end = group[-1].location + group[-1].length
            near = 0 <= ref.location - end <= gap_bytes_max
            has_room = frames_max is None or len(group) < frames_max
            if near and has_room and ref.location + ref.length - group[0].location <= GET_BYTES_MAX:
                group.append(ref)
                continue
        groups.append([ref])
    return groups
