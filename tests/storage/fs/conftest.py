"""A place for a store, empty at first."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.fs.places import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.env.close()
