"""Mistakes in how a store is asked: what took too long, and what a silence has swallowed."""

from tests.mutants.mutant import mutants

STORES = [
    *mutants(
        "storage/objects/transport.py",
        "tests/storage/objects/test_swallowed.py",
        ("silence: nobody looks for what it has swallowed", "self._deadlines.end_swallowed(started)", "pass"),
        ("silence: where nothing was late something is ended", "        if self._silent:\n", "        if True:\n"),
        ("silence: what was late is not remembered", "        self._deadlines.took_too_long()\n", ""),
    ),
    *mutants(
        "storage/objects/deadlines.py",
        "tests/storage/objects/test_swallowed.py",
        (
            "silence: what is slow is ended again and again",
            "if call.name not in self._swallowed]",
            "if call.name]",
        ),
        (
            "silence: what moves is ended",
            "now - self._moved_at >= still_seconds and",
            "now - self._asked_at >= still_seconds and",
        ),
        ("silence: an answer leaves the doubt", "self._late.pop(call.name, None)", "pass"),
    ),
    *mutants(
        "storage/objects/retry.py",
        "tests/storage/objects/test_many_names.py",
        (
            "retry: the parts of a listing share one deadline",
            "        if not self.capabilities.remote:\n            return await self._list(",
            "        if True:\n            return await self._list(",
        ),
    ),
    *mutants(
        "storage/objects/retry.py",
        "tests/storage/objects/test_retry.py",
        (
            "retry: of a small object the head is enough",
            "compared = len(mine) if len(mine) < LARGE_BYTES_MIN else IDENTITY_BYTES",
            "compared = min(len(mine), IDENTITY_BYTES)",
        ),
        (
            "retry: what is large is sent again without a look",
            "if unknown and size >= LARGE_BYTES_MIN and",
            "if False and",
        ),
        (
            "retry: what was never sent is looked for",
            "if unknown and size >= LARGE_BYTES_MIN and",
            "if size >= LARGE_BYTES_MIN and",
        ),
        (
            "retry: what was refused is not there",
            "            except (Unavailable, *MENDABLE):\n                unknown",
            "            except Unavailable:\n                unknown",
        ),
    ),
    *mutants(
        "storage/objects/retry.py",
        "tests/storage/objects/test_health.py",
        ("retry: a hang behind an answer is not told", "silence = loop.call_later(left, look)\n", "return\n"),
        (
            "retry: a large body on a slow way is a store that fails",
            "if self._deadline_seconds is not None or self._once or self.capabilities.remote:",
            "if self._deadline_seconds is not None or self._once:",
        ),
    ),
    *mutants(
        "storage/objects/retry.py",
        "tests/storage/objects/test_hedge.py",
        (
            "hedge: whoever has another deadline has second attempts of his own",
            "        other.health, other._creates, other._gets = self.health, self._creates, self._gets\n",
            "        other.health = self.health\n",
        ),
    ),
    *mutants(
        "storage/objects/hedge.py",
        "tests/storage/objects/test_hedged_reads.py",
        ("hedge: that it is missing is no answer", "(AlreadyExists, NotFound)", "(AlreadyExists,)"),
        (
            "hedge: a slow way is asked twice for ever",
            "            self._rate.took(size, seconds)\n        elif seconds",
            "            pass\n        elif seconds",
        ),
        ("hedge: the large are sent twice", "size <= HEDGED_BYTES_MAX and ", ""),
        ("hedge: who is given up goes on", "        attempt.cancel()\n", ""),
        (
            "hedge: what nobody hears is logged",
            "            self._ended(attempt)\n            return\n",
            "            return\n",
        ),
        (
            "hedge: a rate is learned from what might have come",
            "len(result) if isinstance(result, bytes) else size",
            "size",
        ),
    ),
    *mutants(
        "storage/objects/hedge.py",
        "tests/storage/objects/test_hedge.py",
        ("hedge: a silence counts as usual", "elif seconds <= 2 * delay:", "else:"),
        ("hedge: second attempts are not counted", "self._second_attempts += 1", "pass"),
        ("hedge: those that ended count", "self._second_attempts -= 1", "pass"),
        (
            "hedge: the first error is the answer",
            "isinstance(failure, _ANSWERS) or not isinstance(failure, StorageError)",
            "True",
        ),
    ),
    *mutants(
        "storage/objects/s3.py",
        "tests/storage/objects/test_transport.py",
        ("hedge: the second goes the way of the first", "        if what in self._under_way:\n", "        if False:\n"),
    ),
    *mutants(
        "storage/lsm/sst/frame_reader.py",
        "tests/storage/lsm/sst/test_fetch.py",
        (
            "read: damage is what one answer says",
            "if any(isinstance(each, Corrupt) for each in found):\n                    found",
            "if False:\n                    found",
        ),
        ("read: what is cut off takes its neighbours along", "if not start < size < end:", "if True:"),
        ("read: the second answer counts for all", "other if isinstance(one, Corrupt) else one for", "other for"),
    ),
    *mutants(
        "storage/lsm/sst/get_slots.py",
        "tests/storage/lsm/sst/test_fetch.py",
        (
            "fetch: the flush has no place of its own",
            "        if urgent and not self._urgent:\n",
            "        if False:\n",
        ),
    ),
    *mutants(
        "storage/lsm/sst/wanted.py",
        "tests/storage/lsm/sst/test_turns.py",
        ("fetch: disks do not take turns", "        before.update(layers)\n", ""),
        ("fetch: what is fetched ahead goes before reads", "(not layers, min(", "(False, min("),
    ),
    *mutants(
        "storage/lsm/sst/fetch.py",
        "tests/storage/lsm/sst/test_turns.py",
        ("fetch: what waits is sorted for nothing", " and self._slots.has_room(urgent=bool(self._urgent))", ""),
        ("fetch: a flush waits for reads", "has_room(urgent=bool(self._urgent))", "has_room(urgent=False)"),
    ),
    *mutants(
        "storage/lsm/sst/ranges.py",
        "tests/storage/lsm/sst/test_crowds_of_frames.py",
        (
            "fetch: all that is in 4 MiB is opened at once",
            "frames_max is None or len(group) < frames_max",
            "True",
        ),
    ),
    *mutants(
        "storage/lsm/wal/group_commit.py",
        "tests/storage/lsm/wal/test_group_commit.py",
        (
            "log: what others wrote comes along, however much",
            "if size and not waits and size + queue.cuts[0].size > queue.full_bytes:",
            "if False:",
        ),
        (
            "log: who waits is as good as who does not",
            "key=lambda queue: (queue.layer != TREE, not queue.is_awaited)",
            "key=lambda queue: queue.layer != TREE",
        ),
        ("log: nobody is known to wait", "                self.pacing.waits(queue, now)\n", "                pass\n"),
    ),
    *mutants(
        "storage/lsm/wal/pacing.py",
        "tests/storage/lsm/wal/test_pacing.py",
        (
            "log: who waits has small objects himself",
            "if not self._others_wait(queue, now):",
            "if not self._others_wait(None, now):",
        ),
        (
            "log: only the last who waited counts",
            "latest = (self._waited, self._waited_before)",
            "latest = (self._waited,)",
        ),
        ("log: without a PUT to spare for others there is none", "most = max(most - 1, 1)", "most = most - 1"),
    ),
    *mutants(
        "storage/lsm/wal/log_writer.py",
        "tests/storage/lsm/wal/test_sealing.py",
        ("log: it is sealed behind all else", 'self._env.run("log", seal)', 'self._env.run("codec", seal)'),
    ),
    *mutants(
        "storage/lsm/memtable/write_state.py",
        "tests/storage/lsm/memtable/test_kept.py",
        (
            "pressure: a log of what is kept closes the gate",
            "objects = objects if self.memtable.holds_more_than_kept else 0\n",
            "pass\n",
        ),
    ),
    *mutants(
        "storage/lsm/memtable/backpressure.py",
        "tests/storage/lsm/memtable/test_backpressure.py",
        (
            "backlog: one that stands is let stand",
            "self._standing = self._lowest > self._rate / 2",
            "self._standing = False",
        ),
        ("backlog: a burst is one", "self._standing = self._lowest > self._rate / 2", "self._standing = True"),
        ("backlog: one that has gone is still there", "self._standing = self.unlogged > self._rate / 8", "pass"),
    ),
    *mutants(
        "storage/objects/health.py",
        "tests/storage/objects/test_health.py",
        ("health: what has just failed fails for long", " and each.since <= latest", ""),
    ),
    *mutants(
        "storage/objects/rates.py",
        "tests/storage/objects/test_rates.py",
        (
            "rates: what is all latency gets more time",
            "        if size < TIMED_BYTES_MIN:\n            late = 0",
            "        if False:\n            late = 0",
        ),
        (
            "rates: a large body is as small as a small one",
            "        if size <= SMALL_BYTES_MAX:\n",
            "        if True:\n",
        ),
    ),
    *mutants(
        "storage/objects/trial.py",
        "tests/storage/objects/test_trial.py",
        ("trial: what it writes has no bound", "            if size > self.room:\n", "            if False:\n"),
        ("trial: all is deleted at once", "start : start + DELETED_AT_ONCE]", "start:]"),
    ),
    *mutants(
        "storage/objects/transport.py",
        "tests/storage/objects/test_pages.py",
        ("answers: a page with an ETag confirms a write", 'if method == "PUT" and answer:', "if 0:"),
        ("answers: a page with an ETag is an object", '.lower().startswith("text/html")', ".isdigit()"),
    ),
    *mutants(
        "storage/objects/list_pages.py",
        "tests/storage/objects/test_list_pages.py",
        ("answers: a listing may go on for ever", "if empty > EMPTY_PAGES_MAX:", "if 0:"),
        ("answers: pages without names need not be in a row", "empty = 0 if page.found else empty + 1", "empty += 1"),
    ),
    *mutants(
        "storage/objects/s3.py",
        "tests/storage/objects/test_s3.py",
        (
            "answers: an unknown encoding is a mistake in this program",
            "(ValueError, LookupError, ParseError)",
            "(ValueError, ParseError)",
        ),
    ),
    *mutants(
        "storage/objects/credentials.py",
        "tests/storage/objects/test_credentials.py",
        (
            "credentials: those of a role are believed until they expire",
            "        self._role = None\n        self._look",
            "        self._look",
        ),
        (
            "credentials: a line break within them goes to the wire",
            "if any(char.isspace() or not char.isprintable() for char in text):",
            "if 0:",
        ),
        ("credentials: a line break at their end is theirs", "found.access_key.strip()", "found.access_key"),
    ),
    *mutants(
        "storage/objects/local.py",
        "tests/storage/objects/test_local_stale.py",
        ("store: a stale handle is waited out", "if error.errno in _STALE:", "if 0:"),
    ),
    *mutants(
        "storage/lsm/manifest/manifest_store.py",
        "tests/storage/lsm/test_sole_writer.py",
        (
            "manifests: what is there under any name ends a writer",
            "                if await list_manifests(self._store, above=self.number):\n    "
            "                raise Fenced\n",
            "                raise Fenced\n",
        ),
        (
            "manifests: a newer one is there, and nobody is told",
            "                if await list_manifests(self._store, above=self.number):\n    ",
            "                if 0:\n    ",
        ),
    ),
    *mutants(
        "storage/bucket/outage.py",
        "tests/storage/bucket/test_outage.py",
        (
            "outage: a witness that is withheld is an outage",
            "                if self._gave_at >= since:\n",
            "                if 0:\n",
        ),
        (
            "outage: each who waits asks anew",
            "            if self._silent_at >= since:\n                return False\n",
            "",
        ),
        (
            "outage: it is asked though it gave",
            "            if self._gave_at >= since:\n                return True\n            if",
            "            if",
        ),
    ),
]
