"""A folder in memory (tmpfs) for a test, as journals ask for."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.journal.files import lies_in_memory
from tests.support.leftovers import prefix_elsewhere
from tests.support.requirements import require

SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """It is gone at the end."""
    require(str(SHARED_MEMORY))
    folder = Path(tempfile.mkdtemp(prefix=prefix_elsewhere(), dir=SHARED_MEMORY))
    try:
        assert lies_in_memory(folder)
        yield folder
    finally:
        shutil.rmtree(folder)
