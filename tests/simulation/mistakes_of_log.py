"""Mistakes in the log, from a queue to a start that replays it: journal, groups, fences, flushes, take-over."""

from tests.simulation.mutation import Mutation

LOG = [
    # What a client that comes back is told.
    Mutation(
        "a client is told that nothing is lost, where there was no journal to prove it",
        "storage/lsm/recovery/take_over.py",
        "(carried is not None and carried.found))\n",
        "carried is not None)\n",
    ),
    Mutation(
        "a journal that does not check out is no loss",
        "storage/lsm/recovery/journal_replay.py",
        "            lineage = manifests.manifest.lineage[-1:]\n",
        "            lineage = manifests.manifest.lineage\n",
    ),
    Mutation(
        "a journal that ended for want of room passes for whole",
        "storage/journal/journal.py",
        "        for step in (partial(self._unname, place), place.files.end):\n",
        "        for step in (place.files.end,):\n",
    ),
    Mutation(
        "a client is told of a loss at every start",
        "storage/lsm/recovery/take_over.py",
        "            lineage=next_lineage(old.lineage if nothing_lost else [], incarnation),\n",
        "            lineage=next_lineage([], incarnation),\n",
    ),
    # The journal in memory.
    Mutation(
        "a reply goes out before the journal has its write",
        "storage/journal/journal.py",
        "        place = self._place\n        self._all_logged",
        "        place = self._place\n        if self.on and len(pending) < 2:\n            return\n"
        "        self._all_logged",
    ),
    Mutation(
        "a segment of the journal goes when one of its queues is in the log",
        "storage/journal/journal.py",
        "        return all(queue.acked_sequence >= sequence for queue, sequence in self.newest.items())\n",
        "        return any(queue.acked_sequence >= sequence for queue, sequence in self.newest.items())\n",
    ),
    Mutation(
        "a segment of the journal goes when the log was sent what it holds",
        "storage/journal/journal.py",
        "        return all(queue.acked_sequence >= sequence for queue, sequence in self.newest.items())\n",
        "        return all(queue.cut_sequence >= sequence for queue, sequence in self.newest.items())\n",
    ),
    Mutation(
        "the journal is taken from below the end of the log",
        "storage/journal/unlogged.py",
        "        if sequence > have:\n            if entry.previous > have:\n",
        "        if sequence > 0:\n            if entry.previous > have:\n",
    ),
    Mutation(
        "what the log holds is judged by its end, not by that of each queue",
        "storage/lsm/recovery/journal_replay.py",
        "    return None if queue is None else max(queue.last_sequence, queue.made)\n",
        "    return None if queue is None else max(each.last_sequence for each in layers.queues())\n",
    ),
    Mutation(
        "a journal of the epoch before the last one is taken too",
        "storage/lsm/recovery/carried.py",
        "    known = host.journal_of(manifests.manifest.epoch, manifests.tag)\n",
        "    epoch = manifests.manifest.epoch\n"
        "    known = host.journal_of(epoch, manifests.tag) or host.journal_of(epoch - 1, manifests.tag)\n",
    ),
    Mutation(
        "the lock does not name the journal before the take-over",
        "storage/lsm/recovery/take_over.py",
        "                named = None if carried is None else carried.id\n",
        "                named = carried.id if carried is not None and not carried.found else None\n",
    ),
    # The commit protocol, after `model/run.py`.
    Mutation(
        "the log goes on right behind a fence",
        "storage/lsm/wal/reader.py",
        "RESUME = WINDOW\n",
        "RESUME = 1\n",
    ),
    Mutation(
        "no fence object, only the take-over manifest",
        "storage/lsm/wal/fence.py",
        "                await create_once("
        "self.store, wal_name(number), content, on_gone=self.manifests.look_for_newer)\n",
        "                pass\n",
    ),
    Mutation(
        "fence above everything in the log instead of in the first gap",
        "storage/lsm/wal/fence.py",
        "            number = replay.end\n",
        "            from storage.bucket.listing import list_log\n"
        "            names = await list_log(self.store)\n"
        "            number = replay.end = max([replay.end, *(n + 1 for n in names)])\n",
    ),
    Mutation(
        "fences are deleted with the log they end",
        "storage/lsm/flush/flush.py",
        "        self._garbage.add(wal_name(number) for number in numbers)\n",
        "        numbers += [fence for fence in self._log.position.fences if fence < replay]\n"
        "        self._garbage.add(wal_name(number) for number in numbers)\n",
    ),
    Mutation(
        "the log is read before the take-over manifest is committed",
        "storage/lsm/recovery/take_over.py",
        "        claim = await self._take_over(manifests, view, terms)\n"
        "        try:\n"
        "            epoch = manifests.manifest.epoch\n"
        "            replay = await log.read_to_gap()\n",
        "        replay = await log.read_to_gap()\n"
        "        claim = await self._take_over(manifests, view, terms)\n"
        "        try:\n"
        "            epoch = manifests.manifest.epoch\n",
    ),
    Mutation(
        "a reader does not look for a newer manifest behind the log",
        "storage/lsm/recovery/take_over.py",
        "                if reader:\n                    await manifests.look_for_newer()\n",
        "",
    ),
    Mutation(
        "acknowledged out of number order",
        "storage/lsm/wal/log_writer.py",
        "        while self._in_flight and self._in_flight[0].landed:\n            batch = self._in_flight.popleft()\n",
        "        for batch in [batch for batch in self._in_flight if batch.landed]:\n"
        "            self._in_flight.remove(batch)\n",
    ),
    Mutation(
        "a taken name counts as success",
        "storage/bucket/create_once.py",
        "        if not same:\n",
        "        if False:\n",
    ),
    Mutation(
        "replay jumps over a gap",
        "storage/lsm/wal/reader.py",
        "            if replay.end in wanted or not await self._load(replay.end):\n                break\n",
        "            if replay.end in wanted or not await self._load(replay.end):\n"
        "                later = [n for n in listed if n > replay.end]\n"
        "                if not later:\n"
        "                    break\n"
        "                await self._load(min(later))\n"
        "                if min(later) not in self._read:\n"
        "                    break\n"
        "                replay.end, replay.tag = min(later), self._read[min(later)].header.link\n",
    ),
    Mutation(
        "the old log is deleted before the manifest is committed",
        "storage/lsm/flush/flush.py",
        "            await self._manifests.commit(manifest)\n",
        "            await self._truncate(replay)\n            await self._manifests.commit(manifest)\n",
    ),
    Mutation(
        "a take-over that loses does not read the winner's manifest",
        "storage/lsm/recovery/take_over.py",
        "            await manifests.read_newest()\n        if withheld:",
        "            manifests.number += 1\n        if withheld:",
    ),
    Mutation(
        "a flush does not list the SSTs of its locators",
        "storage/lsm/flush/flush.py",
        "ssts = sealed.ssts + written.ssts\n",
        "ssts = written.ssts\n",
    ),
    Mutation(
        "a flush moves the replay point one too far",
        "storage/lsm/flush/flush.py",
        "        replay = sealed.first_beyond or position.next_number\n",
        "        replay = (sealed.first_beyond + 1) if sealed.first_beyond else position.next_number\n",
    ),
    Mutation(
        "a flush does not wait for the log",
        "storage/lsm/flush/flush.py",
        "            await self._durable(queue, sequence)\n        living",
        "            pass\n        living",
    ),
    # Ours: group commit, memtable and index.
    Mutation(
        "a flush is answered when its batch is sent",
        "storage/lsm/wal/log_writer.py",
        "        content = await self._sealer.seal(batch)\n",
        "        content = await self._sealer.seal(batch)\n        batch.landed = True\n        self._acknowledge()\n",
    ),
    Mutation(
        "waiters of operations still queued are answered too",
        "storage/lsm/wal/log_writer.py",
        "                cut.queue.acknowledge(cut.last_sequence)\n",
        "                cut.queue.acknowledge(cut.queue.last_sequence)\n",
    ),
    Mutation(
        "an uploaded frame replaces newer bytes",
        "storage/lsm/wal/locate.py",
        "        if entry.sequence != block.sequence:\n            entry.own()\n            continue\n",
        "",
    ),
    Mutation(
        "a trimmed block comes back with its upload",
        "storage/lsm/wal/locate.py",
        "        if table.blocks.get(block.block) is not entry:\n            continue\n",
        "        entry = table.entry(block.block) if block.block not in table.blocks else entry\n"
        "        if table.blocks.get(block.block) is not entry or entry.sequence not in (0, block.sequence):\n"
        "            continue\n"
        "        entry.sequence = block.sequence\n",
    ),
    Mutation(
        "small writes beside bulk do not reach the log",
        "storage/lsm/wal/queue.py",
        "            rest = without_blocks(ops, {block.block for block in blocks})\n",
        "            rest = [op for op in ops if isinstance(op, Meta)]\n",
    ),
    Mutation(
        "adjacent spans of zeros swallow a write in between",
        "storage/lsm/memtable/memtable.py",
        "if old.content == new.content and old.sequence > newest_write:",
        "if old.content == new.content:",
    ),
    Mutation(
        "the memtable goes before the index points to what it held",
        "storage/lsm/flush/flush.py",
        "            for indexes in layers.installing(sealed):\n",
        "            tables = [layer.own_memtables for layer in layers.by_number.values()]\n"
        "            for own in tables:\n                del own[1:]\n"
        "            for layer in layers.by_number.values():\n                layer.show_memtables()\n"
        "            for indexes in layers.installing(sealed):\n",
    ),
    Mutation(
        "sectors written in part are completed with zeros",
        "storage/lsm/flush/complete.py",
        "    return assembly.block(tables, layer.index,",
        "    return assembly.block(tables, type(layer.index)(),",
    ),
    Mutation(
        "the tree is written as it is at the end of a flush",
        "storage/lsm/flush/flush.py",
        "None if sealed.tree is None else await self._ssts.write_tree(sealed.tree)",
        "None if sealed.tree is None else await self._ssts.write_tree(layers.tree.encode())",
    ),
    Mutation(
        "made: the tag of what was truncated is forgotten",
        "storage/lsm/wal/position.py",
        "            self.truncated = logged\n",
        "",
    ),
    # Mistakes of other hands, which the simulation or the tests once missed.
    Mutation(
        "all objects of the log share a nonce",
        "storage/lsm/wal/log_writer.py",
        "                nonce=self._env.random_bytes(PREFIX_BYTES),\n",
        "                nonce=self._epoch.to_bytes(PREFIX_BYTES),\n",
    ),
    Mutation(
        "sectors are completed from the active memtable",
        "storage/lsm/flush/complete.py",
        "    return assembly.block(tables, layer.index,",
        "    return assembly.block(layer.memtables, layer.index,",
    ),
    Mutation(
        "a discard reaches to the ends of its blocks",
        "storage/lsm/memtable/link.py",
        "        first_whole, end_whole = -(-offset >> BLOCK_SHIFT), end >> BLOCK_SHIFT\n",
        "        first_whole, end_whole = offset >> BLOCK_SHIFT, -(-end >> BLOCK_SHIFT)\n",
    ),
    Mutation(
        "a trimmed block stays whole",
        "storage/lsm/memtable/link.py",
        "        entry.fresh = 0\n        self.newest_write = sequence\n        if count",
        "        self.newest_write = sequence\n        if count",
    ),
    Mutation(
        "pieces over a damaged frame lie on zeros",
        "storage/lsm/flush/complete.py",
        "    if assembly.missing:\n        return False\n    (piece,) = pieces\n",
        "    (piece,) = pieces or (SECTOR_BYTES,)\n",
    ),
    Mutation(
        "checkpoint: the sweep does not know its table",
        "storage/lsm/recovery/completeness.py",
        "NamedSsts.of(manifests.listed(), others)",
        "NamedSsts.of(manifests.listed()[:0], [*manifest.ssts, *others])",
    ),
    Mutation(
        "repack: at a start its entries count as new",
        "storage/lsm/recovery/view.py",
        "for number, index in stored.indexes if not index.victims]",
        "for number, index in stored.indexes]",
    ),
    Mutation(
        "a start does not put newer rows over the checkpoint",
        "storage/lsm/recovery/view.py",
        "rebuild, stored.forest, written, operations)",
        "rebuild, stored.forest, [], operations)",
    ),
    Mutation(
        "the log names SSTs without a sequence",
        "storage/format/wal.py",
        "pack(RecordType.TABLE, 0, layer, records.sequence, 0, 0)",
        "pack(RecordType.TABLE, 0, layer, 0, 0, 0)",
    ),
    # One object is damaged, or cannot be read.
    Mutation(
        "a damaged object of the log is taken for its end",
        "storage/lsm/wal/reader.py",
        "        except NotFound:\n            return False\n        return True\n",
        "        except (NotFound, Corrupt):\n            return False\n        return True\n",
    ),
    Mutation(
        "an object of the log that cannot be read is taken for its end",
        "storage/lsm/wal/reader.py",
        "        except NotFound:\n            return False\n        return True\n",
        "        except (NotFound, Unavailable):\n            return False\n        return True\n",
    ),
]
