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
        "storage/lsm/recovery/carried.py",
        "tests/storage/lsm/recovery/test_carried.py",
        (
            "journal: one that another process is about to go on with is lost",
            'found == "held" and not closed',
            'found == "lost" and not closed',
        ),
        ("journal: nothing helps against who stands still", " and not terms.forces(manifests.tag):", ":"),
        ("journal: of a store that was closed one is missing", "known is not None and not closed", "known is not None"),
    ),
    *mutants(
        "storage/lsm/recovery/journal_replay.py",
        "tests/storage/lsm/recovery/test_carried.py",
        (
            "journal: a start that stood still clears away that of who took over since",
            "epoch=None if carried.another_life else epoch",
            "epoch=None",
        ),
        (
            "journal: what a store set back had stays in memory",
            "epoch=None if carried.another_life else epoch",
            "epoch=epoch",
        ),
    ),
    *mutants(
        "storage/journal/files.py",
        "tests/storage/journal/test_set_aside.py",
        (
            "journal: one that was begun anew meanwhile goes with what was left of the old one",
            "        if _HEAD_NAME in names:\n            return\n",
            "",
        ),
        (
            "journal: the lock of one that is gone is that of the one in its place",
            'return "taken" if os.path.samestat(os.fstat(descriptor), os.stat(path)) else "gone"',
            'return "taken" if os.stat(path) else "gone"',
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
            "journal: a lock that cannot be written stops the server",
            "            except (OSError, AccessDenied) as left:\n",
            "            except OSError as left:\n",
        ),
        (
            "journal: one that the lock does not name again passes for whole",
            "        for step in (partial(self._unname, place), place.files.end):\n",
            "        for step in (partial(self._unname, place),):\n",
        ),
        (
            "journal: it is on again at once",
            "        self._retry_at = self._monotonic() + OFF_SECONDS_MIN\n",
            "",
        ),
        (
            "journal: once off it waits for somebody who writes",
            "        self._later(OFF_SECONDS_MIN, partial(self._retry, self._retries))\n",
            "",
        ),
        (
            "journal: it is on again while the log lacks something",
            "self._all_logged = self._all_logged and not pending",
            "pass",
        ),
        (
            "journal: it is on again while something is linked and not kept",
            "self._all_logged and not self.pending:",
            "self._all_logged:",
        ),
        (
            "journal: without room it goes on and off",
            "            self._begin_segment(place, self._segment_bytes)\n            self._is_named",
            "            self._is_named",
        ),
        (
            "journal: what turned it off as all was logged keeps it off",
            "        self._all_logged = everything\n        if not self.on:\n",
            "        if not self.on:\n            self._all_logged = everything\n",
        ),
        (
            "journal: several tries are to come at a time",
            "        is_newest = which == self._retries\n",
            "        is_newest = which > 0\n",
        ),
        (
            "journal: a lock that names it again names it for ever",
            "            self._is_named = True\n            place.name(place.id)\n",
            "            place.name(place.id)\n",
        ),
        (
            "journal: without room at the start there is none for ever",
            "        self._newest = max(self._newest, place.epoch << EPOCH_SHIFT)\n        self._retry_later()\n",
            "        self._newest = max(self._newest, place.epoch << EPOCH_SHIFT)\n",
        ),
        (
            "journal: without room at the start numbers of others are used again",
            "        self._newest = max(self._newest, place.epoch << EPOCH_SHIFT)\n        self._retry_later()\n",
            "        self._retry_later()\n",
        ),
    ),
]
