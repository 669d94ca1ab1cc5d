"""Mistakes in the journal in memory: what a kill at any moment leaves, and how it goes on when it was turned off."""

from tests.mutants.mutant import mutants

OF_JOURNAL = [
    *mutants(
        "storage/journal/files.py",
        "tests/storage/journal/test_files.py",
        (
            "journal: a kill leaves a segment with what was in its memory before",
            "        clear(memory)\n        # Only now",
            "        # Only now",
        ),
        (
            "journal: a kill in the midst of its end leaves one that passes for whole",
            "            (self._path / _HEAD_NAME).unlink(missing_ok=True)\n",
            "",
        ),
        (
            "journal: memory of one that ended is taken for the next",
            "        self._spare.clear()\n        self._untaken",
            "        self._untaken",
        ),
    ),
    *mutants(
        "storage/journal/journal.py",
        "tests/storage/journal/test_journal_anew.py",
        (
            "journal: segments from before it was off are dropped once more",
            "        self._segments.clear()\n        self._active",
            "        self._active",
        ),
        (
            "journal: what is written after it was off goes into memory from before",
            "        self._active = self._memory = None\n        self._resized(-self.bytes)\n",
            "        self._resized(-self.bytes)\n",
        ),
        (
            "journal: a lock that cannot be written stops the server",
            "            except (OSError, AccessDenied) as left:\n",
            "            except OSError as left:\n",
        ),
        (
            "journal: one that the lock does not name again passes for whole",
            "            with suppress(OSError):\n                place.files.end()\n",
            "",
        ),
        (
            "journal: it is on again at once",
            "        self.on = False\n        self._retry_at = self._monotonic() + OFF_SECONDS_MIN\n",
            "        self.on = False\n",
        ),
    ),
]
