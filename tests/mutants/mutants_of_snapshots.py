"""Mistakes in what is done with snapshots beside the engine: what expires, what is filled, streams, schedules."""

from tests.mutants.mutant import mutants

SNAPSHOTS = [
    *mutants(
        "storage/lsm/memtable/write_state.py",
        "tests/storage/lsm/test_trunks_beside_flushes.py",
        (
            "trunks: an operation does not wait for one that is being flushed",
            "sealed is not None and (sealed.changes_trunks or sealed.in_parts)",
            "sealed is not None and sealed.in_parts",
        ),
        (
            "trunks: an operation does not wait for parts of sectors",
            "sealed is not None and (sealed.changes_trunks or sealed.in_parts)",
            "sealed is not None and sealed.changes_trunks",
        ),
        (
            "trunks: an operation waits for every flush",
            "sealed is not None and (sealed.changes_trunks or sealed.in_parts)",
            "sealed is not None",
        ),
    ),
    *mutants(
        "storage/lsm/tree_state.py",
        "tests/storage/lsm/test_poison.py",
        (
            "trunks: what cannot be planned ends the engine",
            "            self._refused = error\n            return\n",
            "            raise\n",
        ),
        (
            "trunks: what was begun is refused as if nothing had changed",
            "        except BrokenInvariant:\n            raise\n        except StorageError as error:\n",
            "        except Exception as error:\n",
        ),
    ),
    *mutants(
        "storage/fs/metadata/records.py",
        "tests/storage/fs/snapshots/test_snapshots.py",
        ("snapshots: any time will do", "    if not abs(seconds) < SECONDS_BOUND:", "    if False:"),
    ),
    *mutants(
        "storage/lsm/flush/flush.py",
        "tests/storage/lsm/test_trunks_beside_flushes.py",
        (
            "trunks: an operation does not wait for one that is in memory",
            "elif writes.memtable.changes_trunks or (",
            "elif (",
        ),
    ),
    *mutants(
        "storage/lsm/layers.py",
        "tests/storage/lsm/test_trunks_beside_flushes.py",
        (
            "snapshots: one is durable with its record alone",
            "        return [(self.tree_queue, change), *held]\n",
            "        return [(self.tree_queue, change)]\n",
        ),
        (
            "snapshots: one waits for what was written to other devices",
            "        return [(self.tree_queue, change), *held]\n",
            "        return [(queue, queue.last_sequence) for queue in self.queues()]\n",
        ),
    ),
    *mutants(
        "storage/lsm/layer.py",
        "tests/storage/lsm/test_trunks_beside_flushes.py",
        (
            "snapshots: the end of a flush takes what a head has of its snapshot and was not in it",
            "[table for table in self.inherited if active.get(table.layer) is table]",
            "[]",
        ),
    ),
    *mutants(
        "storage/lsm/wal/group_commit.py",
        "tests/storage/lsm/test_trunks_beside_flushes.py",
        (
            "log: who waits goes before a device that was made",
            "                while tree.pending:",
            "                while False:",
        ),
        (
            # Worlds have it too seldom since all of the tree that there is room for is in one object: it takes one that
            # is full, of what was written behind the snapshot, and a crash before the next one lands.
            "log: what is written after a snapshot goes before it",
            "key=lambda queue: (queue.layer != TREE, not queue.is_awaited)",
            "key=lambda queue: (queue.layer == TREE, not queue.is_awaited)",
        ),
        (
            "log: who waits goes before the record of his layer",
            "waits = queue.is_awaited or queue.layer == TREE",
            "waits = queue.is_awaited",
        ),
    ),
    *mutants(
        "storage/fs/devices/filling.py",
        "tests/storage/fs/devices/test_filling.py",
        ("import: what was kept for it stays needed", "filling=False, base=0)", "filling=False)"),
        (
            "import: it goes on from what was before the last write",
            "                origin = await self._set_aside(name, file, user, pinned)\n",
            "                names = self._tree.namespace\n"
            "                origin = names.table.trunk(names.device(name)[1].layer)[0]\n",
        ),
    ),
    *mutants(
        "storage/fs/devices/filling.py",
        "tests/nbdserver/admin/test_transfer.py",
        (
            "import: it ends before all is durable",
            "        await self._engine.flush()\n        if arrival is None:\n",
            "        if arrival is None:\n",
        ),
    ),
    *mutants(
        "storage/fs/store.py",
        "tests/storage/fs/test_store_devices.py",
        (
            "import: another size is given to what it may have to give back",
            '            self.open_devices.refuse_exclusive(own_name, "give it another size")\n',
            "",
        ),
    ),
    *mutants(
        "storage/lsm/layers.py",
        "tests/storage/lsm/test_trunks_while_flushing.py",
        (
            # Worlds have it too seldom: writes that are not flushed when nobody is attached any more, a rollback that
            # keeps nothing, and a read before the next flush.
            "snapshots: a rollback keeps the writes of the head that goes",
            "                device = layers.pop(head)\n                self._drop_written(head)\n"
            "                device.move_on(child, sequence)\n"
            "                device.inherit(layers[snapshot])\n",
            "                device = layers.pop(head)\n"
            "                tables = device.own_memtables\n"
            "                device.move_on(child, sequence)\n"
            "                device.inherit(layers[snapshot])\n"
            "                device.inherited = tables\n"
            "                device.show_memtables()\n",
        ),
    ),
    *mutants(
        "storage/lsm/flush/flush.py",
        "tests/storage/lsm/test_layers.py",
        (
            "flush: it does not wait until the drop of a layer is durable",
            "        if sealed.layers.keys() - living.keys():\n",
            "        if False:\n",
        ),
    ),
    *mutants(
        "storage/lsm/engine.py",
        "tests/storage/lsm/test_trunks_beside_flushes.py",
        (
            "snapshots: nobody brings them into the indexes",
            "            if change.is_made:\n                self.flush_trigger.pull()\n",
            "",
        ),
        (
            "snapshots: a refused one makes an SST",
            "            if change.is_made:\n",
            "            if change is not None:\n",
        ),
        (
            "snapshots: one whose command was interrupted stays in memory",
            "            if change.is_made:\n                self.flush_trigger.pull()\n\n"
            '        await self.to_its_end("change of trunks", make)\n',
            '\n        await self.to_its_end("change of trunks", make)\n        self.flush_trigger.pull()\n',
        ),
    ),
    *mutants(
        "storage/fs/devices/changes.py",
        "tests/storage/fs/devices/test_history.py",
        ("changes: what both show of memory counts", " if shown[id(table)] == 1]", "]"),
    ),
    *mutants(
        "storage/fs/snapshots/snapshots.py",
        "tests/storage/fs/snapshots/test_clones.py",
        (
            "clone: what it needs is cleared away under it",
            '            pinned.enter_context(self.pins.pin(number, "a clone"))\n',
            "",
        ),
    ),
    *mutants(
        "storage/fs/store.py",
        "tests/storage/fs/test_store_devices.py",
        (
            "rollback: a size that the disk has no more is shown",
            "if now is not None and self._tree.namespace.identity(number) == disk:",
            "if now is not None:",
        ),
    ),
    *mutants(
        "storage/fs/snapshots/snapshots.py",
        "tests/storage/fs/snapshots/test_clearing.py::test_one_taken_by_a_clock_that_is_behind_lives_as_long",
        (
            "expiry: a clock that is behind says when",
            "self._not_before(devices) + lasts",
            "self._env.wall_clock() + lasts",
        ),
    ),
    *mutants(
        "storage/fs/snapshots/snapshots.py",
        "tests/storage/fs/snapshots/test_deleted_together.py",
        ("deletion: each by a record of its own", "DELETED_TOGETHER = 1000\n", "DELETED_TOGETHER = 1\n"),
        ("deletion: one that has to wait keeps all others", "            if not half:\n", "            if True:\n"),
    ),
    *mutants(
        "storage/fs/metadata/snapshot_plans.py",
        "tests/storage/fs/snapshots/test_deleted_together.py",
        (
            "deletion: what somebody has goes with the others",
            "            stay[number] = error\n        else:\n",
            "            stay[number] = error\n        if number in heads:\n",
        ),
    ),
    *mutants(
        "storage/fs/metadata/snapshot_plans.py",
        "tests/storage/fs/devices/test_filling.py",
        ("deletion: what an import goes on from goes", "            if number in bases:\n", "            if False:\n"),
    ),
    *mutants(
        "storage/fs/snapshots/clearing.py",
        "tests/storage/fs/snapshots/test_clearing.py",
        ("expiry: the host's clock alone counts", "min(store_time, self._env.wall_clock())", "self._env.wall_clock()"),
        ("expiry: the store's clock alone counts", "min(store_time, self._env.wall_clock())", "store_time"),
    ),
    *mutants(
        "storage/fs/devices/filling.py",
        "tests/storage/fs/devices/test_filling.py",
        (
            "filling: a new device is not marked",
            "self._env.wall_clock(), filling=True)",
            "self._env.wall_clock(), filling=False)",
        ),
        (
            "filling: one that goes on from a snapshot is not marked",
            "size=size, filling=True, base=origin.number)",
            "size=size)",
        ),
        ("filling: a change is not looked for", "or not await history.equals(origin)", "or False"),
        (
            "filling: what failed is left as it is",
            "await asyncio.shield(self.undo(number))",
            "await asyncio.sleep(0)",
        ),
    ),
    *mutants(
        "storage/fs/devices/history.py",
        "tests/storage/fs/devices/test_filling.py",
        (
            "filling: what was put together counts as changed",
            'if b"".join(map(bytes, one)) != b"".join(map(bytes, other)):',
            "if changed:",
        ),
    ),
    *mutants(
        "nbdserver/admin/snapshot_stream.py",
        "tests/nbdserver/admin/test_snapshot_stream.py",
        ("stream: a checksum is of its record alone", "hashlib.sha256(check)", "hashlib.sha256()"),
        ("stream: a checksum leaves out where the record is", "    digest.update(head)\n", ""),
        ("stream: one that was cut is whole", "if not self.ended or self._buffer:", "if self._buffer:"),
        ("stream: ranges may overlap", "offset < self.position or", ""),
        ("stream: ranges may lie behind the end", " or offset + length > self.header.size", ""),
    ),
    *mutants(
        "storage/fs/snapshots/snapshots.py",
        "tests/storage/fs/snapshots/test_snapshots.py",
        (
            "snapshots: a device of another size holds the same",
            "names.size(inode) == layer.size and await history",
            "await history",
        ),
    ),
    *mutants(
        "nbdserver/cli/snapshots/replication_plan.py",
        "tests/nbdserver/cli/snapshots/test_replication_plan.py",
        ("replicate: what both have is deleted at the source", " if one != common[0]]", "]"),
        ("replicate: what both have is deleted at the target", " if one != common[1]]", "]"),
        ("replicate: snapshots of others are deleted", "if pattern.fullmatch(one.name)]", "]"),
        ("replicate: a name of the other side is taken again", "    while name in taken:\n", "    while False:\n"),
        (
            "replicate: the oldest in common is gone on from",
            "for one in reversed(source) if one.identity in there)",
            "for one in source if one.identity in there)",
        ),
        ("replicate: what somebody took there is what was brought", "if one.identity in known]", "]"),
        (
            "replicate: without a replica nothing is cleared away",
            "return [one.name for one in own(source, prefix)], []",
            "return [], []",
        ),
        (
            "replicate: a password that is wrong may pass",
            '("Unavailable", "Unreadable"',
            '("WrongPassword", "Unavailable", "Unreadable"',
        ),
    ),
    *mutants(
        "nbdserver/cli/snapshots/pipe.py",
        "tests/nbdserver/cli/snapshots/test_pipe.py",
        ("pipe: it has no bound", "self._bytes < PIPE_BYTES or self._closed", "True"),
    ),
    *mutants(
        "storage/fs/snapshots/retention.py",
        "tests/storage/fs/snapshots/test_retention.py",
        ("schedule: the last of each period is kept", "for moment in ordered:", "for moment in reversed(ordered):"),
        ("schedule: the oldest periods are kept", "sorted(first)[-count:]", "sorted(first)[:count]"),
        (
            "schedule: what a clock that was ahead took counts already",
            "        if moment <= now:",
            "        if True:",
        ),
        (
            "schedule: a second one of a period is taken",
            "all(PERIODS[shortest](moment) != number for moment in moments)",
            "now not in moments",
        ),
    ),
    *mutants(
        "storage/fs/snapshots/scheduling.py",
        "tests/storage/fs/snapshots/test_scheduling.py",
        ("schedule: it deletes what others took", "                if layer.origin is SnapshotOrigin.SCHEDULE\n", ""),
    ),
    *mutants(
        "nbdserver/admin/snapshot_transfer.py",
        "tests/nbdserver/admin/test_snapshot_transfer.py",
        (
            "stream: what it goes on from is not kept",
            "stack.enter_context(store.snapshots.reading(device, since, READER))",
            "next(each for each in store.snapshots.of_device(device) if each.name == since)",
        ),
        (
            "stream: what was zeroed since is left out",
            "                    if base is not None:\n                        yield encoder.zeros(offset, piece)\n",
            "",
        ),
        (
            "stream: what follows its end is passed over",
            "        async for data in parts:\n            decoder.feed(data)\n",
            "",
        ),
    ),
]
