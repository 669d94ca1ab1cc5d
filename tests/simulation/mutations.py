"""Mistakes planted in the real code, to see that the simulation finds them.

    python -m tests.simulation.mutations [PART OF A NAME] [--worlds N | --fixed]

Each is a replacement of one piece of text in one file, applied to a copy of the engine in a temporary folder; worlds
are run on that copy until one breaks. A mistake that is not found says that the simulation is too weak. (Mistakes that
are without effect on safety are not listed: `MISSED` would be right for them, and proves nothing.)
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.fixed import FIXED

ROOT = Path(__file__).parents[2]

WORLDS_MAX = 400
"""Worlds after which a mistake counts as missed."""


@dataclass(frozen=True)
class Mutation:
    """`old` is replaced by `new` in `file`, where it must stand exactly once."""

    name: str
    file: str
    old: str
    new: str


def mutated(mutation: Mutation) -> str:
    """The text of the file with the mistake in it; ValueError if the text to replace is not there (once)."""
    text = (ROOT / mutation.file).read_text()
    count = text.count(mutation.old)
    if count != 1:
        raise ValueError(f"{mutation.name}: its text stands {count} times in {mutation.file}")
    return text.replace(mutation.old, mutation.new)


def apply(mutation: Mutation, folder: Path) -> None:
    """Write a copy of the engine with the mistake, and of the simulation, into `folder`."""
    text = mutated(mutation)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "storage", folder / "storage", ignore=ignore)
    shutil.copytree(ROOT / "tests" / "simulation", folder / "tests" / "simulation", ignore=ignore)
    shutil.copytree(ROOT / "tests" / "support", folder / "tests" / "support", ignore=ignore)
    (folder / "tests" / "__init__.py").touch()
    (folder / mutation.file).write_text(text)


@dataclass(frozen=True)
class Finding:
    """What became of a mistake: the seed and message of the first world that broke, if one did."""

    mutation: Mutation
    worlds: int
    seconds: float
    seed: int | None
    message: str


def hunt(mutation: Mutation, *, worlds: int = WORLDS_MAX, first: int = 0, fixed: bool = False) -> Finding:
    """Run worlds on a copy with the mistake until one breaks: those from `first` on, or the `fixed` ones."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nbd-mutation-") as folder:
        apply(mutation, Path(folder))
        which = ["--fixed"] if fixed else ["--seeds", str(worlds), "--first", str(first)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation.run", *which, "--workers", "1", "--stop"],
            cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    seconds = time.monotonic() - started
    found = re.search(r"^seed (\d+): (.*)$", done.stdout, re.MULTILINE)
    if found is not None:
        seed = int(found[1])
        last = [line for line in done.stdout.splitlines() if re.match(r"\w*(Error|Exception)\b", line)]
        message = f"{found[2][:150]} {last[-1] if last else ''}".strip()
        return Finding(mutation, FIXED.index(seed) + 1 if fixed else seed - first + 1, seconds, seed, message)
    if done.returncode:
        raise RuntimeError(f"{mutation.name}: the worlds did not run: {done.stderr[-2000:]}")
    return Finding(mutation, len(FIXED) if fixed else worlds, seconds, None, "")


MUTATIONS = [
    # What a client that comes back is told.
    Mutation(
        "a client is told that nothing is lost, where there was no journal to prove it",
        "storage/lsm/recovery/take_over.py",
        "(carried is not None and carried.found))\n",
        "carried is not None)\n",
    ),
    Mutation(
        "a journal that does not check out is no loss",
        "storage/lsm/restoring.py",
        "            lineage = manifests.manifest.lineage[-1:]\n",
        "            lineage = manifests.manifest.lineage\n",
    ),
    Mutation(
        "a journal that ended for want of room passes for whole",
        "storage/lsm/journal/journal.py",
        "else (partial(place.name, None), place.files.end):\n",
        "else (place.files.end,):\n",
    ),
    Mutation(
        "a client is told of a loss at every start",
        "storage/lsm/recovery/take_over.py",
        "        lineage = old.lineage[-LINEAGE_MAX + 1 :] if nothing_lost else []\n",
        "        lineage = list[bytes]()\n",
    ),
    # The journal in memory.
    Mutation(
        "a reply goes out before the journal has its write",
        "storage/lsm/journal/journal.py",
        "        place = self._place\n        if not self.on or place is None:\n            pending.clear()\n",
        "        place = self._place\n        if self.on and len(pending) < 2:\n            return\n"
        "        if not self.on or place is None:\n            pending.clear()\n",
    ),
    Mutation(
        "a segment of the journal goes when one of its queues is in the log",
        "storage/lsm/journal/journal.py",
        "        return all(queue.acked_sequence >= sequence for queue, sequence in self.newest.items())\n",
        "        return any(queue.acked_sequence >= sequence for queue, sequence in self.newest.items())\n",
    ),
    Mutation(
        "a segment of the journal goes when the log was sent what it holds",
        "storage/lsm/journal/journal.py",
        "        return all(queue.acked_sequence >= sequence for queue, sequence in self.newest.items())\n",
        "        return all(queue.cut_sequence >= sequence for queue, sequence in self.newest.items())\n",
    ),
    Mutation(
        "the journal is taken from below the end of the log",
        "storage/lsm/journal/restore.py",
        "        if sequence > have:\n            if entry.previous > have:\n",
        "        if sequence > 0:\n            if entry.previous > have:\n",
    ),
    Mutation(
        "what the log holds is judged by its end, not by that of each queue",
        "storage/lsm/restoring.py",
        "    return None if queue is None else max(queue.last_sequence, queue.made)\n",
        "    return None if queue is None else max(each.last_sequence for each in layers.queues())\n",
    ),
    Mutation(
        "a journal of the epoch before the last one is taken too",
        "storage/lsm/recovery/take_over.py",
        "        known = host.journal_of(manifests.manifest.epoch, manifests.tag)\n",
        "        epoch = manifests.manifest.epoch\n"
        "        known = host.journal_of(epoch, manifests.tag) or host.journal_of(epoch - 1, manifests.tag)\n",
    ),
    Mutation(
        "the lock does not name the journal before the take-over",
        "storage/lsm/recovery/take_over.py",
        "                named = None if carried is None else carried.id\n",
        "                named = carried.id if carried is not None and not carried.found else None\n",
    ),
    Mutation(
        "clients get in before the log has what was restored",
        "storage/lsm/engine.py",
        "            if found.beyond:\n                await self.flush()\n",
        "            pass\n",
    ),
    Mutation(
        "what is restored is flushed as if it were in the log",
        "storage/lsm/layer.py",
        "            self.queue.append((sequence, offset, data), write_charge(offset, len(data)))\n"
        "            self.written_bytes += len(data)\n        else:\n",
        "            self._writes.memtable.bytes += write_charge(offset, len(data))\n"
        "            self.queue.holds(sequence)\n        else:\n",
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
        "storage/lsm/wal/reader.py",
        "                await create_once("
        "self._store, wal_name(number), content, on_gone=self._manifests.look_for_newer)\n",
        "                pass\n",
    ),
    Mutation(
        "fence above everything in the log instead of in the first gap",
        "storage/lsm/wal/reader.py",
        "            number = replay.end\n",
        "            names = await list_log(self._store)\n"
        "            number = replay.end = max([replay.end, *(n + 1 for n in names)])\n",
    ),
    Mutation(
        "fences are deleted with the log they end",
        "storage/lsm/flush/flush.py",
        "        self._garbage.add(wal_name(number) for number in numbers)\n",
        "        numbers += [fence for fence in self._commit.position.fences if fence < replay]\n"
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
        "no look before the fence",
        "storage/lsm/recovery/take_over.py",
        "            await manifests.look_for_newer()\n            replay = await log.put_fence",
        "            replay = await log.put_fence",
    ),
    Mutation(
        "no last look at the end of opening",
        "storage/lsm/recovery/take_over.py",
        "                view = await self._load(manifests, ciphers, replay, tree)\n"
        "            await manifests.look_for_newer()\n"
        "        except BaseException:\n",
        "                view = await self._load(manifests, ciphers, replay, tree)\n        except BaseException:\n",
    ),
    Mutation(
        "a reader does not look for a newer manifest at the end",
        "storage/lsm/recovery/take_over.py",
        "                await manifests.look_for_newer()\n                return view\n",
        "                return view\n",
    ),
    Mutation(
        "acknowledged out of number order",
        "storage/lsm/wal/group_commit.py",
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
        "            await manifests.read_newest()\n        raise Fenced(",
        "            manifests.number += 1\n        raise Fenced(",
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
        "        named=named_by(manifests).keys() | {sst.id for sst in parts.writes.memtable.ssts},\n",
        "        named=named_by(manifests).keys(),\n",
    ),
    Mutation(
        "a locator is logged before its SST is confirmed",
        "storage/lsm/sst/bulk.py",
        "            await self._ssts.upload(sst, content, len(found) * BLOCK_BYTES)\n",
        "            asyncio.get_running_loop().create_task("
        "self._ssts.upload(sst, content, len(found) * BLOCK_BYTES))\n",
    ),
    Mutation(
        "a flush does not list the SSTs of its locators",
        "storage/lsm/flush/flush.py",
        "ssts = sealed.ssts + [item.sst for item in written]\n",
        "ssts = [item.sst for item in written]\n",
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
        "storage/lsm/wal/group_commit.py",
        "        batch.size = len(content)\n        started",
        "        batch.size = len(content)\n        batch.landed = True\n        self._acknowledge()\n        started",
    ),
    Mutation(
        "waiters of operations still queued are answered too",
        "storage/lsm/wal/group_commit.py",
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
        "bulk is taken from the memtable when it is encoded, not when it is cut",
        "storage/lsm/sst/bulk.py",
        "        sectors=dict(entry.sectors),\n",
        "        sectors=entry.sectors,\n",
    ),
    Mutation(
        "small writes beside bulk do not reach the log",
        "storage/lsm/wal/queue.py",
        "            rest = without_blocks(ops, {block.block for block in blocks})\n",
        "            rest = [op for op in ops if isinstance(op, Meta)]\n",
    ),
    Mutation(
        "ranges of zeros are repointed last",
        "storage/lsm/index/install.py",
        "        for each in indexes.values():\n            self._discard_dead(each)\n",
        "        for span in ranges:\n"
        "            if span.layer in indexes:\n"
        "                indexes[span.layer].zero_range(span.first, span.end, HOLE)\n"
        "        for each in indexes.values():\n            self._discard_dead(each)\n",
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
        "adjacent spans of zeros swallow a write in between",
        "storage/lsm/memtable/memtable.py",
        "if old.content == new.content and old.sequence > newest_write:",
        "if old.content == new.content:",
    ),
    Mutation(
        "the memtable goes before the index points to what it held",
        "storage/lsm/flush/flush.py",
        "            for indexes in layers.installing(sealed):\n",
        "            tables = [layer.own_tables for layer in layers.by_number.values()]\n"
        "            for own in tables:\n                del own[1:]\n"
        "            for layer in layers.by_number.values():\n                layer.show_tables()\n"
        "            for indexes in layers.installing(sealed):\n",
    ),
    Mutation(
        "sectors written in part are completed with zeros",
        "storage/lsm/flush/complete.py",
        "    return assembly.block(tables, layer.index,",
        "    return assembly.block(tables, type(layer.index)(),",
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
        "the tree is written as it is at the end of a flush",
        "storage/lsm/flush/flush.py",
        "None if sealed.tree is None else await self._ssts.write_tree(sealed.tree)",
        "None if sealed.tree is None else await self._ssts.write_tree(layers.tree.encode())",
    ),
    # Mistakes that were really made, and found by the simulation or beside it.
    Mutation(
        "made: closing cancels a flush under way",
        "storage/lsm/engine.py",
        "        task = self._flushes.start(",
        "        await flush()\n        return\n        task = self._flushes.start(",
    ),
    Mutation(
        "made: what the manifest holds is replayed once more",
        "storage/lsm/layers.py",
        "            if meta.sequence <= done:\n                continue\n",
        "",
    ),
    Mutation(
        "made: the tag of what was truncated is forgotten",
        "storage/lsm/wal/position.py",
        "            self.truncated = logged\n",
        "",
    ),
    Mutation(
        "made: replayed blocks are taken for new ones",
        "storage/lsm/layers.py",
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
    # Mistakes of other hands, which the simulation or the tests once missed.
    Mutation(
        "a flush does not wait until the drop of a layer is durable",
        "storage/lsm/flush/flush.py",
        "        if sealed.layers.keys() - living.keys():\n",
        "        if False:\n",
    ),
    Mutation(
        "all objects of the log share a nonce",
        "storage/lsm/wal/group_commit.py",
        "            nonce=self._env.random_bytes(PREFIX_BYTES),\n",
        "            nonce=self._epoch.to_bytes(PREFIX_BYTES),\n",
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
        "storage/fs/inode_table.py",
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
        "sectors are completed from the active memtable",
        "storage/lsm/flush/complete.py",
        "    return assembly.block(tables, layer.index,",
        "    return assembly.block(layer.tables, layer.index,",
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
        "a damaged frame stops the flush of pieces over it",
        "storage/lsm/sst/fetch.py",
        "                except (Corrupt, Unreadable) as error:\n",
        "                except Unreadable as error:\n",
    ),
    Mutation(
        "pieces over a damaged frame lie on zeros",
        "storage/lsm/flush/complete.py",
        "    if assembly.missing:\n        return False\n    (piece,) = pieces\n",
        "    (piece,) = pieces or (SECTOR_BYTES,)\n",
    ),
    Mutation(
        "a frame that does not open reads as zeros",
        "storage/lsm/sst/ranges.py",
        '        return Corrupt(name, f"{where} fails authentication")\n',
        "        return bytes(256 * 1024) if ref.full else {}\n",
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
        "    async with its.installing:\n",
        "    if True:\n",
    ),
    Mutation(
        "checkpoint: its pages are written to while they are sealed",
        "storage/lsm/index/block_map.py",
        "elif number in self._shared or number in self._lent:",
        "elif number in self._lent:",
    ),
    Mutation(
        "checkpoint: a new patch goes into a frozen page",
        "storage/lsm/index/block_map.py",
        "        page = self.writable(block >> PAGE_SHIFT)\n        at = block & PAGE_MASK\n        key, valid",
        "        number = block >> PAGE_SHIFT\n"
        "        page = self.pages[number] if number in self._shared else self.writable(number)\n"
        "        at = block & PAGE_MASK\n"
        "        key, valid",
    ),
    Mutation(
        "maintenance commits before the tree that the maps show",
        "storage/lsm/compaction/job_context.py",
        "        await self.settled()\n\n",
        "",
    ),
    Mutation(
        "checkpoint: one layer is left out",
        "storage/lsm/compaction/write_checkpoint.py",
        "in sorted(frozen.items()):",
        "in sorted(frozen.items())[: max(len(frozen) - 1, 1)]:",
    ),
    Mutation(
        "checkpoint: chains newest first",
        "storage/lsm/index/image.py",
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
        "checkpoint: the older one is deleted before the commit",
        "storage/lsm/compaction/write_checkpoint.py",
        "        older = manifests.manifest.checkpoint\n",
        "        older = manifests.manifest.checkpoint\n"
        "        if older is not None:\n"
        "            await its.store.delete([sst_name(older.id)])\n",
    ),
    Mutation(
        "checkpoint: positions of the older table stay gone",
        "storage/format/manifest.py",
        "        gone=[],\n",
        "        gone=old.gone,\n",
    ),
    Mutation(
        "checkpoint: the sweep does not know its table",
        "storage/lsm/recovery/completeness.py",
        "[*(sst for sst, _ in manifests.listed()), *others]",
        "[*manifest.ssts, *others]",
    ),
    Mutation(
        "repack: the places of what was moved are not followed at a start",
        "storage/lsm/index/image.py",
        "            location = np.where(self._old[at] == location, self._new[at], location)\n",
        "",
    ),
    Mutation(
        "repack: at a start its entries count as new",
        "storage/lsm/recovery/view.py",
        "for number, index in numbered if not index.victims]",
        "for number, index in numbered]",
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
        "repack: victims are deleted before the commit",
        "storage/lsm/compaction/repack.py",
        "        manifests, gone = its.manifests, set(ids.values())\n",
        "        manifests, gone = its.manifests, set(ids.values())\n"
        "        its.garbage.add(sst_name(sst) for sst in sorted(gone))\n"
        "        await asyncio.sleep(0.1)\n",
    ),
    Mutation(
        "repack: a victim is deleted while a read waits for it",
        "storage/lsm/compaction/job_context.py",
        "if self.sst_numbers.number(sst) not in wanted}",
        "if wanted is not None}",
    ),
    Mutation(
        "repack: frames that do not open are copied",
        "storage/lsm/compaction/repack.py",
        "    if isinstance(opened, Exception):\n        raise opened\n",
        "",
    ),
    Mutation(
        "drop: of SSTs that no checkpoint holds",
        "storage/lsm/compaction/plan.py",
        "    dropped = snapshot.ssts.merged & (snapshot.ssts.live == 0)\n",
        "    dropped = snapshot.ssts.live == 0\n",
    ),
    Mutation(
        "drop: what went before is listed again",
        "storage/format/manifest.py",
        "    gone = set(manifest.gone)\n",
        "    gone = set(manifest.gone[1:])\n",
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
        "consolidation: with a sequence that is yet to come",
        "storage/lsm/compaction/consolidate.py",
        "index.take(block.block), data, its.cut())",
        "index.take(block.block), data, its.cut() + 1000)",
    ),
    Mutation(
        "consolidation: zeros that look like those it was made of are taken for them",
        "storage/lsm/index/block_map.py",
        " for found in chain[:-1]} - {HOLE, ALLOCATED}\n",
        " for found in chain[:-1]}\n",
    ),
    Mutation(
        "consolidation: of what is not flushed yet",
        "storage/lsm/compaction/consolidate.py",
        "assembly.block([], index, block.block, 0, BLOCK_BYTES)",
        "assembly.block(its.layers.by_number[block.layer].tables, index, block.block, 0, BLOCK_BYTES)",
    ),
    Mutation(
        "a start does not put newer rows over the checkpoint",
        "storage/lsm/recovery/view.py",
        "rebuild, forest, written, operations)",
        "rebuild, forest, [], operations)",
    ),
    Mutation(
        "a start does not put newer zeros over the checkpoint",
        "storage/lsm/index/build.py",
        '        found.zero_range(first, end, ALLOCATED if spans["allocated"][row] else HOLE)\n',
        "",
    ),
    Mutation(
        "a start keeps the checkpoint's patches under newer blocks",
        "storage/lsm/index/bulk_load.py",
        "            index.forget_patches(block)\n",
        "            pass\n",
    ),
    Mutation(
        "a start takes what is covered for what is missing",
        "storage/lsm/index/image.py",
        "        found.prune(ref.block)\n",
        "        pass\n",
    ),
    Mutation(
        "the log names SSTs without a sequence",
        "storage/format/wal.py",
        "pack(RecordType.TABLE, 0, layer, records.sequence, 0, 0)",
        "pack(RecordType.TABLE, 0, layer, 0, 0, 0)",
    ),
    # Snapshots, clones and rollbacks.
    Mutation(
        "a snapshot keeps what was replaced last",
        "storage/lsm/index/reverse_delta.py",
        "        if page is not None and page.row(block & PAGE_MASK) >= 0:\n            return\n        its = source",
        "        its = source",
    ),
    Mutation(
        "a snapshot keeps bases and no patches",
        "storage/lsm/index/reverse_delta.py",
        "        head = self.patches.copy_chain(source.patches, its.head, block)\n",
        "        head = 0\n",
    ),
    Mutation(
        "a snapshot does not keep what is discarded",
        "storage/lsm/index/block_map.py",
        "                self.below.record_range(n, page, low, high, self)\n",
        "                pass\n",
    ),
    Mutation(
        "a snapshot does not keep what a consolidation replaces, and is moved to",
        "storage/lsm/compaction/consolidate.py",
        "        if not {item.block.layer for _, read in written for item in read} <= its.heads().keys():\n",
        "        if False:\n",
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
        "a rollback keeps the writes of the head that goes",
        "storage/lsm/layers.py",
        "                device = layers.pop(head)\n                self._forget(head)\n"
        "                device.move_on(child, sequence)\n"
        "                device.inherit(layers[snapshot])\n",
        "                device = layers.pop(head)\n"
        "                tables = device.own_tables\n"
        "                device.move_on(child, sequence)\n"
        "                device.inherit(layers[snapshot])\n"
        "                device.inherited = tables\n"
        "                device.show_tables()\n",
    ),
    Mutation(
        "a snapshot that is deleted hands nothing down",
        "storage/lsm/index/forest.py",
        "                    trunk.deltas[at - 1].record(block, gone)\n",
        "                    pass\n",
    ),
    Mutation(
        "a clone begins with what the head shows",
        "storage/lsm/index/forest.py",
        "            if holder is not trunk.flat:\n                flat.replace(block, holder)\n",
        "            pass\n",
    ),
    Mutation(
        "a clone writes to the pages of its origin",
        "storage/lsm/index/block_map.py",
        "elif number in self._shared or number in self._lent:",
        "elif number in self._shared:",
    ),
    Mutation(
        "the head does not show what was written before its snapshot and is not flushed",
        "storage/lsm/layer.py",
        "        inherited = self.inherited if any(self.inherited) else []\n",
        "        inherited: list[LayerTable] = []\n",
    ),
    Mutation(
        "what is written after a snapshot may be in the log before it",
        "storage/lsm/wal/group_commit.py",
        "sorted(self._dirty, key=lambda queue: queue.layer != TREE)",
        "sorted(self._dirty, key=lambda queue: queue.layer == TREE)",
    ),
    Mutation(
        "repack: copies what heads refer to",
        "storage/lsm/compaction/repack.py",
        "            live = await live_frames(its.maps(), ids)\n",
        "            live = await live_frames(its.heads(), ids)\n",
    ),
    Mutation(
        "repack: only heads are pointed to the new places",
        "storage/lsm/compaction/repack.py",
        "        maps = list(its.maps().values())\n",
        "        maps = list(its.heads().values())\n",
    ),
    Mutation(
        "drop: what only snapshots refer to is not counted",
        "storage/lsm/compaction/census.py",
        "        for part in trunk.maps():\n",
        "        for part in (trunk.flat,):\n",
    ),
    Mutation(
        "drop: counted while flushes hand frames to snapshots",
        "storage/lsm/compaction/compactor.py",
        "        async with its.installing:\n            # As listed",
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
    Mutation(
        "a start leaves out the rows of layers that live no more",
        "storage/lsm/index/build.py",
        "        for layer in sorted(forest.maps().keys() - there):\n",
        "        gone = {getattr(one, 'snapshot', 0) or getattr(one, 'head', 0) for one in operations}\n"
        "        for layer in sorted(forest.maps().keys() - there - gone):\n",
    ),
]


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant mistakes in the engine and let the simulation find them.")
    parser.add_argument("name", nargs="?", default="", help="only those with this in their name")
    parser.add_argument("--worlds", type=int, default=WORLDS_MAX, help="worlds before a mistake counts as missed")
    parser.add_argument("--first", type=int, default=0, help="seed of the first world")
    parser.add_argument("--fixed", action="store_true", help="only the worlds that every run of the tests has")
    parser.add_argument("--workers", type=int, default=2, help="mistakes hunted at a time")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.name in mutation.name]
    missed = 0
    with ThreadPoolExecutor(arguments.workers) as pool:
        worlds, first, fixed = arguments.worlds, arguments.first, arguments.fixed
        hunts = pool.map(lambda one: hunt(one, worlds=worlds, first=first, fixed=fixed), chosen)
        for finding in hunts:
            verdict = "MISSED" if finding.seed is None else "found "
            missed += finding.seed is None
            print(
                f"{verdict} {finding.worlds:4d} worlds {finding.seconds:5.0f} s  {finding.mutation.name}"
                + (f"\n         seed {finding.seed}: {finding.message}" if finding.seed is not None else ""),
                flush=True,
            )
    print(f"{len(chosen) - missed} of {len(chosen)} found")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
