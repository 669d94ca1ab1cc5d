"""Pictures that follow from code are as scripts/draw draws them."""

from pathlib import Path

import pytest

from tests.docs.draw import PICTURES, documents, drawn, layers, pictures


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.stem)
def test_a_picture_is_what_the_code_says(path: Path) -> None:
    """If it fails: scripts/draw."""
    text = path.read_text()
    assert drawn(text) == text


def test_every_picture_is_shown_once() -> None:
    shown = [name for path in documents() for name in pictures(path.read_text())]
    assert sorted(shown) == sorted(PICTURES)


def test_a_picture_that_is_wrong_is_drawn_anew() -> None:
    text = "before\n<!-- scripts/draw: layers of storage -->\nnothing\n<!-- end -->\nbehind\n"
    right = f"before\n<!-- scripts/draw: layers of storage -->\n{layers('storage')}<!-- end -->\nbehind\n"
    assert drawn(text) == right
    assert drawn(right) == right
