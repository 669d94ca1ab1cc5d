"""A place for a store, and a tree of names, empty at first."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.fs.metadata.namespace import Namespace
from tests.storage.fs.places import Place
from tests.storage.fs.trees import NOW


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.env.close()


@pytest.fixture
def tree() -> Namespace:
    return Namespace.empty(NOW)
