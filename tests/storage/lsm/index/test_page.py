"""A page says of each of its blocks what was said last, whatever others have, and refuses what it cannot hold."""

import os
import random

import numpy as np
import pytest

from storage.crypto.cipher import Cipher
from storage.errors import BrokenInvariant
from storage.format.columns import Columns
from storage.format.frame import BLOCK_BYTES, FULL_MASK, FrameCodec, FrameKind
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.bulk_load import load_bases
from storage.lsm.index.page import PAGE_BLOCKS, SEALED_MAX, Page

SOME_BASE = {"location": 7 << 32, "tag": 2**64 - 1}


def heads_of(page: Page) -> list[int]:
    heads = [page.head(at) for at in range(PAGE_BLOCKS)]
    assert page.heads().tolist() == heads
    return heads


@pytest.mark.parametrize("seed", range(4))
def test_a_block_has_what_it_was_given_last(seed: int) -> None:
    chance = random.Random(seed)
    page, heads, lengths = Page(), [0] * PAGE_BLOCKS, [0] * PAGE_BLOCKS
    for _ in range(400):
        what, at = chance.randrange(5), chance.randrange(64)
        some = np.array(sorted(chance.sample(range(64), 9)), np.uint32)
        if what == 0:
            heads[at] = chance.randrange(1 << 32)
            page.set_head(at, heads[at])
        elif what == 1:
            rows = np.array([chance.randrange(1, 1 << 32) for _ in some], np.uint32)
            page.set_heads(some, rows)
            for one, row in zip(some.tolist(), rows.tolist(), strict=True):
                heads[one] = row
        elif what == 2:
            lengths[at] = chance.choice([0, 1, SEALED_MAX])
            page.set_base(at, length=lengths[at], **SOME_BASE)
        elif what == 3:
            longest = np.full(len(some), SEALED_MAX, np.uint32)
            page.set_bases(some, location=longest, length=longest, tag=longest)
            for one in some.tolist():
                lengths[one] = SEALED_MAX
        else:
            page.clear_heads(slice(at, at + 20))
            heads[at : at + 20] = [0] * 20
        if not chance.randrange(20):
            page = page.copy()
        assert [page.head(one) for one in range(84)] == heads[:84]
    assert heads_of(page) == heads
    assert page.lengths().tolist() == lengths == [page.length(at) for at in range(PAGE_BLOCKS)]


def test_every_block_of_a_page_may_have_patches_again_and_again() -> None:
    page = Page()
    for round in range(3):
        for at in range(PAGE_BLOCKS):
            page.set_head(at, round << 16 | at + 1)
        assert heads_of(page) == [round << 16 | at + 1 for at in range(PAGE_BLOCKS)]
        page.clear_heads(slice(0, PAGE_BLOCKS // 2))
        for at in range(PAGE_BLOCKS // 2, PAGE_BLOCKS):
            page.set_head(at, 0)
        assert not page.heads().any()
    assert len(page.chains) == PAGE_BLOCKS + 1, "as many as it has blocks, and the one that says none"


def test_a_copy_is_another_page() -> None:
    page = Page()
    page.set_head(3, 9)
    other = page.copy()
    other.set_head(3, 8)
    other.set_head(4, 7)
    other.set_base(3, length=5, **SOME_BASE)
    assert (page.head(3), page.head(4), page.length(3), page.location[3]) == (9, 0, 0, 0)


def test_pages_that_differ_in_the_rows_of_patches_alone_are_not_equal() -> None:
    """The spans have the numbers of chains: they are the same for other rows."""
    page = Page()
    page.set_head(3, 9)
    other = page.copy()
    assert page.equals(other)
    other.set_head(3, 8)
    assert other.span == page.span
    assert not page.equals(other)


def test_the_longest_frame_is_not_as_long_as_a_page_can_say() -> None:
    cipher = Cipher(bytes(range(32)))
    sealed = FrameCodec(cipher, bytes(16)).encode(
        cipher.sealer(bytes(16)), 0, block=0, kind=FrameKind.FULL, mask=FULL_MASK, data=os.urandom(BLOCK_BYTES)
    )
    assert BLOCK_BYTES < len(sealed) <= SEALED_MAX


def test_a_longer_one_is_refused_and_changes_nothing() -> None:
    """It would say that the block has patches, and read a neighbour's."""
    index = BlockMap()
    index.set_base(1, location=1 << 32, length=5, tag=6)
    before = index.standing(1)
    with pytest.raises(BrokenInvariant, match="524288 bytes"):
        index.set_base(1, location=2 << 32, length=SEALED_MAX + 1, tag=0)
    rows: Columns = {
        "block": np.array([0, 1], np.uint32),
        "location": np.array([3 << 32, 4 << 32], np.uint64),
        "length": np.array([1, SEALED_MAX + 1], np.uint32),
        "tag": np.array([1, 1], np.uint64),
    }
    with pytest.raises(BrokenInvariant, match="524288 bytes"):
        load_bases(index, rows)
    assert index.standing(1) == before
    assert not index.standing(0).location
