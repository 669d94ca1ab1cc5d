"""Names of objects: each says its number, and a name that no program gives says none."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.format.names import (
    attached_name,
    attached_numbers,
    manifest_name,
    manifest_number,
    sign_epoch,
    sign_name,
    spare_manifest_name,
    spare_manifest_number,
    sst_id,
    sst_name,
    wal_name,
    wal_number,
)

NUMBER_MAX = 2**64 - 1
NUMBERED = [
    (manifest_name, manifest_number),
    (spare_manifest_name, spare_manifest_number),
    (wal_name, wal_number),
]
ULID_MAX = "7" + "Z" * 25

Give = Callable[[int], str]
Read = Callable[[str], int | None]


@pytest.mark.parametrize(("give", "read"), NUMBERED)
@given(numbers=st.lists(st.integers(1, NUMBER_MAX), min_size=2, max_size=2))
def test_order_of_name_is_order_of_number(give: Give, read: Read, numbers: list[int]) -> None:
    names = [give(number) for number in numbers]
    assert [read(name) for name in names] == numbers
    assert [read(name) for name in sorted(names)] == sorted(numbers)


@pytest.mark.parametrize(("give", "read"), NUMBERED)
def test_a_number_that_no_object_has_is_none(give: Give, read: Read) -> None:
    """Its header could not say it, and whoever counts on from it would fail."""
    assert read(give(1)) == 1
    assert read(give(NUMBER_MAX)) == NUMBER_MAX
    assert read(give(0)) is None
    assert read(give(NUMBER_MAX + 1)) is None
    assert read(give(10**20)) is None


def test_an_id_that_no_program_draws_is_none() -> None:
    """It has 130 bits where 128 are."""
    assert sst_id(sst_name(ULID_MAX)) == ULID_MAX
    for name in ("8" + "0" * 25, "0" * 25 + "I", "0" * 25 + "a", "0" * 25, "0" * 27):
        assert sst_id(sst_name(name)) is None


@pytest.mark.parametrize(
    ("name", "read"),
    [
        *((give(7), read) for give, read in NUMBERED),
        (sst_name(ULID_MAX), sst_id),
        (sign_name(3), sign_epoch),
        (attached_name(3, 7), attached_numbers),
    ],
)
def test_what_lies_beside_an_object_is_none(name: str, read: Callable[[str], object]) -> None:
    """Copies that tools leave, and what is on its way."""
    assert read(name) is not None
    for other in (f"{name}.part", f"{name}\n", f"{name}~", f"old/{name}", name.upper(), name.rpartition(".")[0]):
        assert read(other) is None
