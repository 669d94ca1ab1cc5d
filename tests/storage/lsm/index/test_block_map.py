"""The index in memory against a dictionary."""

import sys
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.format.blocks import ALLOCATED, HOLE, FrameRef
from storage.format.frame import FULL_MASK
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import ALLOCATED_PAGE, PAGE_BLOCKS
from tests.support.examples import examples

LAST = 2**32 - 2
WATCHED = [0, 1, 2, 3, PAGE_BLOCKS - 1, PAGE_BLOCKS, PAGE_BLOCKS + 1, 2 * PAGE_BLOCKS, 3 * PAGE_BLOCKS - 1, LAST]


class Op(NamedTuple):
    """`content` is HOLE, ALLOCATED or FRAME; a range reaches from `block` to `other`."""

    verb: str
    block: int
    other: int
    content: int
    mask: int


FRAME = -1

operations = st.lists(
    st.builds(
        Op,
        st.sampled_from(["base", "patch", "patch", "patch", "zero", "assemble"]),
        st.sampled_from([0] * 8 + WATCHED),
        st.sampled_from(WATCHED),
        st.sampled_from([FRAME, FRAME, FRAME, HOLE, ALLOCATED]),
        st.one_of(st.integers(1, FULL_MASK), st.sampled_from([1, 3, 1 << 63, FULL_MASK])),
    ),
    max_size=80,
)


class Model:
    """Block to the location of each of its sectors."""

    def __init__(self) -> None:
        self.sectors: dict[int, list[int]] = {}

    def block(self, block: int) -> list[int]:
        return self.sectors.setdefault(block, [HOLE] * 64)

    def zero(self, first: int, end: int, content: int) -> None:
        for block in self.sectors:
            if first <= block < end:
                self.sectors[block] = [content] * 64


def resolved(index: BlockMap, block: int) -> list[int]:
    """What `find` says of each sector, newest first."""
    found: list[int | None] = [None] * 64
    last = 0
    for item in index.find(block):
        last = item.mask
        for sector in range(64):
            if found[sector] is None and item.mask >> sector & 1:
                content = item.content
                found[sector] = content.location if isinstance(content, FrameRef) else content
                if isinstance(content, FrameRef):
                    assert content.block == block
                    assert (content.length, content.tag) == proof(content.location)
    assert last == FULL_MASK, "the last one covers the whole block"
    return [where for where in found if where is not None]


def proof(where: int) -> tuple[int, int]:
    return where % 1000 + 1, where * 7919 % 2**64


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(operations)
def test_it_finds_what_was_put_last(ops: list[Op]) -> None:
    index, model = BlockMap(), Model()
    for block in WATCHED:
        model.block(block)
    assembled: dict[int, tuple[int, list[int]]] = {}
    for number, op in enumerate(ops):
        block = op.block
        where = (5 << 32) + number if op.content == FRAME else op.content
        length, tag = proof(where)
        if op.verb == "assemble" and index.is_patched(block):
            index.forget_assembled(block)
            key = 2**64 + number
            index.assembled[block] = (key, FULL_MASK)
            assembled[key] = (block, list(model.block(block)))
        elif op.verb == "zero":
            first, end = sorted((block, op.other))
            content = ALLOCATED if op.content == ALLOCATED and end < LAST else HOLE
            index.zero_range(first, end + 1, content)
            model.zero(first, end + 1, content)
        elif op.verb == "base":
            index.set_base(block, location=where, length=length, tag=tag)
            model.sectors[block] = [where] * 64
        elif op.verb == "patch":
            index.add_patch(block, mask=op.mask, location=where, length=length, tag=tag)
            model.sectors[block] = [where if op.mask >> s & 1 else old for s, old in enumerate(model.block(block))]
        check(index, model, assembled)
    dead = index.take_dead()
    assert len(dead) == len(set(dead)), "a key dies once"
    alive = {where for sectors in model.sectors.values() for where in sectors if where > ALLOCATED}
    assert not alive & set(dead), "what is referred to is not dead"
    assert {key for key, _ in index.assembled.values()}.isdisjoint(dead)
    assert set(assembled) <= set(dead) | {key for key, _ in index.assembled.values()}, "no key is forgotten"
    assert index.take_dead() == []


def check(index: BlockMap, model: Model, assembled: dict[int, tuple[int, list[int]]]) -> None:
    for block, expected in model.sectors.items():
        assert resolved(index, block) == expected
        for sector in (0, 1, 63):
            where = index.locate(block, sector)
            if where >= 2**64:
                owner, content = assembled[where]
                assert owner == block
                where = content[sector]
            assert where == expected[sector]
        key, valid = index.assembled.get(block, (0, 0))
        if key:
            whole = assembled[key][1]
            assert index.is_patched(block)
            assert all(whole[s] == expected[s] for s in range(64) if valid >> s & 1)


def test_holes_cost_nothing() -> None:
    index = BlockMap()
    index.set_base(7, location=HOLE, length=0, tag=0)
    index.add_patch(8, mask=5, location=HOLE, length=0, tag=0)
    index.zero_range(0, 2**32, HOLE)
    assert index.pages == {}
    assert len(index.patches) == 0
    index.set_base(7, location=1 << 32, length=1, tag=1)
    index.set_base(LAST, location=1 << 32 | 5, length=1, tag=1)
    assert len(index.pages) == 2
    index.zero_range(0, 2**32, HOLE)
    assert index.pages == {}


def test_allocated_zeros_of_terabytes_share_a_page() -> None:
    blocks = 8 * 4096 * 1024 + 77  # 8 TiB and a bit
    index = BlockMap()
    index.zero_range(5, blocks, ALLOCATED)
    assert sum(page is ALLOCATED_PAGE for page in index.pages.values()) == len(index.pages) - 2
    assert next(index.find(5)).content == ALLOCATED
    assert next(index.find(4)).content == HOLE
    assert next(index.find(blocks)).content == HOLE
    index.set_base(PAGE_BLOCKS * 9 + 1, location=1 << 32, length=1, tag=1)
    assert next(index.find(PAGE_BLOCKS * 9)).content == ALLOCATED
    assert next(index.find(PAGE_BLOCKS * 8 + 1)).content == ALLOCATED
    assert ALLOCATED_PAGE.location[1] == ALLOCATED, "the shared one is never written"
    assert not ALLOCATED_PAGE.heads().any()
    index.zero_range(0, blocks, HOLE)
    assert len(index.pages) == 1


def test_the_shared_page_is_not_copied_to_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pebibyte of allocated zeros is a million pages; making and throwing away each took a minute."""
    from storage.lsm.index import block_map
    from storage.lsm.index import page as module

    made = 0
    page = module.Page

    def counted() -> module.Page:
        nonlocal made
        made += 1
        return page()

    monkeypatch.setattr(module, "Page", counted)
    monkeypatch.setattr(block_map, "Page", counted)
    index = BlockMap()
    index.zero_range(0, 1000 * PAGE_BLOCKS, ALLOCATED)
    index.zero_range(0, 1000 * PAGE_BLOCKS, ALLOCATED)
    index.zero_range(0, 1000 * PAGE_BLOCKS, HOLE)
    assert made == 0


def test_what_a_block_costs() -> None:
    index = BlockMap()
    index.set_base(0, location=1 << 32, length=1, tag=1)
    page = index.pages[0]
    columns = sum(sys.getsizeof(column) for column in (page.location, page.tag, page.span, page.chains))
    assert columns / PAGE_BLOCKS < 22
