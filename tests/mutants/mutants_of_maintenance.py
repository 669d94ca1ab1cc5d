"""Mistakes in maintenance: the plan, its jobs, and what is told of them."""

from tests.mutants.mutant import mutants

COMPACTION = "tests/storage/lsm/compaction/"

MAINTENANCE = [
    *mutants(
        "storage/lsm/compaction/job_context.py",
        "tests/storage/lsm/compaction/test_commit_behind_the_tree.py",
        (
            "maintenance: its manifest does not say what of the log it rests on",
            "max(manifest.acknowledged, self.ssts.acknowledged())",
            "manifest.acknowledged",
        ),
    ),
    *mutants(
        "storage/cancel.py",
        f"{COMPACTION}test_given_up.py",
        ("threads: who gives up does not wait for them", "            gave_up = error\n", "            raise\n"),
        ("threads: who gives up is told of no end", "        raise gave_up\n", "        pass\n"),
    ),
    *mutants(
        "storage/check/survey.py",
        f"{COMPACTION}test_given_up.py",
        (
            "check: what a thread looks at changes",
            'await when_ended(run("store", analysis.look_at_trunk, trunk, some))',
            'await run("store", analysis.look_at_trunk, trunk, some)',
        ),
    ),
    *mutants(
        "storage/lsm/compaction/plan.py",
        f"{COMPACTION}test_plan.py {COMPACTION}test_plan_rest.py {COMPACTION}test_jobs_end.py",
        (
            "plan: a store at rest has the threshold of a busy one",
            "options.unmerged_dead_bytes_min_at_rest if snapshot.at_rest else options.unmerged_dead_bytes_min",
            "options.unmerged_dead_bytes_min",
        ),
        (
            "plan: a busy store has the threshold of one at rest",
            "options.unmerged_dead_bytes_min_at_rest if snapshot.at_rest else options.unmerged_dead_bytes_min",
            "options.unmerged_dead_bytes_min_at_rest",
        ),
        ("plan: what is gathered often waits for its patches", " or block.often_gathered\n", "\n"),
        (
            "plan: what is gathered often has no precedence",
            "key=lambda at: (not at.often_gathered, (at.layer",
            "key=lambda at: ((at.layer",
        ),
        ("plan: what is damaged is repacked for ever", " & ~ssts.are(snapshot.skipped)", ""),
    ),
    *mutants(
        "storage/lsm/layer.py",
        f"{COMPACTION}test_jobs.py",
        (
            "gathered: nobody tells of what was fetched",
            "            self.gathered.fetched(assembly.missing)\n",
            "            pass\n",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/plan.py",
        f"{COMPACTION}test_fragments.py",
        (
            "defragmentation: more is written anew than was written",
            "        room = min(room, snapshot.listed_bytes)\n",
            "",
        ),
        (
            "defragmentation: the slack of the target counts too",
            "room = int(options.space_factor * snapshot.shown) - snapshot.stored\n",
            "room = int(options.space_factor * snapshot.shown) + options.space_slack_bytes - snapshot.stored\n",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/fragments.py",
        f"{COMPACTION}test_fragments.py {COMPACTION}test_fragments_of_small_objects.py",
        (
            "defragmentation: what a snapshot shows is stored twice",
            "for trunk in trunks if trunk.is_alone}",
            "for trunk in trunks}",
        ),
        ("defragmentation: a run that goes on in the next window counts as one", "& (window[1:] == window[:-1])", ""),
        (
            "defragmentation: what small objects cannot bring together is written anew",
            " & (counts > pieces_then)\n",
            "\n",
        ),
    ),
    *mutants(
        "storage/lsm/index/block_map.py",
        f"{COMPACTION}test_fragments.py",
        (
            "defragmentation: a block that was written meanwhile is what it was",
            "        if block not in self._taken:\n            return False\n        self._taken.discard(block)\n",
            "",
        ),
    ),
    *mutants(
        "storage/lsm/index/block_map.py",
        "tests/storage/lsm/index/test_rebase.py",
        (
            # Worlds have it too seldom: a row of zeros in the chain, another that is flushed above it while the block
            # is written, and a read before the next start, which lays rows by their sequences.
            "consolidation: zeros that came later are taken for those it was made of",
            " for found in chain[:-1]} - {HOLE, ALLOCATED}\n",
            " for found in chain[:-1]}\n",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/consolidate.py",
        f"{COMPACTION}test_jobs.py",
        (
            "consolidation: what it made is still gathered often",
            "    layer.gathered.forget(item.block.block)\n",
            "    pass\n",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/repack.py",
        f"{COMPACTION}test_many_layers.py",
        (
            "repack: one map of those that have a page is asked",
            "            found[number].append(part)\n",
            "            found[number] = found[number] or [part]\n",
        ),
        ("repack: every map is asked", "in found.keys() & part.pages.keys():", "in found:"),
    ),
    *mutants(
        "storage/lsm/compaction/job_context.py",
        f"{COMPACTION}test_commit_behind_the_tree.py",
        (
            "maintenance: it commits before the tree that the maps show",
            "            await self.tree_durable()\n",
            "            pass\n",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/job_context.py",
        f"{COMPACTION}test_jobs_end.py",
        (
            "maintenance: a victim goes while a read waits for it",
            "strict=True) if number not in wanted]",
            "strict=True) if wanted is not None]",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/store_look.py",
        f"{COMPACTION}test_jobs_end.py",
        (
            "maintenance: the store is counted while a flush points elsewhere",
            "        async with context.installing:\n            # As listed",
            "        async with asyncio.Lock():\n            # As listed",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/job_context.py",
        f"{COMPACTION}test_jobs_cut_short.py",
        (
            "maintenance: what a job that fails has uploaded is left to the next writer",
            "            self.garbage.add(names)\n            raise\n",
            "            raise\n",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/compactor.py",
        f"{COMPACTION}test_jobs_cut_short.py",
        (
            "defragmentation: one that failed counts for nothing",
            "self._turns.listed_bytes -= self.progress.uploaded_bytes - before\n",
            "self._turns.listed_bytes -= 0\n",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/compactor.py",
        f"{COMPACTION}test_pace_of_jobs.py",
        (
            "maintenance: it rests for as long as the store kept it",
            "took = min(now - began, JOB_PAUSE_SECONDS_MAX)",
            "took = now - began",
        ),
        (
            "maintenance: it rests though the store is beyond its target",
            "0.0 if self._over_target or self._at_rest() else took",
            "0.0 if self._at_rest() else took",
        ),
        (
            "maintenance: it rests though nobody writes",
            "0.0 if self._over_target or self._at_rest() else took",
            "0.0 if self._over_target else took",
        ),
        (
            "maintenance: it leaves clients no time",
            "0.0 if self._over_target or self._at_rest() else took",
            "0.0",
        ),
        (
            "maintenance: writers wait for what is tried in vain",
            "                self._is_refused = True\n",
            "",
        ),
        (
            "maintenance: writers wait until what was refused is tried again",
            "                self._on_debt(0.0)  # Writers",
            "                # Writers",
        ),
        (
            "maintenance: what was refused once holds no writer back ever after",
            '                self._is_refused, refusal = False, ""\n            except',
            "            except",
        ),
        (
            "maintenance: what was replaced stays as long as the writer runs",
            "            self.delete_replaced()\n            self._hurry",
            "            self._hurry",
        ),
        (
            "maintenance: what was replaced last is left to a sweep",
            "        self.context.garbage.add(sst_name(sst) for sst in sorted(self.context.awaiting_deletion))\n",
            "",
        ),
        (
            "maintenance: what is dropped goes before a manifest says so",
            "            context.awaiting_deletion |= ids\n\n        await context.commit(commit)",
            "        context.awaiting_deletion |= ids\n        await context.commit(commit)",
        ),
        (
            "maintenance: who asks for it does his jobs beside those under way",
            "        async with self.working:\n            await self.make_room()",
            "        if True:\n            await self.make_room()",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/consolidate.py",
        f"{COMPACTION}test_jobs_cut_short.py",
        (
            "consolidation: what a manifest on its way names is garbage for who gives up waiting",
            "    await context.commit(commit, names)\n",
            "    with context.uncommitted() as names:\n"
            "        names += [sst_name(ref.id) for ref, _ in written]\n"
            "        await context.commit(commit)\n",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/consolidate.py",
        "tests/storage/lsm/test_trunks_while_flushing.py",
        (
            "consolidation: it goes on after its head became a snapshot",
            "        if not {item.block.layer for _, read in written for item in read} <= context.heads().keys():\n",
            "        if False:\n",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/usage.py",
        "tests/storage/fs/test_what_is_used.py",
        (
            "usage: a frame's size is that of its object",
            "int((listed.index_offset - HEADER_BYTES).sum())",
            "int(listed.size.sum())",
        ),
        (
            "usage: what a checkpoint names is not stored",
            "merged(manifest, table).beside(SstList.of(manifest.ssts))",
            "SstList.of(manifest.ssts)",
        ),
        ("usage: what a memtable covers counts twice", " and number not in written_pages:\n", ":\n"),
        ("usage: what memory zeroed is still there", "        if number not in zeroed and ", "        if "),
        ("usage: it is counted once for ever", "if state != self._counted:", "if self._counted is None:"),
        ("usage: dead is what is stored", "max(self.ssts.frames - self.live, 0)", "self.ssts.frames"),
    ),
    *mutants(
        "storage/lsm/compaction/forecast.py",
        f"tests/storage/fs/test_maintenance.py {COMPACTION}test_plan_rest.py",
        (
            "forecast: what is dropped stays",
            "return replace(seen, ssts=left)",
            "return replace(seen, ssts=left.beside(SstTable.of(job.ssts)))",
        ),
        ("forecast: what is copied is not uploaded", "    told.uploaded_bytes += live\n", ""),
    ),
    *mutants(
        "storage/lsm/gc/garbage.py",
        "tests/storage/lsm/gc/test_garbage.py",
        ("garbage: a name that was forgotten meanwhile ends the server", "if name in self._names:  #", "if 1:  #"),
    ),
    *mutants(
        "storage/lsm/compaction/store_look.py",
        "tests/storage/lsm/compaction/test_store_look.py",
        (
            "maintenance: what was damaged once is left for ever",
            "self.damaged.items() if until > now",
            "self.damaged.items() if 1",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/job_context.py",
        "tests/storage/lsm/read/test_unreadable.py",
        ("maintenance: what is deleted stays a suspect", "        self.source.suspects.forget(names)\n", ""),
    ),
    *mutants(
        "storage/lsm/sst/quarantine.py",
        "tests/storage/lsm/read/test_unreadable.py",
        (
            "reading: a read-ahead that failed makes a suspect for ever",
            "if not frames and name not in self.suspects:",
            "if 0:",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/compactor.py",
        "tests/structure/test_cancelling.py",
        (
            "maintenance: a stop may be forgotten",
            "                async with asyncio.timeout(pause):\n                    await self._hurry.wait()\n",
            "                await asyncio.wait_for(self._hurry.wait(), pause)\n",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/unsaved.py",
        "tests/storage/lsm/recovery/test_unsaved.py",
        ("host: two save the same at once", "running.add_done_callback(lambda _: turn.release())", "turn.release()"),
    ),
    *mutants(
        "storage/fs/snapshots/snapshots.py",
        "tests/storage/fs/snapshots/test_clearing.py",
        (
            "snapshots: one whose command went away is not deleted in its time",
            "            self.on_change()  # here: it is made also if who asked has gone away\n\n"
            "        await self._engine.change_trunks(plan, made)\n",
            "\n        await self._engine.change_trunks(plan, made)\n        self.on_change()\n",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/compactor.py",
        "tests/storage/lsm/compaction/test_job_under_way.py",
        (
            "maintenance: a job that has ended is under way",
            "            self.progress.job = previous\n",
            "            pass\n",
        ),
    ),
    *mutants(
        "storage/fs/store.py",
        "tests/storage/fs/test_store.py::test_a_store_that_is_being_closed_begins_nothing",
        ("upkeep: it is begun beside a close", "        self.upkeep.end()\n", ""),
    ),
]
