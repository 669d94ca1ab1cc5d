"""BLOCK_STATUS for several contexts: a chunk for each that is wanted, the last of which ends the answer."""

import pytest

from nbdserver.exports import CHANGES_EFFORT, Export
from nbdserver.protocol.agreement import MetaContext
from nbdserver.protocol.replies import EXTENDED, STRUCTURED, ChunkedReplies, Layout
from nbdserver.server.block_status import EFFORT_BYTES, LONG_EFFORT, BlockStatus
from tests.support.answers import read_answers
from tests.support.memory_device import MemoryDevice

COOKIE = {STRUCTURED: (1).to_bytes(8, "big"), EXTENDED: (1).to_bytes(8, "big") + bytes(8)}
CONTEXTS = (
    MetaContext("base:allocation", number=1),
    MetaContext("qemu:dirty-bitmap:one", "one", 2),
    MetaContext("qemu:dirty-bitmap:gone", "gone", 3),
)


def status(*contexts: MetaContext) -> BlockStatus:
    device = MemoryDevice(1 << 20)
    device.history.changes["one"] = [(4096, 0), (8192, 1)]
    return BlockStatus(Export("disk", device, read_only=False).maps(contexts))


def answer(block_status: BlockStatus, layout: Layout, only: tuple[int, ...] | None = None) -> list[str]:
    replies = ChunkedReplies(layout)
    lines = read_answers(block_status.answer(replies, COOKIE[layout], 0, 1 << 20, one=False, only=only), greeted=True)
    return [line.partition(": ")[2] for line in lines]


@pytest.mark.parametrize("layout", [STRUCTURED, EXTENDED], ids=["structured", "extended"])
@pytest.mark.parametrize(
    ("only", "said"),
    [
        (None, "status 1 1048576/3, 2 4096/0 8192/1"),
        ((2, 1), "status 1 1048576/3, 2 4096/0 8192/1"),
        ((1,), "status 1 1048576/3"),
        ((2,), "status 2 4096/0 8192/1"),
    ],
)
def test_each_context_has_its_chunk(layout: Layout, only: tuple[int, ...] | None, said: str) -> None:
    assert answer(status(*CONTEXTS[:2]), layout, only) == [said]


def test_a_snapshot_that_is_gone_is_an_error_and_only_its_own() -> None:
    block_status = status(*CONTEXTS)
    assert answer(block_status, STRUCTURED) == ["EINVAL"]
    assert answer(block_status, STRUCTURED, (1, 2)) == ["status 1 1048576/3, 2 4096/0 8192/1"]


def test_changes_are_more_work() -> None:
    block_status = status(*CONTEXTS)
    assert block_status.effort(4096, (1,)) == 1
    assert block_status.effort(4096, (2,)) == CHANGES_EFFORT
    assert block_status.effort(4096, None) == 1 + 2 * CHANGES_EFFORT
    assert block_status.effort(3 * EFFORT_BYTES, (1,)) == 4
    assert block_status.effort(1 << 50, (1,)) == LONG_EFFORT
