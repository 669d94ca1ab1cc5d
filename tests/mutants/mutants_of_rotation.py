"""Mistakes in a rotation of the data key: what opens what, what is sealed anew, and when the older keys may leave."""

from tests.mutants.mutant import mutants

KEYS = "tests/storage/crypto/test_key_rotation.py"
BESIDE = "tests/storage/fs/test_rotation_beside_others.py"
FORGED = "tests/storage/fs/test_forged_under_an_older_key.py"
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
        "scripts/recover",
        FORGED,
        ("recover: a header alone is an object", "        checked(head.parts > 0, ", "        checked(True, "),
        (
            "recover: an earlier manifest that does not open keeps a store from being read",
            "contextlib.suppress(Damage, Stop)",
            "contextlib.suppress(Damage)",
        ),
    ),
    *mutants(
        "storage/fs/succession/stored_attachments.py",
        "tests/storage/fs/test_rotation_that_may_not_delete.py",
        (
            "rotation: it waits for ever for a deletion that is denied, and says nothing",
            "            await self._once.delete(old)  #",
            "            await self._store.delete(old)  #",
        ),
    ),
    *mutants(
        "storage/crypto/keyslots.py",
        KEYS,
        (
            "rotation: the older key bears the name of a newer one",
            "clear if key_id == FIRST_KEY_ID else clear + bytes([key_id])",
            "clear",
        ),
    ),
    *mutants(
        "storage/lsm/wal/log_object.py",
        "tests/storage/fs/test_rotation_beside_others.py",
        ("rotation: the log names SSTs under the first key", "decode(name, body, header.key_id)", "decode(name, body)"),
    ),
    *mutants(
        "storage/lsm/recovery/turn.py",
        FORGED,
        (
            "rotation: who has the older key makes the newest manifest, and deletes what was before it",
            "if manifests.key_id < anchor.key_id:",
            "if False:",
        ),
    ),
    *mutants(
        "storage/lsm/manifest/read_manifest.py",
        FORGED,
        (
            "rotation: who has the older key makes the newest manifest",
            "        if True in newer:\n",
            "        if False:\n",
        ),
        (
            "rotation: a header that nobody sealed keeps the store from being opened",
            "return header.key_id > key_id and await self._has_won(other)",
            "return header.key_id > key_id",
        ),
    ),
    *mutants(
        "storage/lsm/manifest/manifest_store.py",
        FORGED,
        (
            "rotation: the log from before the fence is refused",
            "            manifest = msgspec.structs.replace(manifest, rekeyed=None)\n",
            "            pass\n",
        ),
        (
            "rotation: no manifest says since when the log is under its key",
            "        if self.manifest.rekeyed is None:\n",
            "        if False:\n",
        ),
    ),
    *mutants(
        "storage/lsm/wal/reader.py",
        FORGED,
        (
            "rotation: who has the older key writes on behind the log",
            "        if rekeyed is not None and item.number >= rekeyed:\n",
            "        if False:\n",
        ),
        (
            "rotation: who has the older key writes on behind objects of the newer",
            "        replay.key_id = key_id\n",
            "        replay.key_id = 0\n",
        ),
    ),
    *mutants(
        "storage/crypto/keys.py",
        "tests/storage/fs/test_rotation_beside_others.py",
        (
            "rotation: a number that nobody vouches for comes to the manifest",
            "            if seal_fits(await read_either(store, newest, memory_kib_min=0), data_key):\n",
            "            if True:\n",
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
    ),
    *mutants(
        "storage/lsm/recovery/journal_replay.py",
        STORE,
        (
            "rotation: the journal of the older key is set aside",
            "(_cipher(older, carried.id) for older in key.older)",
            "()",
        ),
    ),
    *mutants(
        "storage/fs/key_retirement.py",
        BESIDE,
        (
            "rotation: manifests that are kept else keep the older key for ever",
            "        self._engine.garbage.add(map(manifest_name, old))\n",
            "",
        ),
        (
            "rotation: what a crash left of the log keeps the older key for a day",
            "        await self._delete_log()\n",
            "",
        ),
        (
            "rotation: SSTs that a crash left keep the older key for a day",
            "name in engine.source.older or header.acknowledged <= engine.log_end",
            "name in engine.source.older",
        ),
        (
            "rotation: fences go with the log that a crash left",
            "for number in old if number not in manifest.fences)",
            "for number in old)",
        ),
        (
            "rotation: who was attached is known under the older key only",
            "        await StoredAttachments(self._objects, engine.key, self._env, engine.failed).reseal()\n",
            "",
        ),
    ),
    *mutants(
        "storage/lsm/engine.py",
        BESIDE,
        (
            "rotation: of two changes at once the older number counts",
            "        self.keys_number = max(self.keys_number, number)\n",
            "        self.keys_number = number\n",
        ),
    ),
    *mutants(
        "storage/check/copies.py",
        BESIDE,
        (
            "rotation: a check of a server with the older key finds the new one altered",
            "        if content.key_id > key.key_id:\n",
            "        if False:\n",
        ),
    ),
    *mutants(
        "storage/crypto/keys.py",
        KEYS,
        (
            "rotation: a number of keys that nobody vouches for takes the place of those that open the store",
            "        if names and seal_fits(await read_either(store, number, cost.memory_kib_min), data_key):\n",
            "        if names:\n",
        ),
    ),
    *mutants(
        "storage/crypto/mend_keys.py",
        KEYS,
        (
            "rotation: mended keys have lost the older key",
            "content.slots, memory_kib_min, content.ring)",
            "content.slots, memory_kib_min)",
        ),
        (
            "rotation: keys of another data key are taken for damaged ones, and written over",
            "lambda *it: is_sound(*it) or is_anothers(*it))",
            "is_sound)",
        ),
        (
            "rotation: keys of another data key are taken for damaged ones, and left behind",
            "    elif copy is not None and found[0] is not None and is_anothers(found[0], number):\n",
            "    elif False:\n",
        ),
        (
            "rotation: a writer with the older key leaves the new one without a copy",
            "    if own and copy is None:\n",
            "    if False:\n",
        ),
        (
            "rotation: keys from before it that were put back are taken for newer ones",
            ".key_id > data_key.key_id",
            ".key_id != data_key.key_id",
        ),
        (
            "rotation: a number of keys that nobody vouches for comes to the manifest",
            "        return None\n    if not copied:\n",
            "        return number\n    if not copied:\n",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/take_over.py",
        "tests/storage/lsm/recovery/test_taken_over.py",
        (
            "rotation: a store is taken with keys that were changed meanwhile",
            "            if terms.keys < manifests.manifest.keys:\n                raise Fenced(",
            "            if False:\n                raise Fenced(",
        ),
    ),
    *mutants(
        "storage/lsm/manifest/manifest_store.py",
        "tests/storage/lsm/recovery/test_spare_manifest.py",
        (
            "rotation: the copy of a manifest under a newer key is taken for a damaged one",
            "            raise Fenced from None  # only a writer that has a newer data key than this one made it\n",
            "            return\n",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/take_over.py",
        "tests/storage/fs/test_who_lives_through_a_rotation.py",
        (
            "rotation: keys of a later moment open a store that they can read no more",
            "        check_older_keys(manifests, self.key)\n",
            "",
        ),
    ),
    *mutants(
        "storage/check/chains.py",
        "tests/storage/fs/test_who_lives_through_a_rotation.py",
        (
            "rotation: a check does not say that keys are of a later moment than the rest",
            "        check_older_keys(manifests, subject.key)\n",
            "        pass\n",
        ),
    ),
    *mutants(
        "storage/fs/succession/standby.py",
        "tests/storage/fs/succession/test_standby.py",
        (
            "rotation: who stands by with the older key waits for ever",
            "            except KeyChanged as error:\n                # What",
            "            except ZeroDivisionError as error:\n                # What",
        ),
    ),
]
