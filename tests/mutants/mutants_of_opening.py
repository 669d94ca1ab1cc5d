"""Mistakes in what opening a store costs, and in who waits for a manifest that lists much."""

from tests.mutants.mutant import mutants

OPENING = [
    *mutants(
        "storage/lsm/recovery/take_over.py",
        "tests/storage/lsm/recovery/test_take_over.py",
        (
            # Worlds reach it too seldom: a manifest has to land under a number that was given and deleted while the log
            # stood still. It takes no data; it stops a writer for nobody.
            "opening: no look before the fence",
            "            await manifests.look_for_newer()\n            replay = await fence.put",
            "            replay = await fence.put",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/take_over.py",
        "tests/storage/lsm/recovery/test_taken_over.py",
        (
            # Worlds do not find it: who opens a store so commits nothing, and only shows what was true before.
            "opening: no last look at its end",
            "                view = await self._loader(manifests, ciphers).load(replay, tree)\n"
            "            await manifests.look_for_newer()\n",
            "                view = await self._loader(manifests, ciphers).load(replay, tree)\n",
        ),
    ),
    *mutants(
        "storage/lsm/wal/reader.py",
        "tests/storage/lsm/wal/test_reader.py",
        (
            "opening: what counts for nothing behind a fence must open",
            "            if number > replay.end:\n",
            "            if number:\n",
        ),
        (
            "opening: what comes next in the log may be damaged",
            "            if replay.end in failed:\n                raise failed[replay.end]\n",
            "",
        ),
    ),
    *mutants(
        "storage/lsm/manifest/manifest_store.py",
        "tests/storage/lsm/recovery/test_large_checkpoint.py",
        ("opening: a trailer may be no longer than any answer", "length, limit=TRAILER_BYTES_MAX)", "length)"),
    ),
    *mutants(
        "storage/lsm/manifest/manifest_store.py",
        "tests/storage/lsm/test_engine.py",
        ("opening: a manifest is made in the loop", 'return await self._env.run("codec", seal)', "return seal()"),
    ),
    *mutants(
        "storage/lsm/index/load.py",
        "tests/storage/lsm/test_engine.py",
        (
            "opening: an index is asked for twice",
            "                length = sst.size - sst.index_offset\n",
            "                length = sst.size - sst.index_offset\n                await store.get(name, 0, 64)\n",
        ),
    ),
    *mutants(
        "storage/journal/unlogged.py",
        "tests/storage/journal/test_unlogged.py",
        (
            "journal: what is missing of a layer that went is damage",
            "            if found is None and sequence < changed:\n                continue\n",
            "",
        ),
        ("journal: of a layer that is to be made parts may be missing", "and sequence < changed", "and sequence"),
    ),
    *mutants(
        "storage/fs/following.py",
        "tests/storage/fs/test_following_deletions.py",
        (
            "following: a view may be older than the one before",
            "        if self._views and (engine.manifests.number, engine.log_end) < self._views[-1].moment:\n",
            "        if False:\n",
        ),
        (
            "following: a deleted manifest is not said",
            "            missing=self._views[-1].missing,\n",
            '            missing="",\n',
        ),
        (
            "following: what was replaced is said to be gone",
            "NewestLook(is_newest=False):",
            "NewestLook(is_newest=None):",
        ),
    ),
    *mutants(
        "storage/lsm/manifest/read_manifest.py",
        "tests/storage/fs/test_following_deletions.py",
        ("following: a newer manifest that was deleted is none", " and copy_of_next is None", ""),
        (
            "following: newer manifests that were deleted are none",
            "            newest = max(await list_spare_manifests(self.store), default=0) <= number\n",
            "            pass\n",
        ),
    ),
    *mutants(
        "storage/fs/following.py",
        "tests/storage/fs/test_following.py",
        (
            "following: what is only in the log is not seen",
            "            await objects.head(wal_name(self._engine.log_end))\n",
            "            raise NotFound\n",
        ),
        (
            "following: views that clients have are forgotten",
            "if self.is_held(view.store)]\n        if",
            "if False]\n        if",
        ),
        ("following: a view is as old as the time awake", " + self._env.suspended()", ""),
        ("following: each view counts its own time", "store.opened_at = self._opened_at", "pass"),
        ("following: an older password is asked for", "await keys.newest_number(self._impatient)", "1"),
    ),
    *mutants(
        "storage/lsm/engine.py",
        "tests/storage/fs/test_following.py",
        ("following: another moment is the same disk", "if name and self.read_only else", "if False else"),
    ),
    *mutants(
        "nbdserver/exports.py",
        "tests/nbdserver/test_exports.py",
        ("following: an older moment keeps others of its address from the newest", "if export.is_view:", "if False:"),
    ),
    *mutants(
        "nbdserver/protocol/agreement.py",
        "tests/nbdserver/protocol/test_handshake.py",
        ("following: several connections", " and not export.is_view", ""),
    ),
    *mutants(
        "storage/fs/devices/device.py",
        "tests/storage/fs/test_following.py",
        (
            "following: several connections to a snapshot",
            "is_view=engine.read_only,",
            "is_view=engine.read_only and not record.frozen,",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/take_over.py",
        "tests/storage/fs/test_adopt.py",
        ("adopt: the identity stays", "STORE_IDENTITY_BYTES) if adopted else", "STORE_IDENTITY_BYTES) if False else"),
        (
            "adopt: a store that runs elsewhere is taken",
            "terms = Terms(take_over,",
            "take_over = take_over or adopt\n        terms = Terms(take_over,",
        ),
        (
            "adopt: one that is opened meanwhile is taken",
            "manifests.tag):\n                await self._check_turn(manifests, adopted=terms.adopted)",
            "manifests.tag) and not terms.adopted:\n                await self._check_turn(manifests, adopted=True)",
        ),
        (
            "adopt: what this host knows is a copy",
            "        if anchor is not None:\n            raise Conflict(",
            "        if False:\n            raise Conflict(",
        ),
        (
            "adopt: a server of this host has it",
            'if holder.state == "held":\n                raise',
            "if False:\n                raise",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/turn.py",
        "tests/storage/fs/test_adopt.py",
        ("adopt: clients of the original go on", "return self.rolled_back or self.adopted", "return self.rolled_back"),
    ),
    *mutants(
        "storage/lsm/recovery/turn.py",
        "tests/storage/fs/test_adopt.py",
        (
            "adopt: the host does not know the identity",
            "if anchor.identity != manifests.manifest.identity:",
            "if False:",
        ),
    ),
    *mutants(
        "storage/lsm/index/build.py",
        "tests/storage/lsm/index/test_build.py",
        (
            "opening: each device looks at all rows",
            "{name: column[low:high] for",
            '{name: column[rows["layer"] == layer] for',
        ),
    ),
    *mutants(
        "storage/lsm/index/bulk_load.py",
        "tests/storage/lsm/index/test_bulk_load.py",
        (
            "opening: patches replace those below",
            "index.patches.load(part, heads[at_once])",
            "index.patches.load(part)",
        ),
        (
            "opening: a hole in a hole takes a page",
            ' & (np.minimum.reduceat(rows["location"], starts) != HOLE)',
            "",
        ),
        (
            "opening: what is patched is not kept",
            "        if index.below is not None:\n            some = blocks[at_once]",
            "        if False:\n            some = blocks[at_once]",
        ),
        (
            "opening: patches come one by one",
            "    if at_once.any():\n",
            "    at_once[:] = False\n    chosen[:] = False\n    if at_once.any():\n",
        ),
    ),
    *mutants(
        "storage/bucket/listing.py",
        "tests/storage/bucket/test_listing.py",
        (
            "opening: a part of a listing ends too early",
            "while not found or found[-1].name < last:",
            "while not found:",
        ),
        (
            "opening: what lies behind all that is known is not listed",
            "for cut in cuts[1:-1]), None]",
            "for cut in cuts[1:])]",
        ),
        (
            "opening: strangers are asked for one by one",
            "max(expected - len(found), PAGE_NAMES)",
            "max(expected - len(found), 1)",
        ),
    ),
    *mutants(
        "storage/bucket/named_ssts.py",
        "tests/storage/bucket/test_named_ssts.py",
        (
            "opening: what has another size than was named is as it was",
            "elif info.size != (named := ",
            "elif -1 == (named := ",
        ),
        ("opening: what is not named is taken for a neighbour", "np.where(self.ids[row] == ids, row, -1)", "row"),
        (
            "opening: names in another order are not found",
            'order = np.argsort(ids, kind="stable")',
            "order = np.arange(len(ids))",
        ),
    ),
    *mutants(
        "storage/lsm/index/sst_numbers.py",
        "tests/storage/lsm/index/test_sst_numbers.py",
        ("numbers: a number is given again", "self._settled.ids, recent, new)", "self._settled.ids, new, recent)"),
        ("numbers: what is not there has a neighbour's", "np.where(self.ids[number] == ids, number, 0)", "number"),
    ),
    *mutants(
        "storage/lsm/index/page.py",
        "tests/storage/lsm/index/test_page.py",
        (
            "index: a frame that is too long is taken for a chain",
            "        if length > SEALED_MAX:\n",
            "        if False:\n",
        ),
        ("index: the same of many", "if (longest := int(length.max())) > SEALED_MAX:", "if (longest := 0):"),
        ("index: a base takes the chain above it", "self.span[at] & ~SEALED_MAX | length", "length"),
    ),
    *mutants(
        "storage/lsm/index/load.py",
        "tests/storage/lsm/recovery/test_round_trips.py",
        ("opening: parts come one by one", "PART_READS_IN_FLIGHT = 8", "PART_READS_IN_FLIGHT = 1"),
    ),
    *mutants(
        "storage/lsm/recovery/view.py",
        "tests/storage/lsm/recovery/test_round_trips.py",
        ("opening: indexes come one by one", "reads_in_flight=self.options.reads_in_flight", "reads_in_flight=1"),
    ),
    *mutants(
        "storage/lsm/recovery/view.py",
        "tests/storage/fs/test_view_ahead.py",
        (
            "ahead: rows that are put together of older ones go over newer ones",
            "if index.victims or (len(rows) and int(rows.min()) <= self._manifest.sequence):",
            "if index.victims:",
        ),
        (
            "ahead: frames that were repacked lie where they lay",
            "if index.victims or (len(rows) and",
            "if (len(rows) and",
        ),
        ("ahead: whoever has had the store since", "known = (old.epoch, ", "known = (manifest.epoch, "),
        (
            "ahead: snapshots that were taken since are none",
            " old.operations, old.ssts)",
            " manifest.operations, old.ssts)",
        ),
        (
            "ahead: two write to one index",
            "        forest, self._forest = self._forest, None\n",
            "        forest = self._forest\n",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/take_over.py",
        "tests/storage/lsm/recovery/test_taken_over.py",
        (
            "opening: what the writer did since it was looked at is not read",
            "            if view is None or not view.still_holds(manifests, replay):\n",
            "            if view is None:\n",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/view.py",
        "tests/storage/lsm/recovery/test_taken_over.py",
        (
            "opening: a newer manifest is taken for the one that was read",
            "return self.number == manifests.number - 1 and [",
            "return [",
        ),
        (
            "opening: a longer log is taken for the one that was read",
            " and [item.number for item in self.replay.objects] == numbers",
            "",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/journal_replay.py",
        "tests/storage/lsm/recovery/test_carried.py",
        (
            "opening: a journal is given up that the lock still names",
            "        lock.name_journal(journal_id)\n        files.leave()\n",
            "        files.leave()\n        lock.name_journal(journal_id)\n",
        ),
    ),
]
