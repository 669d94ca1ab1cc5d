"""A checkpoint comes back as it was put together, and nothing else passes for it."""

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from storage.crypto.cipher import Cipher
from storage.errors import Corrupt, Unsupported
from storage.format.blocks import SstRef
from storage.format.checkpoint import (
    LAYOUTS,
    CheckpointBuilder,
    Part,
    PartKind,
    Trailer,
    open_part,
    open_trailer,
)
from storage.format.columns import Columns
from storage.format.envelope import Header, ObjectKind
from storage.format.names import sst_name
from storage.format.sizes import TRAILER_BYTES_MAX

STORE_ID = bytes(range(16))
CIPHER = Cipher(bytes(range(32)))
IDS = ["01K1JW549K0H0MV3FH28CKBWTY", "01K1JW549K0H0MV3FH28CKBWTZ"]

u32 = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**31, 2**32 - 1]))
u63 = st.integers(0, 2**63 - 1)
u64 = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1]))


@st.composite
def parts(draw: st.DrawFn) -> tuple[int, PartKind, Columns]:
    """Rows of any numbers: what they mean is not the format's affair."""
    kind = draw(st.sampled_from(PartKind))
    rows = draw(st.integers(0, 12))
    columns: Columns = {}
    for name, width, _ in LAYOUTS[kind]:
        values = draw(st.lists(u64 if width == "<u8" else u32, min_size=rows, max_size=rows))
        columns[name] = np.array(values, dtype=width)
    return draw(st.integers(1, 2**32 - 1)), kind, columns


refs = st.builds(
    SstRef,
    st.binary(min_size=16, max_size=16).map(lambda raw: str(ULID(raw))),
    u63,
    u32,
    st.binary(min_size=16, max_size=16),
    u32,
)


def seal(
    some: list[tuple[int, PartKind, Columns]],
    *,
    table: list[SstRef] | None = None,
    sequence: int = 7,
    which: int = 0,
    store_id: bytes = STORE_ID,
    cipher: Cipher = CIPHER,
) -> tuple[SstRef, bytes]:
    header = Header(
        kind=ObjectKind.CHECKPOINT,
        epoch=3,
        store_id=store_id,
        nonce=bytes([which]) * 16,
        link=ULID.from_str(IDS[which]).bytes,
        acknowledged=9,
    )
    builder = CheckpointBuilder.begin(cipher, header, IDS[which])
    for layer, kind, columns in some:
        builder.add(layer, kind, columns)
    ref, content = builder.finish(sequence=sequence, ssts=table or [], trunks=[])
    return ref, bytes(content)


def unseal(
    ref: SstRef, content: bytes, *, cipher: Cipher = CIPHER, store_id: bytes = STORE_ID
) -> tuple[Trailer, list[tuple[int, PartKind, Columns]]]:
    header, trailer = open_trailer(cipher, ref, content[ref.index_offset :], store_id=store_id)
    return trailer, [
        (part.layer, PartKind(part.kind), open_part(cipher, sst_name(ref.id), header, number, part, cut(content, part)))
        for number, part in enumerate(trailer.parts)
    ]


def cut(content: bytes, part: Part) -> bytes:
    return content[part.offset : part.offset + part.length]


def said(some: list[tuple[int, PartKind, Columns]]) -> list[tuple[int, PartKind, dict[str, list[int]]]]:
    """The same in Python's numbers, which compare."""
    return [(layer, kind, {name: column.tolist() for name, column in rows.items()}) for layer, kind, rows in some]


def bases(*blocks: int) -> tuple[int, PartKind, Columns]:
    columns = {name: np.array(blocks, dtype=width) for name, width, _ in LAYOUTS[PartKind.BASES]}
    return 1, PartKind.BASES, columns


PATCHES: tuple[int, PartKind, Columns] = (
    2,
    PartKind.PATCHES,
    {name: np.arange(40, dtype=width) for name, width, _ in LAYOUTS[PartKind.PATCHES]},
)


@given(st.lists(parts(), max_size=6), st.lists(refs, max_size=4), u64)
def test_it_comes_back(some: list[tuple[int, PartKind, Columns]], table: list[SstRef], sequence: int) -> None:
    ref, content = seal(some, table=table, sequence=sequence)
    assert ref.size == len(content)
    trailer, found = unseal(ref, content)
    assert said(found) == said(some)
    assert (list(trailer.ssts), trailer.sequence) == (table, sequence)
    assert (
        ref.entries == sum(part.rows for part in trailer.parts) == sum(len(next(iter(c.values()))) for _, _, c in some)
    )


def test_every_flipped_byte_is_noticed() -> None:
    """But in the first header, on which nothing rests when the manifest names the object."""
    some = [bases(*range(300)), PATCHES]
    ref, content = seal(some, table=[SstRef(IDS[1], 1, 2, bytes(16), 3)])
    before = said(some)
    draw = random.Random(1)
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << draw.randrange(8)
        if at < 96:
            assert said(unseal(ref, bytes(damaged))[1]) == before
            continue
        with pytest.raises((Corrupt, Unsupported)):
            unseal(ref, bytes(damaged))


def test_every_truncation_is_noticed() -> None:
    ref, content = seal([bases(*range(300)), PATCHES])
    for length in range(len(content)):
        with pytest.raises(Corrupt):
            unseal(ref, content[:length])


def test_bytes_behind_its_end_are_noticed() -> None:
    ref, content = seal([bases(1)])
    with pytest.raises(Corrupt):
        unseal(ref, content + b"\0")


def test_it_opens_under_its_own_key_and_in_its_own_store_only() -> None:
    ref, content = seal([bases(1)])
    with pytest.raises(Corrupt, match="authentication"):
        unseal(ref, content, cipher=Cipher(bytes(32)))
    with pytest.raises(Corrupt):
        unseal(ref, content, store_id=bytes(16))


def test_another_checkpoint_is_not_taken_for_it() -> None:
    ref, _ = seal([bases(1)])
    other, content = seal([bases(1)], which=1)
    with pytest.raises(Corrupt, match="not the checkpoint that the manifest names"):
        unseal(msgspec.structs.replace(ref, size=other.size, index_offset=other.index_offset), content)
    with pytest.raises(Corrupt, match="not the checkpoint that the manifest names"):
        unseal(msgspec.structs.replace(other, size=other.size + 1), content)


def test_a_part_is_not_taken_for_another() -> None:
    """Not in one checkpoint, and not of another: what the trailer pins aside, its own label says which it is."""
    ref, content = seal([bases(1, 2), bases(3, 4)])
    other, foreign = seal([bases(1, 2), bases(3, 4)], which=1)
    name = sst_name(ref.id)
    header, trailer = open_trailer(CIPHER, ref, content[ref.index_offset :], store_id=STORE_ID)
    first, second = (cut(content, part) for part in trailer.parts)
    with pytest.raises(Corrupt, match="not the one that its trailer names"):
        open_part(CIPHER, name, header, 0, trailer.parts[0], second)
    with pytest.raises(Corrupt, match="authentication"):  # as if the trailer had named it
        open_part(CIPHER, name, header, 0, trailer.parts[1], second)
    _, theirs = open_trailer(CIPHER, other, foreign[other.index_offset :], store_id=STORE_ID)
    with pytest.raises(Corrupt, match="authentication"):
        open_part(CIPHER, name, header, 0, theirs.parts[0], cut(foreign, theirs.parts[0]))
    assert open_part(CIPHER, name, header, 0, trailer.parts[0], first)["block"].tolist() == [1, 2]


@pytest.mark.parametrize("change", [{"rows": 3}, {"rows": 1}, {"kind": 3}, {"kind": 9}])
def test_a_part_that_is_not_what_the_trailer_says_is_malformed(change: dict[str, int]) -> None:
    ref, content = seal([bases(1, 2)])
    header, trailer = open_trailer(CIPHER, ref, content[ref.index_offset :], store_id=STORE_ID)
    part = msgspec.structs.replace(trailer.parts[0], **change)
    with pytest.raises(Corrupt, match="malformed"):
        open_part(CIPHER, sst_name(ref.id), header, 0, part, cut(content, part))


class FarOut(bytearray):
    """Rows of so many bytes that a header has no room for where they end."""

    def __len__(self) -> int:
        return 2**32 - 1


def test_rows_that_no_header_has_room_for_are_refused_when_they_are_added() -> None:
    header = Header(kind=ObjectKind.CHECKPOINT, epoch=1, store_id=STORE_ID, nonce=bytes(16), link=ULID().bytes)
    builder = CheckpointBuilder(CIPHER, header, IDS[0], FarOut(), [])
    with pytest.raises(Unsupported, match="too large for a checkpoint"):
        builder.add(1, PartKind.ZEROS, {"first": np.array([1], "<u4"), "end": np.array([2], "<u4")})


def test_a_trailer_that_nobody_would_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    header = Header(kind=ObjectKind.CHECKPOINT, epoch=1, store_id=STORE_ID, nonce=bytes(16), link=ULID().bytes)
    builder = CheckpointBuilder.begin(CIPHER, header, IDS[0])
    monkeypatch.setattr("storage.format.checkpoint.compress", lambda _: (0, bytes(TRAILER_BYTES_MAX)))
    with pytest.raises(Unsupported, match="too long for a checkpoint"):
        builder.finish(sequence=1, ssts=[], trunks=[])
