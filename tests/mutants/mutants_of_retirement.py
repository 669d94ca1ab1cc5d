"""Mistakes at the end of a rotation, where the older data key leaves, and in what it is drawn under."""

from tests.mutants.mutant import mutants

STAYS = "tests/storage/fs/test_rotation_that_may_not_delete.py"

RETIREMENT = [
    *mutants(
        "storage/fs/key_retirement.py",
        STAYS,
        (
            "retirement: the log that a start begins with is deleted",
            "if number < manifest.replay]",
            "if number <= manifest.replay]",
        ),
        (
            "retirement: a password that changes at the end keeps the older key for ever",
            "            return self._look_seconds  # a change",
            "            return None  # a change",
        ),
        (
            "retirement: a keys object that stays keeps the older key for ever",
            "            number = error.number\n",
            "            number = None\n",
        ),
        ("retirement: the new keys are there once", "        self._on_new_keys()  #", "        #"),
    ),
    *mutants(
        "storage/fs/key_retirement.py",
        "tests/storage/fs/test_key_rotation_of_a_store.py",
        (
            "retirement: an idle store takes the older keys again",
            "        await engine.flush_memtable(always=True)\n        _log",
            "        _log",
        ),
        ("retirement: no manifest knows the new keys", "        engine.keys_are(number)\n", ""),
    ),
    *mutants(
        "storage/crypto/key_rotation.py",
        "tests/storage/crypto/test_key_rotation.py",
        (
            "rotation: of several passwords the first is put into all slots",
            "        given[slot.number] = other\n",
            "        given[slot.number] = others[0]\n",
        ),
        (
            "rotation: a second one knows no other passwords",
            "open_slot, slot, data_key.store_id, password, data_key.key_id)",
            "open_slot, slot, data_key.store_id, password, 1)",
        ),
        ("rotation: there is one behind the last", "content.key_id == KEY_ID_MAX:", "content.key_id > KEY_ID_MAX:"),
    ),
    *mutants(
        "storage/fs/key_retirement.py",
        "tests/storage/fs/test_rotation_beside_others.py",
        ("rotation: what a read still waits for is deleted", " and not engine.compactor.may_be_read(sst):", ":"),
    ),
    *mutants(
        "storage/lsm/manifest/read_manifest.py",
        "tests/storage/fs/test_forged_under_an_older_key.py",
        (
            "rotation: a take-over that lost keeps a store from being opened",
            "manifest.takeovers[-1:] != [number] or await self.copy_size(number) is not None",
            "bool(manifest)",
        ),
        (
            "rotation: what a writer of the newer key committed is no proof",
            "manifest.takeovers[-1:] != [number] or await",
            "await",
        ),
    ),
]
