"""Mistakes in what keeps a store small and its manifest right: compaction, the sweep, commits of a manifest."""

from tests.simulation.mutation import Mutation

MAINTENANCE = [
    Mutation(
        "clients get in before the log has what was restored",
        "storage/lsm/engine.py",
        "            if found.beyond:\n                await self.flush()\n",
        "            pass\n",
    ),
    Mutation(
        "take-over manifests are deleted",
        "storage/lsm/manifest/manifest_store.py",
        "        kept = set(self.manifest.takeovers)\n",
        "        kept: set[int] = set()\n",
    ),
    Mutation(
        "the sweep takes objects of any epoch",
        "storage/lsm/gc/sweep.py",
        "sst in self._named or epoch_of(sst) >= self._epoch:\n"
        "                continue\n"
        "            if not self._is_old(info):\n"
        "                found.young.append(info)\n"
        "                continue\n"
        "            try:\n"
        "                number = await acknowledged_by(self._store, sst, self._store_id)\n",
        "sst in self._named:\n"
        "                continue\n"
        "            if not self._is_old(info):\n"
        "                found.young.append(info)\n"
        "                continue\n"
        "            try:\n"
        "                number = min(self._fence, await acknowledged_by(self._store, sst, self._store_id) or 0)\n",
    ),
    Mutation(
        "the sweep forgets the locators of the log",
        "storage/lsm/wiring.py",
        "        named=named_by(manifests, parts.writes.memtable.ssts),\n",
        "        named=named_by(manifests),\n",
    ),
    # Mistakes that were really made, and found by the simulation or beside it.
    Mutation(
        "made: closing cancels a flush under way",
        "storage/lsm/engine.py",
        "        task = self._flushes.start(",
        "        await work()\n        return\n        task = self._flushes.start(",
    ),
    # Checkpoints and maintenance: the rules of `lsm/compaction`, and what a start does with them.
    Mutation(
        "checkpoint: what is listed at its commit counts as merged",
        "storage/format/manifest.py",
        "        ssts=[sst for sst in old.ssts if sst.id not in held],\n",
        "        ssts=[],\n",
    ),
    Mutation(
        "checkpoint: frozen during an install",
        "storage/lsm/compaction/write_checkpoint.py",
        "    async with context.installing:\n",
        "    if True:\n",
    ),
    Mutation(
        "maintenance commits before the tree that the maps show",
        "storage/lsm/compaction/job_context.py",
        "            await self.tree_durable()\n",
        "            pass\n",
    ),
    Mutation(
        "checkpoint: one layer is left out",
        "storage/lsm/compaction/write_checkpoint.py",
        "in sorted(frozen.items()):",
        "in sorted(frozen.items())[: max(len(frozen) - 1, 1)]:",
    ),
    Mutation(
        "checkpoint: the older one is deleted before the commit",
        "storage/lsm/compaction/write_checkpoint.py",
        "        older = manifests.manifest.checkpoint\n",
        "        older = manifests.manifest.checkpoint\n"
        "        if older is not None:\n"
        "            import asyncio\n\n"
        "            context.garbage.add([sst_name(older.id)])\n"
        "            await asyncio.sleep(0.1)\n",
    ),
    Mutation(
        "checkpoint: positions of the older table stay gone",
        "storage/format/manifest.py",
        "        gone=[],\n",
        "        gone=old.gone,\n",
    ),
    Mutation(
        "repack: of SSTs that no checkpoint holds",
        "storage/lsm/compaction/plan.py",
        "    return ssts.merged & (ssts.live > 0) & ~",
        "    return (ssts.live > 0) & ~",
    ),
    Mutation(
        "repack: only whole blocks are copied",
        "storage/lsm/compaction/repack.py",
        "            for ref in some:\n",
        "            for ref in [found for found in some if found.full]:\n",
    ),
    Mutation(
        "repack: only one layer is asked",
        "storage/lsm/compaction/repack.py",
        "    for layer, index in list(indexes.items()):\n        for some",
        "    for layer, index in list(indexes.items())[:1]:\n        for some",
    ),
    Mutation(
        "repack: victims are deleted before the commit",
        "storage/lsm/compaction/repack.py",
        "        manifests, gone = context.manifests, set(ids.values())\n",
        "        manifests, gone = context.manifests, set(ids.values())\n"
        "        context.garbage.add(sst_name(sst) for sst in sorted(gone))\n"
        "        await asyncio.sleep(0.1)\n",
    ),
    Mutation(
        "repack: a victim is deleted while a read waits for it",
        "storage/lsm/compaction/job_context.py",
        "strict=True) if number not in wanted]",
        "strict=True) if wanted is not None]",
    ),
    Mutation(
        "repack: frames that do not open are copied",
        "storage/lsm/compaction/repack.py",
        "    if isinstance(opened, Exception):\n        raise opened\n",
        "",
    ),
    Mutation(
        "drop: of SSTs that no checkpoint holds",
        "storage/lsm/compaction/sst_table.py",
        "        return self.where(self.merged & (self.live == 0))\n",
        "        return self.where(self.live == 0)\n",
    ),
    Mutation(
        "drop: what went before is listed again",
        "storage/format/manifest.py",
        "len(table) + 1), manifest.gone))",
        "len(table) + 1), manifest.gone[1:]))",
    ),
    Mutation(
        "consolidation: with a sequence that is yet to come",
        "storage/lsm/compaction/consolidate.py",
        "index.take(block.block), data, context.cut())",
        "index.take(block.block), data, context.cut() + 1000)",
    ),
    Mutation(
        "consolidation: of what is not flushed yet",
        "storage/lsm/compaction/consolidate.py",
        "assembly.block([], index, block.block, 0, BLOCK_BYTES)",
        "assembly.block(context.layers.by_number[block.layer].memtables, index, block.block, 0, BLOCK_BYTES)",
    ),
    Mutation(
        "defragmentation: a block that was written meanwhile is what it was",
        "storage/lsm/index/block_map.py",
        "        if block not in self._taken:\n            return False\n        self._taken.discard(block)\n",
        "        if block not in self._taken and len(chain) > 1:\n            return False\n",
    ),
    Mutation(
        "a snapshot does not keep what a consolidation replaces, and is moved to",
        "storage/lsm/compaction/consolidate.py",
        "        if not {item.block.layer for _, read in written for item in read} <= context.heads().keys():\n",
        "        if False:\n",
    ),
    Mutation(
        "repack: copies what heads refer to",
        "storage/lsm/compaction/repack.py",
        "        live = await live_frames(context.maps(), ids)\n",
        "        live = await live_frames(context.heads(), ids)\n",
    ),
    Mutation(
        "repack: only heads are pointed to the new places",
        "storage/lsm/compaction/repack.py",
        "_by_page(list(context.maps().values()), copied, step)",
        "_by_page(list(context.heads().values()), copied, step)",
    ),
    Mutation(
        "drop: what only snapshots refer to is not counted",
        "storage/lsm/compaction/census.py",
        "        for part in trunk.maps():\n",
        "        for part in (trunk.flat,):\n",
    ),
    Mutation(
        "drop: counted while flushes hand frames to snapshots",
        "storage/lsm/compaction/store_look.py",
        "        async with context.installing:\n            # As listed",
        "        async with asyncio.Lock():\n            # As listed",
    ),
    Mutation(
        "a flush takes trunks out of the log and does not list what was done to them",
        "storage/format/manifest.py",
        "        operations=[*old.operations, *operations],\n",
        "        operations=old.operations,\n",
    ),
    Mutation(
        "checkpoint: what was done to trunks since its freeze is forgotten",
        "storage/format/manifest.py",
        "        operations=[logged for logged in old.operations if logged.sequence > sequence],\n",
        "        operations=[],\n",
    ),
    Mutation(
        "checkpoint: what it holds is done again to trunks",
        "storage/format/manifest.py",
        "        operations=[logged for logged in old.operations if logged.sequence > sequence],\n",
        "        operations=old.operations,\n",
    ),
    # One object is damaged.
    Mutation(
        "a damaged manifest: the one before counts",
        "storage/lsm/manifest/manifest_store.py",
        "                number, found = await self._read_from("
        "number, listed[number].size if number in listed else None)\n",
        "                try:\n"
        "                    number, found = await self._read_from("
        "number, listed[number].size if number in listed else None)\n"
        "                except Corrupt:\n"
        "                    number -= 1\n"
        "                    found = FoundManifest(EMPTY, NO_LINK)\n"
        "                    if number in listed:\n"
        "                        found = await self.reader().read(number, None)\n",
    ),
    Mutation(
        "a damaged tree counts as none",
        "storage/lsm/recovery/view.py",
        "    async def _read_tree(self) -> bytes | None:\n",
        "    async def _read_tree(self) -> bytes | None:\n"
        "        try:\n"
        "            return await self._read_image()\n"
        "        except Corrupt:\n"
        "            return None\n\n"
        "    async def _read_image(self) -> bytes | None:\n",
    ),
    Mutation(
        "a damaged part of a checkpoint is passed over",
        "storage/lsm/index/load.py",
        '        rows = await env.run("codec", partial(open_part, cipher, name, header, number, part, sealed))\n',
        "        try:\n"
        '            rows = await env.run("codec", partial(open_part, cipher, name, header, number, part, sealed))\n'
        "        except Corrupt:\n"
        "            left[stage] -= 1\n"
        "            if not left[stage]:\n"
        "                done[stage].set()\n"
        "            return room.release()\n",
    ),
    Mutation(
        "what was read ahead is gone on with though the manifest has moved on",
        "storage/lsm/recovery/view.py",
        "        if self._forest is None or known != (\n"
        "            manifest.epoch,\n"
        "            manifest.checkpoint,\n"
        "            manifest.operations,\n"
        "            manifest.ssts[:there],\n"
        "        ):\n",
        "        if self._forest is None or not known:\n",
    ),
]
