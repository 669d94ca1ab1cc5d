"""Which exports a device may go on with."""

import pytest

from nbdserver.kernel_client.dialing import OfferedExport
from nbdserver.kernel_client.judgement import ABILITIES, hindrance, loss
from nbdserver.protocol import wire

USUAL = wire.FLAG_HAS_FLAGS | sum(ABILITIES)
BEFORE = OfferedExport(1 << 30, USUAL)


def test_the_same_and_a_larger_one_are_the_same_disk() -> None:
    for size in (1 << 30, 2 << 30):
        assert loss(BEFORE, OfferedExport(size, USUAL)) is None
        assert hindrance(BEFORE, OfferedExport(size, USUAL)) is None


def test_a_smaller_one_is_another_disk() -> None:
    said = loss(BEFORE, OfferedExport((1 << 30) - 512, USUAL))
    assert said is not None
    assert "another disk" in said


@pytest.mark.parametrize("flag", ABILITIES)
def test_what_the_kernel_asks_for_must_be_offered(flag: int) -> None:
    said = hindrance(BEFORE, OfferedExport(1 << 30, USUAL & ~flag))
    assert said == f"the server offers no {ABILITIES[flag]} any more"
    assert hindrance(OfferedExport(1 << 30, USUAL & ~flag), BEFORE) is None


def test_read_only_as_before() -> None:
    read_only = OfferedExport(1 << 30, USUAL | wire.FLAG_READ_ONLY)
    assert hindrance(BEFORE, read_only) == "the export is read-only now and was not"
    assert hindrance(read_only, BEFORE) == "the export is writable now and was not"
    assert hindrance(read_only, read_only) is None
