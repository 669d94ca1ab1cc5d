"""Mutants: the code with one mistake in it, and the tests that must notice.

The simulation has mistakes of its own (`tests/simulation/mutations.py`): of the engine's core, which worlds find. Here
is what worlds do not see, or would be slow to: thresholds, figures for people, what `check` says of a damaged store.
"""

from tests.mutants.mutant import mutants
from tests.mutants.mutants_of_answers import ANSWERS
from tests.mutants.mutants_of_attaching import ATTACHING
from tests.mutants.mutants_of_blocks import OF_BLOCKS
from tests.mutants.mutants_of_budget import BUDGET
from tests.mutants.mutants_of_checks import CHECKS
from tests.mutants.mutants_of_clearing import CLEARING
from tests.mutants.mutants_of_clients import CLIENTS
from tests.mutants.mutants_of_commands import COMMANDS
from tests.mutants.mutants_of_copies import COPIES
from tests.mutants.mutants_of_dashboard import DASHBOARD
from tests.mutants.mutants_of_filling import FILLING
from tests.mutants.mutants_of_folders import OF_FOLDERS
from tests.mutants.mutants_of_formats import FORMATS
from tests.mutants.mutants_of_hosts import OF_HOSTS
from tests.mutants.mutants_of_journal import OF_JOURNAL
from tests.mutants.mutants_of_maintenance import MAINTENANCE
from tests.mutants.mutants_of_opening import OPENING
from tests.mutants.mutants_of_replication import REPLICATION
from tests.mutants.mutants_of_reports import REPORTS
from tests.mutants.mutants_of_retirement import RETIREMENT
from tests.mutants.mutants_of_rotation import ROTATION
from tests.mutants.mutants_of_snapshots import SNAPSHOTS
from tests.mutants.mutants_of_stores import STORES
from tests.mutants.mutants_of_succession import SUCCESSION
from tests.mutants.mutants_of_trunks import TRUNKS

MUTANTS = [
    *mutants(
        "storage/lsm/sst/fetch.py",
        "tests/storage/lsm/sst/test_fetch.py",
        (
            "fetch: a slot is held while it is asked why a GET failed",
            "                slot.leave()  #",
            "                #",
        ),
    ),
    *mutants(
        "storage/lsm/sst/get_slots.py",
        "tests/storage/lsm/sst/test_fetch.py",
        ("fetch: one object may have every slot", " and self._busy[name] < OBJECT_GETS_MAX", ""),
        (
            "fetch: a GET that failed counts no more among those of its object",
            "self._place.discard(self)",
            "self.end()",
        ),
    ),
    *mutants(
        "storage/lsm/flush/flush.py",
        "tests/storage/lsm/flush/test_complete_snapshot.py",
        (
            "trunks: what a snapshot kept has to wait for somebody else's flush",
            " or (layers.keeping(layers.heads()) and not tried)",
            "",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/journal_replay.py",
        "tests/storage/lsm/recovery/test_journal_snapshot.py",
        ("journal: what it restores of a snapshot shows there alone", "    layers.show_memtables()", "   "),
        ("journal: a device that writes nothing keeps it full", "min(sequence, each.last_sequence))", "sequence)"),
    ),
    *mutants(
        "storage/lsm/engine.py",
        "tests/storage/lsm/recovery/test_journal_snapshot.py",
        (
            "journal: what came after a snapshot may be in the log before what came earlier",
            "                restore(beyond, self._layers)\n                await self.flush()\n",
            "                restore(beyond, self._layers)\n",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/consolidate.py",
        "tests/storage/lsm/compaction/test_jobs.py",
        ("consolidation: zeros are written again", "in ([HOLE], [ALLOCATED]):", "in ():"),
    ),
    *mutants(
        "storage/format/journal_batch.py",
        "tests/storage/format/test_journal_batch.py",
        (
            "journal: it does not matter what was answered",
            "if at != end or answered not in (end, last):",
            "if at != end:",
        ),
        ("journal: a batch that is not answered is damage", "answered not in (end, last)", "answered != end"),
        ("journal: a batch is longer than its segment", "+ grown > room or", "+ grown > room + TAG_BYTES or"),
        ("journal: data of any length is joined", "(grown > JOINED_BYTES_MAX and parts)", "False"),
        (
            "journal: data lies there in clear",
            "    _END.pack_into(memory, 0, end)\n",
            "    memory[sealed : sealed + size] = b''.join(parts)\n    _END.pack_into(memory, 0, end)\n",
        ),
        ("journal: a batch counts before it is answered only", "    _END.pack_into(memory, 0, end)\n", ""),
    ),
    *mutants(
        "storage/journal/files.py",
        "tests/storage/journal/",
        ("journal: a segment begins with what lay there", "        clear(memory)\n", ""),
        ("journal: spares are kept without end", " and len(self._spare) < SPARES_MAX", ""),
        ("journal: what large operations took is kept", " and len(memory) <= SPARE_BYTES_MAX", ""),
        ("journal: all of the memory stays in use", "min(self._untaken, TRIMMED_MAX)", "0"),
        ("journal: memory that was just in use is given back", "min(self._untaken, TRIMMED_MAX)", "TRIMMED_MAX"),
        ("journal: all memory is given back at once", "min(self._untaken, TRIMMED_MAX)", "self._untaken"),
        ("journal: none is kept for the next write", ", min(count, SPARES_KEPT)))", ", 0))"),
        ("journal: what others left takes room for ever", 'path.glob("*.spare")', 'path.glob("*.spares")'),
        ("journal: spares are set aside", "                _remove_spares(path)\n", ""),
        (
            "journal: memory that is not there ends the process",
            "os.posix_fallocate(descriptor, 0, size)",
            "os.truncate(descriptor, size)",
        ),
    ),
    *mutants(
        "storage/journal/journal.py",
        "tests/storage/journal/",
        ("journal: a place in a segment is used twice", "            self._batches += 1\n", ""),
        ("journal: a number of a segment is used twice", "place.epoch << EPOCH_SHIFT, ", ""),
        ("journal: memory is given back once only", ".files.trim():", ".files.trim() and False:"),
        ("journal: it wakes up for ever", ".files.trim():", ".files.trim() in (True, False):"),
    ),
    *mutants(
        "storage/lsm/flush/trigger.py",
        "tests/storage/lsm/flush/test_trigger.py",
        ("flush: what is kept counts as log", "position.logged_bytes - memtable.kept_bytes", "position.logged_bytes"),
        ("flush: what is kept counts as written", "memtable.bytes - memtable.kept_bytes >=", "memtable.bytes >="),
        (
            "flush: many objects ask for one, though nothing was written",
            "self._options.flush_objects and memtable.holds_more_than_kept",
            "self._options.flush_objects",
        ),
        ("flush: objects are one too many", ">= self._options.flush_objects", "> self._options.flush_objects"),
        (
            "flush: the log is a byte too long",
            "size >= self._options.log_bytes_max // 4",
            "size > self._options.log_bytes_max // 4",
        ),
        ("flush: a small SST costs as little as it holds", "max(sst.size, MIB)", "sst.size"),
        ("flush: uploads ask for none", "uploaded >= self._options.flush_uploaded_bytes", "False"),
        ("flush: the trigger stays pulled", "        self._wanted.clear()", "        pass"),
    ),
    *mutants(
        "storage/lsm/flush/complete.py",
        "tests/storage/lsm/flush/test_complete_snapshot.py",
        ("pieces: the layer that goes on gets none", "for heir in heirs\n", "for heir in heirs[:0]\n"),
        (
            "pieces: what a snapshot keeps lies over a frame that was uploaded since",
            "    elif entry.base is not None or entry.mask >> sector & 1:\n        return False",
            "    elif entry.mask >> sector & 1:\n        return False",
        ),
        (
            "pieces: what a snapshot keeps lies over what was written since",
            "[*(table.blocks[block].extents or {})[sector], *had]",
            "[*had, *(table.blocks[block].extents or {})[sector]]",
        ),
    ),
    *mutants(
        "storage/lsm/index/sharing.py",
        "tests/storage/fs/snapshots/test_snapshots.py",
        (
            "snapshots: what a clone shares is counted for each",
            "places, first = np.unique(location, return_index=True)",
            "places, first = location, np.arange(len(location))",
        ),
    ),
    *mutants(
        "storage/lsm/wal/pacing.py",
        "tests/storage/lsm/wal/test_group_commit.py",
        (
            "pacing: who waits for uploads looks again and again",
            "if queue.pending and not self._is_crowded(queue)",
            "if queue.pending",
        ),
    ),
    *mutants(
        "storage/lsm/memtable/gate.py",
        "tests/storage/lsm/memtable/test_gate.py",
        ("gate: a writer is slowed by one write alone", "max(self._until, now) + (length", "now + (length"),
        ("gate: time that a writer did not use is saved up", "max(self._until, now)", "self._until"),
        ("gate: a reply may wait for ever", "min(until, now + RATE_DELAY_SECONDS_MAX)", "until"),
    ),
    *mutants(
        "storage/lsm/layers.py",
        "tests/storage/lsm/test_trunks_while_flushing.py tests/storage/lsm/flush/test_complete_snapshot.py",
        (
            "snapshots: parts of sectors that wait are passed over",
            "        if self.keeping(heads):\n",
            "        if False:\n",
        ),
        (
            "snapshots: a rollback keeps the old head's memtable",
            "                device = layers.pop(head)\n                self._drop_written(head)\n"
            "                device.move_on(child, sequence)\n                device.inherit(layers[snapshot])\n",
            "                device = layers.pop(head)\n                before = device.own_memtables\n"
            "                device.move_on(child, sequence)\n                device.inherit(layers[snapshot])\n"
            "                device.inherited = before\n                device.show_memtables()\n",
        ),
    ),
    *mutants(
        "storage/lsm/layer.py",
        "tests/storage/lsm/test_trunks_while_flushing.py",
        (
            "snapshots: what one keeps lies over its heir's index for ever",
            "[table for table in self.inherited if active.get(table.layer) is table]",
            "self.inherited",
        ),
    ),
    *mutants(
        "storage/lsm/read/changed.py",
        "tests/storage/fs/devices/test_history.py tests/storage/lsm/index/test_forest.py",
        ("changes: what is in memory is none", "        mask = _written(tables, block)\n", "        mask = 0\n"),
        (
            "changes: what was zeroed in memory is none",
            "        for span in table.zeros.spans\n",
            "        for span in ()\n",
        ),
        (
            "changes: parts of sectors in memory are none",
            "            for sector in entry.extents or ():\n",
            "            for sector in ():\n",
        ),
        (
            "changes: only those of the older snapshot count",
            "    deltas = trunk.deltas[low:high]\n",
            "    deltas = trunk.deltas[low : low + 1]\n",
        ),
        (
            "changes: whole blocks",
            "                mask |= sectors & other_sectors\n",
            "                mask |= sectors | other_sectors\n",
        ),
        ("changes: what is covered counts", "        own = found.mask & ~seen\n", "        own = found.mask\n"),
        (
            "changes: what follows many pages is passed over",
            "            end = min(end, (number << PAGE_SHIFT) * BLOCK_BYTES)\n            break",
            "            break",
        ),
        (
            "changes: a part ends too late",
            "            end = min(end, one_by_one[left] * BLOCK_BYTES)\n            break",
            "            break",
        ),
    ),
    *mutants(
        "storage/fs/devices/changes.py",
        "tests/storage/fs/devices/test_changes.py tests/storage/fs/devices/test_history.py",
        (
            "changes: what a snapshot has in memory is none",
            "for table in [*older.memtables, *layer.memtables] if shown",
            "for table in layer.memtables if shown",
        ),
        ("changes: those of a newer snapshot are none", "low, high = sorted((", "low, high = tuple(("),
        (
            "changes: since a snapshot that is gone there are none",
            '            raise NotFound("the snapshot that changes',
            '            return [(length, False)]\n            raise NotFound("the snapshot that changes',
        ),
    ),
    *mutants(
        "nbdserver/server/block_status.py",
        "tests/nbdserver/server/test_block_status.py",
        ("contexts: only the last is answered", "for number in wanted}", "for number in wanted[-1:]}"),
        ("contexts: each answer is the last", "last=number == wanted[-1]", "last=True"),
        ("contexts: what is named makes no difference", "if only is None or number in only]", "]"),
    ),
    *mutants(
        "nbdserver/protocol/agreement.py",
        "tests/nbdserver/protocol/test_contexts.py",
        ("contexts: as many as are asked for", "if len(chosen) > CONTEXTS_MAX:", "if False:"),
        ("contexts: a wildcard selects", "if each.name in wanted]", "if each.name.startswith(tuple(wanted))]"),
        ("contexts: none is listed unasked", "if not wanted or each.name", "if each.name"),
        ("contexts: snapshots are always looked for", "export.snapshots() if kinds else ()", "export.snapshots()"),
        ("contexts: a wildcard means no snapshots", " or kind.startswith(query)", ""),
    ),
    *mutants(
        "storage/lsm/read/gathered.py",
        "tests/storage/lsm/read/test_gathered.py",
        ("gathered: one piece less is enough", "if pieces < PIECES_MIN:", "if pieces < PIECES_MIN - 1:"),
        ("gathered: once is enough", "if times >= TIMES_MIN:", "if times >= 1:"),
        ("gathered: what was forgotten is remembered", "        self._times.pop(block, None)\n", ""),
        ("gathered: it stays wanted", "        self.often.discard(block)\n", ""),
        ("gathered: without bound", "if len(self._times) > GATHERED_BLOCKS_MAX:", "if False:"),
        (
            "gathered: the newest is forgotten",
            "self.forget(next(iter(self._times)))",
            "self.forget(next(reversed(self._times)))",
        ),
    ),
    *mutants(
        "storage/fs/maintenance.py",
        "tests/storage/fs/test_maintenance.py",
        (
            "gc: SSTs that nothing refers to stay",
            "                await compactor.do(job)\n",
            "                return dropped, seen.ssts.unused\n",
        ),
        ("gc: it waits for the background", "        await engine.garbage.delete_now()\n", ""),
        ("gc: a dry run sweeps", "await engine.sweeper.find()", "await engine.sweeper.sweep()"),
        (
            "compact: of one device it does all",
            "engine.compactor.thorough_step(layer)",
            "engine.compactor.thorough_step(None)",
        ),
        ("compact: the forecast of one device is that of all", "forecast(self._layer(device))", "forecast(None)"),
    ),
    *ATTACHING,
    *CHECKS,
    *BUDGET,
    *CLEARING,
    *CLIENTS,
    *COMMANDS,
    *COPIES,
    *DASHBOARD,
    *FILLING,
    *MAINTENANCE,
    *OPENING,
    *SNAPSHOTS,
    *OF_BLOCKS,
    *OF_FOLDERS,
    *FORMATS,
    *OF_HOSTS,
    *OF_JOURNAL,
    *TRUNKS,
    *STORES,
    *ANSWERS,
    *REPLICATION,
    *REPORTS,
    *RETIREMENT,
    *ROTATION,
    *SUCCESSION,
]
