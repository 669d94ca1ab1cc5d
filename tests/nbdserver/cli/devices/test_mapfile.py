"""The mapfile covers the image, each byte once."""

import pytest

from nbdserver.cli.devices.mapfile import mapfile


def ranges(text: str) -> list[tuple[int, int, str]]:
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return [(int(offset, 16), int(length, 16), status) for offset, length, status in lines[1:]]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ([], [(0, 100, "+")]),
        ([(0, 100)], [(0, 100, "-")]),
        ([(10, 5), (15, 5), (40, 60)], [(0, 10, "+"), (10, 10, "-"), (20, 20, "+"), (40, 60, "-")]),
    ],
)
def test_every_byte_is_good_or_bad(bad: list[tuple[int, int]], expected: list[tuple[int, int, str]]) -> None:
    assert ranges(mapfile(100, bad)) == expected
