"""Mistakes in a rotation of the data key: what opens what, what is sealed anew, and when the older keys may leave."""

from tests.mutants.mutant import mutants

KEYS = "tests/storage/crypto/test_key_rotation.py"
STORE = "tests/storage/fs/test_key_rotation_of_a_store.py"

ROTATION = [
    *mutants(
        "storage/crypto/key_rotation.py",
        KEYS,
        (
            "rotation: the older key opens what is written from now on",
            "Secret(env.random_bytes(KEY_BYTES))",
            "data_key.key",
        ),
        (
            "rotation: the ring is dropped before anything is sealed anew",
            "    ring = (seal_older(newest, data_key, env.random_bytes(NONCE_BYTES)),)\n",
            "    ring = ()\n",
        ),
        (
            "rotation: passwords that were not given are gone without a word",
            "    if missing and not drop_others:\n",
            "    if False:\n",
        ),
        ("rotation: a second one begins over the first", "    if content.ring:\n", "    if False:\n"),
        (
            "rotation: whoever has another key takes the ring away",
            "content.key_id != newest.key_id or not seal_fits(content, newest)",
            "False",
        ),
    ),
    *mutants(
        "storage/crypto/data_key.py",
        KEYS,
        (
            "rotation: what is written is sealed under the older key",
            "        return Cipher(self.purpose(purpose), key_id=self.key_id, older=older)\n",
            "        return older[0] if older else Cipher(self.purpose(purpose), key_id=self.key_id)\n",
        ),
    ),
    *mutants(
        "storage/crypto/keys_change.py",
        KEYS,
        (
            "rotation: a change of password forgets the older key",
            "content, data_key, slots, content.ring, cost",
            "content, data_key, slots, (), cost",
        ),
    ),
    *mutants(
        "storage/lsm/index/block_map.py",
        "tests/storage/lsm/index/test_rebase.py",
        (
            "rotation: a frame that was sealed anew is known by its old tag",
            "            page.location[at], page.tag[at] = new, tag\n",
            "            page.location[at] = new\n",
        ),
    ),
    *mutants(
        "storage/lsm/index/image.py",
        "tests/storage/lsm/index/test_image.py",
        (
            "rotation: a start knows a frame that was sealed anew by its old tag",
            '            rows = {**rows, "tag": np.where(self._old[at] == location, self._tags[at], rows["tag"])}\n',
            "",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/plan.py",
        "tests/storage/lsm/compaction/test_plan_of_rotation.py",
        ("rotation: an SST that is all live stays under the older key", " | snapshot.ssts.older_key)", ")"),
        (
            "rotation: what lies beside the checkpoint stays under the older key",
            "(snapshot.ssts.older_key & ~snapshot.ssts.merged).any()",
            "False",
        ),
        ("rotation: the checkpoint stays under the older key", "snapshot.checkpoint_older_key or ", ""),
    ),
    *mutants(
        "storage/lsm/compaction/repack.py",
        STORE,
        (
            "rotation: frames are copied as they are",
            "frame.sealed, None if codec is context.codec else codec)",
            "frame.sealed)",
        ),
    ),
    *mutants(
        "storage/format/sst.py",
        STORE,
        (
            "rotation: an SST is listed with the id of another key",
            "sealed[-TAG_BYTES:], self._index_cipher.key_id\n",
            "sealed[-TAG_BYTES:], 1\n",
        ),
    ),
    *mutants(
        "storage/fs/key_retirement.py",
        STORE,
        (
            "rotation: the older key leaves while the manifest lists what it sealed",
            "        if left_of_rotation(engine).objects:\n",
            "        if False:\n",
        ),
        (
            "rotation: no manifest says that the older key left",
            "        engine.keys_are(number)\n        self._is_done = True\n",
            "        self._is_done = True\n",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/journal_replay.py",
        STORE,
        (
            "rotation: the journal of the older key is set aside",
            "(_seal(older, carried.id) for older in key.older)",
            "()",
        ),
    ),
]
