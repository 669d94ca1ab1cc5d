"""Mistakes in what a server that stands by takes for evidence, and in what a writer leaves for it."""

from tests.mutants.mutant import mutants

TESTS = "tests/storage/fs/succession/"

SUCCESSION = [
    *mutants(
        "storage/format/names.py",
        f"{TESTS}test_stored_attachments.py",
        ("attached: a record may have any number", " and 1 <= number <= _ATTACHED_MAX else", " else"),
        ("attached: a record may be of any epoch", "if epoch <= _EPOCH_MAX and 1 <=", "if 1 <="),
    ),
    *mutants(
        "storage/fs/succession/stored_attachments.py",
        f"{TESTS}test_stored_attachments.py",
        ("attached: a writer goes on from any number", "if number > ATTACHED_ROOM_MAX:", "if False:"),
    ),
    *mutants(
        "storage/fs/succession/evidence.py",
        f"{TESTS}test_evidence.py",
        (
            "standby: no answer counts as silence",
            "        self._last, self.silent_seconds = None, 0.0\n        self._more",
            "        self._more",
        ),
        ("standby: the moment behind an outage is as good as any", "        self._more = OUTAGE_SECONDS\n", ""),
        (
            "standby: who was asleep has watched",
            "            self.silent_seconds += min(max(began - self._last, 0.0), PAUSE_SECONDS_MAX)\n",
            "            self.silent_seconds += began - self._last\n",
        ),
        (
            "standby: a look that lasted has watched meanwhile",
            "            self._more, self._last = 0.0, ended\n",
            "            self._more, self._last = 0.0, began\n",
        ),
        (
            "standby: who gives no signs has ended",
            "        return None if sign is None else sign.lease_seconds + self._more\n",
            "        return (4.0 if sign is None else sign.lease_seconds) + self._more\n",
        ),
        (
            "standby: a newer manifest is no sign of life",
            "        if seen != self.seen:\n",
            "        if self.seen is None or seen.sign != self.seen.sign:\n",
        ),
    ),
    *mutants(
        "storage/fs/succession/standby.py",
        f"{TESTS}test_standby.py",
        (
            "standby: a log that grows is no sign of life",
            "        if await self._end_of_log() != self._log_end:\n",
            "        if not self._log_end:\n",
        ),
        (
            "standby: who is far behind does not see it",
            "            if behind or await self._is_newer():\n",
            "            if await self._is_newer():\n",
        ),
        ("standby: manifests are never listed", "if now - self._listed_at < LIST_SECONDS:", "if True:"),
    ),
    *mutants(
        "storage/fs/succession/standby.py",
        f"{TESTS}test_standby.py",
        (
            "standby: who came back meanwhile has ended all the same",
            "        if alive:\n",
            "        if seen is None:\n",
        ),
        (
            "standby: a log that grew while all was read is no sign of life",
            " or await self._end_of_log() != self._log_end\n        except",
            "\n        except",
        ),
    ),
    *mutants(
        "storage/fs/succession/standby.py",
        f"{TESTS}test_standby.py",
        (
            "standby: what was seen before a turn that came to nothing counts",
            "        self._evidence, self._known_tag, self._log_end = Evidence(), None, None\n",
            "        self._known_tag, self._log_end = None, None\n",
        ),
        (
            "standby: a sign that is damaged keeps everybody from a closed store",
            "        except (NotFound, Corrupt):\n            return None",
            "        except NotFound:\n            return None",
        ),
    ),
    *mutants(
        "storage/fs/following.py",
        "tests/storage/fs/test_following.py::test_so_many_views_and_no_more",
        (
            "follow: views that clients have are forgotten with those that nobody has",
            "            self._views = [*held, self._views[-1]]\n",
            "            self._views = [self._views[-1]]\n",
        ),
        (
            "follow: views that nobody has stay",
            "            self._views = [*held, self._views[-1]]\n",
            "            pass\n",
        ),
    ),
    *mutants(
        "storage/fs/opening.py",
        f"{TESTS}test_last_look.py",
        (
            "standby: the store is taken without a last look",
            "            await options.last_look()\n",
            "",
        ),
    ),
    *mutants(
        "storage/fs/succession/signs_of_life.py",
        f"{TESTS}test_signs_that_fail.py",
        ("standby: what landed since does not count", "        self._failing = 0\n        now", "        now"),
        ("standby: one sign that is lost is said", "if self._failing == SAID_FROM:", "if self._failing == 1:"),
    ),
    *mutants(
        "storage/fs/succession/signs_of_life.py",
        f"{TESTS}test_standby.py",
        (
            "standby: a writer on a bad line asks for no more patience",
            "        return min(max(LEASE_SECONDS_MIN, LEASE_PAUSES * longest), LEASE_SECONDS_MAX)\n",
            "        return LEASE_SECONDS_MIN\n",
        ),
        (
            "standby: a word counts as given before it has landed",
            "        if word is self._word and word is not Word.SERVES:\n",
            "        if word is self._word:\n",
        ),
        (
            "standby: a writer that stood still deletes the sign of its successor",
            "                await manifests.look_for_newer()\n",
            "",
        ),
    ),
    *mutants(
        "storage/fs/succession/stored_attachments.py",
        f"{TESTS}test_stored_attachments.py",
        (
            "standby: the record of who is attached goes before the next is there",
            "        await create_once(self._store, name, sealed, on_gone=_nothing)\n"
            "        self._older = [*await self._left(), name]\n",
            "        left = await self._left()\n"
            "        await create_once(self._store, name, sealed, on_gone=_nothing)\n"
            "        self._older = [*left, name]\n",
        ),
        (
            "standby: nobody can attach where a deletion is refused",
            "        except (TimeoutError, *REFUSALS):\n",
            "        except TimeoutError:\n",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/turn.py",
        "tests/storage/lsm/recovery/test_turn.py",
        (
            "standby: the store is taken from whoever has it by then",
            "        return self.forced == tag if isinstance(self.forced, bytes) else self.forced\n",
            "        return bool(self.forced)\n",
        ),
    ),
    *mutants(
        "storage/fs/succession/standby.py",
        f"{TESTS}test_standby_on_the_host_of_a_writer.py",
        (
            "standby: a restart on the same host loses its store",
            'if self._holder.state == "gone" and not manifest.closed:',
            'if self._holder.state == "gone":',
        ),
        (
            "standby: a process that lives here has its store taken",
            '        if self._holder.state == "held":\n            return None\n        if verdict == "closed":',
            '        if verdict == "closed":',
        ),
        (
            "standby: who holds his lock has the store for ever",
            "if held and (now - self._reread_at < REREAD_SECONDS or not await self._is_newer()):",
            "if held:",
        ),
    ),
    *mutants(
        "nbdserver/service/predecessor.py",
        "tests/nbdserver/service/test_predecessor.py",
        (
            "restart: whoever listens by then is asked to stop",
            'if server is not None and server.process()["pid"] == self.pid:',
            "if server is not None:",
        ),
        ("restart: another user's server is stopped", "    if uid != os.geteuid():\n", "    if False:\n"),
        (
            "restart: a process with the number of one that ended is waited for",
            '        if server.process()["pid"] != pid:\n',
            "        if False:\n",
        ),
        (
            "restart: one that is halted finds the question later",
            "            if is_halted(self.pid):\n                # Nor",
            "            if False:\n                # Nor",
        ),
    ),
    *mutants(
        "storage/fs/succession/signs_of_life.py",
        f"{TESTS}test_standby.py",
        (
            "standby: the record of who is attached goes with the signs of others",
            "if (epoch := sign_epoch(name)) is not None and epoch != self._epoch]",
            "if sign_epoch(name) != self._epoch]",
        ),
        (
            "standby: a sign that hangs is the last one",
            "            async with asyncio.timeout(SIGN_SECONDS_MAX):\n",
            "            async with asyncio.timeout(None):\n",
        ),
    ),
]
