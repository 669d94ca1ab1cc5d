"""Mistakes in blocks and layers: the index, SSTs, what is read, snapshots and clones."""

from tests.simulation.mutation import Mutation

BLOCKS = [
    Mutation(
        "what is restored is flushed as if it were in the log",
        "storage/lsm/layer.py",
        "            self.queue.append((sequence, offset, data), write_charge(offset, len(data)))\n"
        "            self.written_bytes += len(data)\n        else:\n",
        "            self._writes.memtable.bytes += write_charge(offset, len(data))\n"
        "            self.queue.holds(sequence)\n        else:\n",
    ),
    Mutation(
        "a locator is logged before its SST is confirmed",
        "storage/lsm/sst/bulk.py",
        "            await self._ssts.upload(sst, content, len(found) * BLOCK_BYTES)\n",
        "            asyncio.get_running_loop().create_task("
        "self._ssts.upload(sst, content, len(found) * BLOCK_BYTES))\n",
    ),
    Mutation(
        "bulk is taken from the memtable when it is encoded, not when it is cut",
        "storage/lsm/sst/bulk.py",
        "        sectors=dict(entry.sectors),\n",
        "        sectors=entry.sectors,\n",
    ),
    Mutation(
        "ranges of zeros are repointed last",
        "storage/lsm/index/install.py",
        "        for each in indexes.values():\n            yield from self._discard_dead(each)\n",
        "        for layer, index in indexes.items():\n"
        "            for span in flushed.ranges.get(layer, ()):\n"
        "                index.zero_range(span.first, span.end, HOLE)\n"
        "        for each in indexes.values():\n            yield from self._discard_dead(each)\n",
    ),
    Mutation(
        "loading lets a range of zeros win over newer entries",
        "storage/lsm/index/build.py",
        "        alive[low:high] &= sequences[low:high] > sequence\n",
        "        alive[low:high] = False\n",
    ),
    Mutation(
        "loading ignores ranges of zeros",
        "storage/lsm/index/build.py",
        "        alive[low:high] &= sequences[low:high] > sequence\n",
        "        alive[low:high] &= sequences[low:high] > 0\n",
    ),
    Mutation(
        "a cut spans two memtables",
        "storage/lsm/layers.py",
        "        self._commit.cut_all()\n        sealed = self._writes.seal()\n",
        "        sealed = self._writes.seal()\n",
    ),
    Mutation(
        "a patch leaves the put-together block as it was",
        "storage/lsm/index/block_map.py",
        "            self.assembled[block] = (key, valid & ~mask)\n",
        "            self.assembled[block] = (key, valid)\n",
    ),
    Mutation(
        "made: what the manifest holds is replayed once more",
        "storage/lsm/recovery/log_replay.py",
        "            if meta.sequence <= self._done:\n                continue\n",
        "",
    ),
    Mutation(
        "made: replayed blocks are taken for new ones",
        "storage/lsm/recovery/log_replay.py",
        "            layer.queue.replayed()\n",
        "            pass\n",
    ),
    Mutation(
        "made: blocks without patches are put together",
        "storage/lsm/layer.py",
        "        if not self.index.is_patched(block):\n            return\n",
        "",
    ),
    Mutation(
        "made: every process begins with an empty tree of its own time",
        "storage/fs/name_tree.py",
        "Namespace.empty(0.0)",
        "Namespace.empty(__import__('time').time())",
    ),
    Mutation(
        "all SSTs of a writer share a nonce",
        "storage/lsm/sst/upload.py",
        "            nonce=self._env.random_bytes(PREFIX_BYTES),\n",
        "            nonce=self._epoch.to_bytes(PREFIX_BYTES, 'big'),\n",
    ),
    Mutation(
        "block status of long ranges does not look into the sealed memtable",
        "storage/lsm/read/extents.py",
        "    return {block >> PAGE_SHIFT for table in tables for block in table.blocks}\n",
        "    return {block >> PAGE_SHIFT for table in tables[:1] for block in table.blocks}\n",
    ),
    Mutation(
        "a pruned chain keeps its last row",
        "storage/lsm/index/patch_table.py",
        "        self.next[kept] = 0\n",
        "",
    ),
    Mutation(
        "a shrink leaves half of what it cuts off",
        "storage/fs/metadata/inode_table.py",
        "ZeroRange(layer.number, layer.size, old.size - layer.size)",
        "ZeroRange(layer.number, layer.size, (old.size - layer.size + 1) // 2)",
    ),
    Mutation(
        "pieces of two generations lie over each other newest first",
        "storage/lsm/read/assemble.py",
        "                for pieces in reversed(generations):\n",
        "                for pieces in generations:\n",
    ),
    Mutation(
        "a damaged frame stops the flush of pieces over it",
        "storage/lsm/sst/fetch.py",
        "                except (Corrupt, Unreadable) as error:\n",
        "                except Unreadable as error:\n",
    ),
    Mutation(
        "a frame that does not open reads as zeros",
        "storage/lsm/sst/ranges.py",
        '        return Corrupt(name, f"{where} fails authentication")\n',
        "        return bytes(256 * 1024) if ref.full else {}\n",
    ),
    Mutation(
        "checkpoint: its pages are written to while they are sealed",
        "storage/lsm/index/lent_pages.py",
        "elif page.freezes or number in self._lent:",
        "elif number in self._lent:",
    ),
    Mutation(
        "checkpoint: a new patch goes into a frozen page",
        "storage/lsm/index/block_map.py",
        "        page = self.writable(block >> PAGE_SHIFT)\n        at = block & PAGE_MASK\n        key, valid",
        "        number = block >> PAGE_SHIFT\n"
        "        page = self.pages.get(number)\n"
        "        page = page if page is not None and page.freezes else self.writable(number)\n"
        "        at = block & PAGE_MASK\n"
        "        key, valid",
    ),
    Mutation(
        "checkpoint: chains newest first",
        "storage/lsm/index/patch_table.py",
        "np.lexsort((-depths, all_blocks))",
        "np.lexsort((depths, all_blocks))",
    ),
    Mutation(
        "checkpoint: allocated zeros are left out",
        "storage/lsm/index/image.py",
        '    if len(zeros["first"]):\n',
        "    if False:\n",
    ),
    Mutation(
        "repack: the places of what was moved are not followed at a start",
        "storage/lsm/index/image.py",
        "            location = np.where(self._old[at] == location, self._new[at], location)\n",
        "",
    ),
    Mutation(
        "repack: only the newest patch is pointed to its new place",
        "storage/lsm/index/patch_table.py",
        "        for row in self.chain(head, block):\n            if self.location[row] == old:\n",
        "        for row in list(self.chain(head, block))[:1]:\n            if self.location[row] == old:\n",
    ),
    Mutation(
        "repack: a block that was written anew is pointed to the copy",
        "storage/lsm/index/block_map.py",
        "        if page.location[at] == old:\n",
        "        if page.location[at] > ALLOCATED:\n",
    ),
    Mutation(
        "consolidation: compares nothing",
        "storage/lsm/index/block_map.py",
        "        if block not in self._taken:\n            return False\n        self._taken.discard(block)\n",
        "        self._taken.discard(block)\n",
    ),
    Mutation(
        "consolidation: replaces what is newer",
        "storage/lsm/index/block_map.py",
        "            above = row\n            below = patches.next[row]\n",
        "            pass\n",
    ),
    Mutation(
        "a start does not put newer zeros over the checkpoint",
        "storage/lsm/index/build.py",
        '        found.zero_range(first, end, ALLOCATED if spans["allocated"][row] else HOLE)\n',
        "",
    ),
    Mutation(
        "a start keeps the checkpoint's patches under newer blocks",
        "storage/lsm/index/block_map.py",
        "        self._forget_chains(number, page, rows.at)\n        page.clear_heads(rows.at)\n",
        "",
    ),
    Mutation(
        "a start takes what is covered for what is missing",
        "storage/lsm/index/image.py",
        "        found.prune(ref.block)\n",
        "        pass\n",
    ),
    # Snapshots, clones and rollbacks.
    Mutation(
        "a snapshot keeps what was replaced last",
        "storage/lsm/index/reverse_delta.py",
        "        if page is not None and page.row(block & PAGE_MASK) >= 0:\n            return\n        standing",
        "        standing",
    ),
    Mutation(
        "a snapshot keeps bases and no patches",
        "storage/lsm/index/reverse_delta.py",
        "        head = self.patches.copy_chain(source.patches, standing.head, block)\n",
        "        head = 0\n",
    ),
    Mutation(
        "a snapshot does not keep what is discarded",
        "storage/lsm/index/block_map.py",
        "                self.below.record_rows(n, (page or Page()).rows(np.arange(low, high)), self.patches)\n",
        "                pass\n",
    ),
    Mutation(
        "a snapshot is looked for in the head alone",
        "storage/lsm/index/trunk.py",
        "        for delta in self.deltas[at:]:\n            if delta.holds(block):\n",
        "        for delta in self.deltas[at : at + 1]:\n            if delta.holds(block):\n",
    ),
    Mutation(
        "a rollback keeps nothing of what it replaces for newer snapshots",
        "storage/lsm/index/forest.py",
        "        flat, head = trunk.flat, trunk.head\n",
        "        flat, head = trunk.flat, trunk.head\n        flat.below = None\n",
    ),
    Mutation(
        "a snapshot that is deleted hands nothing down",
        "storage/lsm/index/forest.py",
        "                trunk.deltas[at - 1].record_rows(number, gone.pages[number].rows(), gone.patches)\n",
        "",
    ),
    Mutation(
        "a clone begins with what the head shows",
        "storage/lsm/index/forest.py",
        "            put_rows(flat, number, trunk.rows_held(at, number))\n",
        "",
    ),
    Mutation(
        "a clone writes to the pages of its origin",
        "storage/lsm/index/lent_pages.py",
        "elif page.freezes or number in self._lent:",
        "elif page.freezes:",
    ),
    Mutation(
        "the head does not show what was written before its snapshot and is not flushed",
        "storage/lsm/layer.py",
        "        inherited = self.inherited if any(self.inherited) else []\n",
        "        inherited: list[LayerTable] = []\n",
    ),
    Mutation(
        "a start leaves out the rows of layers that live no more",
        "storage/lsm/index/build.py",
        "        for layer in sorted(forest.maps().keys() - there):\n",
        "        gone = {getattr(one, 'snapshot', 0) or getattr(one, 'head', 0) for one in operations}\n"
        "        for layer in sorted(forest.maps().keys() - there - gone):\n",
    ),
]
