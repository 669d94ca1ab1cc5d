"""SSTs as columns say what the same SSTs say as objects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from storage.format.blocks import SstRef
from storage.format.sst_list import SstList, ids_of

refs = st.lists(
    st.builds(
        SstRef,
        st.binary(min_size=16, max_size=16).map(lambda raw: str(ULID.from_bytes(raw))),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**63 - 1),
        st.binary(min_size=16, max_size=16),
        st.integers(0, 2**32),
    ),
    max_size=6,
    unique_by=lambda ref: ref.id,
)


@given(refs, refs, st.data())
def test_it_is_what_the_objects_are(some: list[SstRef], others: list[SstRef], data: st.DataObject) -> None:
    listed, rest = SstList.of(some), SstList.of(others)
    assert list(listed) == some
    assert SstList.of(listed) is listed
    assert [listed[at] for at in range(-len(some), len(some))] == [some[at] for at in range(-len(some), len(some))]
    assert list(listed.beside(rest)) == some + others
    first = data.draw(st.integers(0, len(some)))
    assert list(listed[first:]) == some[first:]
    wanted = {ref.id for ref in data.draw(st.permutations(some + others))[::2]}
    assert listed.are(wanted).tolist() == [ref.id in wanted for ref in some]
    assert listed.held(wanted) == {ref.id for ref in some} & wanted
    assert [listed.has(ref.id) for ref in others] == [ref.id in {each.id for each in some} for ref in others]
    assert list(listed.where(listed.are(wanted))) == [ref for ref in some if ref.id in wanted]
    assert listed.beside(rest).includes(listed)
    assert rest.beside(listed).includes(listed)
    assert listed.includes(rest) == ({ref.id for ref in others} <= {ref.id for ref in some})


@pytest.mark.parametrize(
    "ref",
    [SstRef("A", 1, 1, bytes(15), 1), SstRef("A\0", 1, 1, bytes(16), 1), SstRef("A", 2**63, 1, bytes(16), 1)],
)
def test_what_no_sst_can_be_is_refused(ref: SstRef) -> None:
    """Cut off or wrapped it would be another one."""
    with pytest.raises(ValueError, match="none can have"):
        SstList.of([ref])


def test_an_id_beyond_ascii_is_refused() -> None:
    with pytest.raises(ValueError, match="ascii"):
        ids_of(["\u00e9"])
