"""Very many frames asked for at once: what is held of them together stays bounded."""

import asyncio
import tracemalloc

from storage.format.blocks import FrameRef
from storage.format.envelope import Header, ObjectKind
from storage.format.frame import BLOCK_BYTES, FULL_MASK
from storage.format.names import sst_name
from storage.format.sst import SstBuilder
from storage.lsm.sst.get_slots import OBJECT_GETS_MAX
from storage.lsm.sst.ranges import FRAMES_AT_ONCE_MAX, GET_BYTES_MAX, coalesce
from tests.storage.lsm.sst.test_fetch import CIPHER, CODEC, Shelf, ref
from tests.storage.lsm.worlds import KEY

MIB = 1 << 20
ID = "01K1JW549K0H0MV3FH28CKBWTZ"


def of_one_value(shelf: Shelf, blocks: int) -> list[FrameRef]:
    """Put an SST beside the shelf's, each block of which is one byte value: a kilobyte in the store."""
    header = Header(kind=ObjectKind.DATA, epoch=1, store_id=KEY.store_id, nonce=b"another such one")
    builder = SstBuilder(CODEC, CIPHER, CIPHER, header, ID)
    slot = shelf.sst_numbers.number(ID)
    refs = []
    for block in range(blocks):
        data = b"v" * BLOCK_BYTES
        entry = builder.add_frame(layer=1, block=block, full=True, mask=FULL_MASK, sequence=block, data=data)
        refs.append(FrameRef(slot << 32 | entry.offset, entry.length, entry.tag, block, full=True))
    shelf.store.objects[sst_name(ID)] = bytes(builder.finish()[1])
    return refs


def test_who_opens_a_group_may_bound_its_frames() -> None:
    small = [ref(at * 1100, 1090) for at in range(200)]
    assert coalesce(small) == [small], "who opens one after the other wants few requests"
    assert coalesce(small, frames_max=64) == [small[:64], small[64:128], small[128:192], small[192:]]


async def test_blocks_that_compress_well_are_not_opened_all_at_once() -> None:
    """Seen: 4 MiB of the store may be 3,900 blocks of one byte value, which are 980 MiB."""
    shelf = Shelf(0, capacity=4 * MIB)
    refs = of_one_value(shelf, 1500)
    assert refs[-1].location + refs[-1].length - refs[0].location < GET_BYTES_MAX
    readers = [asyncio.ensure_future(shelf.source.fetch(1, [each])) for each in refs]
    for reader in readers:  # as a READ does: what it has answered with is gone
        reader.add_done_callback(lambda done: done.result().clear())
    del reader
    tracemalloc.start()
    try:
        await asyncio.wait(readers)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    bound = OBJECT_GETS_MAX * FRAMES_AT_ONCE_MAX * BLOCK_BYTES
    assert peak < bound + 32 * MIB, f"{peak / MIB:.0f} MiB at once"


async def test_what_does_not_compress_comes_in_as_few_requests_as_ever() -> None:
    assert FRAMES_AT_ONCE_MAX * BLOCK_BYTES >= 3 * GET_BYTES_MAX
    shelf = Shelf(64)
    await shelf.source.fetch(1, shelf.refs)
    assert shelf.store.count("get") == -(-64 * BLOCK_BYTES // GET_BYTES_MAX)
