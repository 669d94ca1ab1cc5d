"""Mistakes in what says whether a store is whole, and in what is taken away from it."""

from tests.mutants.mutant import mutants

CHECK = "tests/storage/check/"
RECOVERY = "tests/storage/lsm/recovery/"

CHECKS = [
    *mutants(
        "storage/check/survey.py",
        "tests/storage/check/test_survey.py",
        (
            "check: a disk that is deleted meanwhile is damage",
            "                if layer in self.dropped:\n",
            "                if False:\n",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/take_over.py",
        RECOVERY + "test_lineage.py",
        ("lineage: that of a store that was set back goes on", "not terms.breaks and (", "("),
        ("lineage: grows for ever", "[*old, incarnation][-LINEAGE_MAX:]", "[*old, incarnation]"),
    ),
    *mutants(
        "storage/lsm/gc/sweep.py",
        "tests/storage/lsm/gc/test_sweep.py",
        ("sweep: what is gone is not said", "            if size != named and sst in now:", "            if False:"),
        (
            "sweep: what was dropped meanwhile is lost",
            "            if sst in now:\n",
            "            if True:\n",
        ),
        (
            "sweep: what was committed meanwhile is lost",
            "        call = RollCall(self._listed())\n        there = await list_all_ssts(self._store)\n",
            "        there = await list_all_ssts(self._store)\n        call = RollCall(self._listed())\n",
        ),
        (
            "sweep: the young go",
            "            if not self._is_old(info):\n                found.young",
            "            if False:\n                found.young",
        ),
        ("sweep: foreign history goes", "            if number > self._fence:", "            if False:"),
        ("sweep: fences go", "number < replay and number not in kept", "number < replay"),
    ),
    *mutants(
        "storage/lsm/recovery/completeness.py",
        f"{RECOVERY}test_completeness.py",
        ("a start: a host that wrote last lists all", "    if seen_whole:\n", "    if False:\n"),
        ("a start: any other host lists nothing", "    if seen_whole:\n", "    if True:\n"),
        (
            "a start: a later writer is not seen",
            "        if epoch_of(sst) > manifest.epoch:\n            await",
            "        if False:\n            await",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/anchor.py",
        f"{RECOVERY}test_completeness.py {RECOVERY}test_anchor.py",
        ("a start: another boot is as good", "exact=file.boot == boot()", "exact=True"),
    ),
    *mutants(
        "storage/check/scrub.py",
        f"{CHECK}test_scrub.py",
        ("scrub: what was read is due at once", "reads.read[ref.id], period / 2", "reads.read[ref.id], 0.0"),
        (
            "scrub: what was read is due after a period",
            "reads.read[ref.id], period / 2",
            "reads.read[ref.id], 1.2 * period",
        ),
        ("scrub: what is damaged waits for its turn", ", SCRUB_AGAIN_SECONDS\n", ", period\n"),
        (
            "scrub: what is damaged is read in every round",
            "                self._tried[ref.id] = self._env.wall_clock()\n",
            "",
        ),
        ("scrub: the youngest go first", "in sorted(due)]", "in sorted(due, reverse=True)]"),
        ("scrub: it is too slow", "/ (period / 2), SCRUB_RATE_MIN", "/ (period * 2), 1"),
        (
            "scrub: what is gone stays known",
            "        reads.forget_all_but({ref.id for ref in listed})\n",
            "",
        ),
        ("scrub: nothing is kept", "        if read:\n            await self._read_times.save()\n", ""),
        (
            "scrub: an answer of the store ends it",
            "            except StorageError as error:",
            "            except ArithmeticError as error:",
        ),
        ("scrub: what is found is not said", '                _log.error("scrub_found", extra=said)\n', ""),
    ),
    *mutants(
        "storage/lsm/gc/sweep.py",
        "tests/storage/lsm/gc/test_garbage_of_an_engine.py",
        ("sweep: where nothing can be deleted nobody looks", "else self.look())", "else asyncio.sleep(0))"),
    ),
    *mutants(
        "storage/lsm/flush/flush.py",
        "tests/storage/fs/test_tree_objects.py",
        ("flush: older trees of names stay", "        if older is not None:\n", "        if False:\n"),
        (
            "flush: the tree goes that the manifest names",
            "older = None if tree is None else self._manifests.manifest.tree",
            "older = tree",
        ),
        (
            "flush: a tree goes that did not change",
            "older = None if tree is None else self._manifests.manifest.tree",
            "older = self._manifests.manifest.tree",
        ),
    ),
    *mutants(
        "storage/check/scrub.py",
        f"{CHECK}test_clock_set_back.py",
        ("scrub: what a clock wrote that was ahead waits for that", " or ref.id >= ahead:", ":"),
        (
            "scrub: what was tried by a clock that was ahead waits for that",
            "seen + rest if seen <= now else now",
            "seen + rest",
        ),
    ),
    *mutants(
        "storage/check/read_run.py",
        f"{CHECK}test_clock_set_back.py",
        (
            "check: what was read at a time yet to come was read by this run",
            "        reads.forget_later_than(now)",
            "        None",
        ),
        (
            "check: a run that goes on begins anew",
            "            reads.began = now\n",
            "            reads.began = now\n        reads.forget_later_than(reads.began)\n",
        ),
    ),
    *mutants(
        "storage/check/read_run.py",
        f"{CHECK}test_read_run.py",
        ("check: a run goes by what others note", "0.0) < began:", "0.0) < reads.began:"),
        ("check: a run that ends ends all", "        if reads.began == began:", "        if True:"),
    ),
    *mutants(
        "storage/check/read_data.py",
        f"{CHECK}test_read_run.py",
        (
            "check: a thread numbers an SST that is read",
            "partial(self._open, ref, number, end)",
            "lambda: self._open(ref, self._numbers.number(ref.id), end)",
        ),
    ),
    *mutants(
        "storage/check/read_times.py",
        f"{CHECK}test_clock_set_back.py",
        (
            "scrub: a clock that is behind makes forget what was read",
            "        return self._reads\n",
            "        self._reads.forget_later_than(self._env.wall_clock())\n        return self._reads\n",
        ),
        ("reads: a report counts what was read at a time yet to come", "at is None or at > now", "at is None"),
        ("check: a run that begins in the future goes on", "        if self.began > now:", "        if False:"),
    ),
    *mutants(
        "storage/check/read_times.py",
        f"{CHECK}test_scrub.py",
        ("scrub: what is sound again stays damaged", "        self.damaged.pop(sst, None)\n", ""),
        ("scrub: what is damaged counts as read", "        self.read.pop(sst, None)\n", ""),
        ("scrub: damage is forgotten with the process", "dict(file.read), dict(file.damaged)", "dict(file.read), {}"),
    ),
    *mutants(
        "storage/check/analysis.py",
        f"{CHECK}test_survey_of_snapshots.py",
        ("check: all that each snapshot shows is looked at", "newer is None or not maps.goes_on(newer.maps)", "True"),
        ("check: damage is found of the newest layer alone", "newer.wrong | (origin > layer)", "(origin > layer)"),
        ("check: what memory alone has of a snapshot", "(rebuilt[0].kept, memory[0].kept, ", "(rebuilt[0].kept, "),
    ),
    *mutants(
        "storage/check/analysis.py",
        f"{CHECK}test_survey_of_trees.py",
        ("check: a snapshot may show what was written later", "newer.wrong | (origin > layer) | ", "newer.wrong | "),
        ("check: ranges of zeros of a snapshot are not looked at", " | references.inside(spans, pages)", ""),
        (
            "check: what was written to a snapshot is not looked at",
            'memory[0].kept, of_layer["block"])',
            "memory[0].kept)",
        ),
    ),
    *mutants(
        "storage/check/references.py",
        f"{CHECK}test_mistakes.py",
        ("check: a mask is not compared", ' & (rows["mask"] & ~entry["mask"] == 0)', ""),
        (
            "check: a tag is not compared",
            'for name in ("block", "length", "tag"):\n        right &= entry[name]',
            'for name in ("block", "length"):\n        right &= entry[name]',
        ),
        ("check: what is nowhere is right", "    right = found & (entry", "    right = ~found | (entry"),
        (
            "check: what is newer hides nothing",
            'newer = of_layer["sequence"][other] > sequence[left]',
            'newer = of_layer["sequence"][other] < 0',
        ),
        ("check: ranges of zeros hide nothing", '        hidden[inside] = rows["mask"][inside]\n', "        pass\n"),
        (
            "check: memory may lack what is there",
            "wrong += _unlike(one, other) + _unlike(other, one)",
            "wrong += _unlike(one, other)",
        ),
        (
            "check: memory may have what is not there",
            "wrong += _unlike(one, other) + _unlike(other, one)",
            "wrong += _unlike(other, one)",
        ),
    ),
    *mutants(
        "storage/check/survey.py",
        f"{CHECK}test_damage.py {CHECK}test_left.py {CHECK}test_survey.py {RECOVERY}test_completeness.py",
        ("check: fences are not looked at", "        await check_fences(self.asker)\n", ""),
        ("check: older manifests are not looked at", "        await check_manifests(self.asker, self.listed)\n", ""),
        (
            "check: what nothing names is not judged",
            "        await judge_unnamed(self.asker, unnamed, self.listed, self.found.replay)\n",
            "",
        ),
        ("check: the index is not rebuilt", "        await self._rebuild(trailer)\n", ""),
        ("check: nothing is analysed", "        await self._analyse()\n", ""),
    ),
    *mutants(
        "storage/check/layout.py",
        f"{CHECK}test_layout.py",
        (
            "check: rows are not counted",
            '    if rows != ref.entries:\n        yield f"its index',
            '    if False:\n        yield f"its index',
        ),
        ("check: a name is anybody's", "if header.link != ULID.from_str(ref.id).bytes:", "if False:"),
        ("check: gaps are none", "    if len(wrong):", "    if False:"),
        ("check: a range may be empty", 'if (ranges["first"] >= ranges["end"]).any():', "if False:"),
        ("check: any mask will do", '.any() or (entries["mask"] == 0).any():', ".all():"),
        (
            "check: zeros may have a frame",
            '    if entries["offset"][~data].any() or entries["length"][~data].any():',
            "    if False:",
        ),
        ("check: later operations may be there", "    for columns in (entries, ranges):\n", "    for columns in ():\n"),
    ),
]
