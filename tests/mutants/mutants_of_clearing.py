"""Mistakes in what takes and deletes by itself: clearing, schedules, garbage, the sweep; and in sizes and transfers."""

from tests.mutants.mutant import mutants

TESTS = "tests/storage/fs/snapshots/"

CLEARING = [
    *mutants(
        "storage/fs/snapshots/clearing.py",
        f"{TESTS}test_clearing.py::test_what_a_clone_left_goes_as_soon_as_nobody_has_it "
        f"{TESTS}test_clearing.py::test_what_cannot_be_undone_is_tried_again "
        f"{TESTS}test_clearing.py::test_what_comes_while_others_go_is_not_missed",
        (
            "clearing: what comes in the midst of a round is missed",
            "            self._changed.clear()\n            pause = await self.round()\n",
            "            pause = await self.round()\n            self._changed.clear()\n",
        ),
        (
            "clearing: what somebody had stays though he let it go",
            "if not times and not self._left and not cut_short:",
            "if not times and not cut_short:",
        ),
        (
            "clearing: what could not be undone at once never is",
            "if not times and not self._left and not cut_short:",
            "if not times and not self._left:",
        ),
        (
            "clearing: what cannot be deleted is said at each try",
            "case error if number not in self._left:",
            "case error:",
        ),
        ("clearing: what could not be deleted is forgotten", "                    self._left.add(number)\n", ""),
        (
            "clearing: a refusal to undo ends the writer",
            "except (Conflict, Unreadable) as error:",
            "except Unreadable as error:",
        ),
    ),
    *mutants(
        "storage/fs/snapshots/scheduling.py",
        f"{TESTS}test_scheduling.py::test_a_device_that_somebody_has_for_long_keeps_those_it_has "
        f"{TESTS}test_scheduling.py::test_what_cannot_be_taken_of_all_is_taken_of_each",
        (
            "schedule: what it took of others counts for each device",
            "retained(self._keep, taken.values(), now)",
            "retained(self._keep, {*moments, *taken.values()}, now)",
        ),
        (
            "schedule: one device of which none can be taken keeps all from one",
            "            for device in devices:\n                await self._take_of(device, name)\n",
            "            return\n",
        ),
        (
            "schedule: a name that somebody has ends the writer",
            "        except REFUSALS_OF_ONE as error:\n",
            "        except Conflict as error:\n",
        ),
        (
            "schedule: what was taken of each goes never",
            "await self._snapshots.create([device], name, origin=SnapshotOrigin.SCHEDULE)",
            "await self._snapshots.create([device], name)",
        ),
    ),
    *mutants(
        "storage/lsm/gc/garbage.py",
        "tests/storage/lsm/gc/test_garbage.py",
        (
            "garbage: of several who want it to stay the first decides",
            "            if not self._holds:\n                self._free.set()",
            "            self._free.set()",
        ),
        (
            "garbage: who asks for its deletion does not ask who wants it to stay",
            "while self._names and not self._holds and await",
            "while self._names and await",
        ),
        (
            "garbage: two delete it at a time",
            "        async with self._deleting:\n            return",
            "        if True:\n            return",
        ),
    ),
    *mutants(
        "storage/lsm/gc/sweep.py",
        "tests/storage/lsm/gc/test_garbage_of_an_engine.py",
        (
            "sweep: copies that land late stay",
            "        self._garbage.add(await self.dead_copies())\n",
            "",
        ),
        ("sweep: a writer sweeps once", "            await asyncio.sleep(seconds)\n", "            return\n"),
        (
            "sweep: what is back is said to be lost",
            "        self.lost = sorted(lost)[",
            "        self.lost = self.lost or sorted(lost)[",
        ),
    ),
    *mutants(
        "storage/lsm/gc/sweep.py",
        "tests/storage/lsm/gc/test_sweep.py",
        ("sweep: what is lost is said each hour", " and set(lost) != self._said_lost", ""),
        ("sweep: a foreign object is said each hour", "if info.name not in self._said_foreign:", "if info.name:"),
    ),
    *mutants(
        "storage/lsm/wiring.py",
        "tests/storage/lsm/gc/test_garbage_of_an_engine.py",
        (
            "sweep: fences are leftovers",
            "(manifests.manifest.replay, position.fences),",
            "(manifests.manifest.replay, position.fences[-1:]),",
        ),
    ),
    *mutants(
        "storage/lsm/manifest/manifest_store.py",
        "tests/storage/lsm/gc/test_garbage_of_an_engine.py",
        (
            "manifests: one less stays",
            "n <= self.number - self._manifests_kept and",
            "n <= self.number - self._manifests_kept + 1 and",
        ),
    ),
    *mutants(
        "storage/fs/store.py",
        "tests/storage/fs/test_store_devices.py",
        (
            "delete: a device whose deletion is refused takes no more writes",
            "        record = plan_delete_device(self._tree.namespace, name, self._env.wall_clock())\n"
            "        self.open_devices.retire(inode)\n",
            "        self.open_devices.retire(inode)\n"
            "        record = plan_delete_device(self._tree.namespace, name, self._env.wall_clock())\n",
        ),
        (
            "resize: clients see the next size before it is durable",
            "            device.size = min(size, now)\n",
            "            device.size = now\n",
        ),
        (
            "resize: a disk that is cut off takes writes behind its end for a while",
            "        device.size = min(device.size, size)\n",
            "",
        ),
        (
            "resize: clients do not see it if who asked for it has gone",
            "        await asyncio.shield(task)\n",
            "        await task\n",
        ),
        (
            "resize: the size that it has makes it smaller",
            "if size >= namespace.size(inode):",
            "if size > namespace.size(inode):",
        ),
    ),
    *mutants(
        "nbdserver/admin/transfer.py",
        "tests/nbdserver/admin/test_transfer.py",
        (
            "export: a disk that is cut off behind its last data is as large as it was",
            "    _refuse_another(device, disk, size)\n\n\nasync def read_in_order",
            "\n\nasync def read_in_order",
        ),
    ),
    *mutants(
        "nbdserver/admin/transfer.py",
        "tests/nbdserver/admin/test_export_beside_others.py",
        ("export: it goes on in another disk", "    if device.identity != disk:\n", "    if False:\n"),
        (
            "export: what was read of another disk goes out before that is seen",
            "            _refuse_another(device, disk, size)\n            for piece in _with_offsets(offset, pieces):\n"
            "                yield piece\n",
            "            for piece in _with_offsets(offset, pieces):\n"
            "                yield piece\n            _refuse_another(device, disk, size)\n",
        ),
    ),
    *mutants(
        "nbdserver/admin/transfer.py",
        "tests/nbdserver/admin/test_transfer_pace.py",
        (
            "export: as many reads as there are data",
            "if len(under_way) == READS_AT_ONCE:",
            "if len(under_way) == READS_AT_ONCE**2:",
        ),
        (
            "import: it is as fast as its source",
            "        await asyncio.sleep(self._limiter.delay(len(data)))\n",
            "        self._limiter.delay(len(data))\n",
        ),
        (
            "import: zeros cost nothing",
            "        await asyncio.sleep(self._limiter.delay(ZERO_COSTS_BYTES))\n",
            "        self._limiter.delay(ZERO_COSTS_BYTES)\n",
        ),
    ),
    *mutants(
        "nbdserver/admin/transfer.py",
        "tests/nbdserver/admin/test_snapshot_transfer.py",
        (
            "import: holes take room",
            "        self._device.zero(offset, length, allocated=False)\n",
            "        self._device.zero(offset, length, allocated=True)\n",
        ),
    ),
    *mutants(
        "storage/fs/snapshots/snapshots.py",
        "tests/storage/fs/snapshots/test_clones.py",
        ("clone: of what is half filled", '            self._refuse_exclusive(device, "clone it")\n', ""),
        (
            "clone: one that is refused leaves a snapshot",
            "            plan_clone(names, number, new, 0.0)  # what",
            "            # what",
        ),
        (
            "clone: what was given up before its turn is made in its turn",
            "            given_up = True\n            pinned.close()\n",
            "            pinned.close()\n",
        ),
    ),
    *mutants(
        "storage/fs/snapshots/snapshots.py",
        "tests/storage/fs/snapshots/test_deleted_together.py::test_a_record_has_so_many_at_most",
        (
            "deletion: of many the last record alone says what stays",
            "            refused |= await self._delete_together(",
            "            refused = await self._delete_together(",
        ),
    ),
    *mutants(
        "storage/fs/snapshots/snapshots.py",
        "tests/storage/fs/devices/test_filling_beside_others.py"
        "::test_a_candidate_that_goes_while_another_one_is_compared_is_passed_over",
        (
            "replicate: what is compared may be deleted meanwhile",
            "            with self.pins.pin(layer.number, user):\n                if names",
            "            if user:\n                if names",
        ),
    ),
    *mutants(
        "storage/fs/snapshots/scheduling.py",
        "tests/storage/fs/snapshots/test_scheduling.py::test_a_device_that_somebody_has_is_left_out",
        (
            "schedule: that of one device is that of all",
            "{moment for taken in self._taken().values() for moment in taken.values()}",
            "set(next(iter(self._taken().values()), {}).values())",
        ),
    ),
    *mutants(
        "storage/fs/snapshots/scheduling.py",
        "tests/storage/fs/snapshots/test_scheduling.py::test_what_is_refused_is_said_once_and_seen_until_it_is_taken",
        (
            "schedule: what is refused is said with each look",
            "            if device not in self._untaken:",
            "            if device:",
        ),
        (
            "schedule: what was refused of one counts as refused when it was taken",
            "            self._untaken.pop(device, None)\n",
            "",
        ),
        (
            "schedule: what was refused of all counts as refused when it was taken",
            "            self._untaken.clear()\n            _log",
            "            _log",
        ),
        (
            "schedule: a device that is gone is refused for ever",
            "            del self._untaken[gone]\n",
            "            del gone\n",
        ),
        (
            "schedule: what one refused that is no more is said for ever",
            "        finally:\n            self._untaken.clear()\n",
            "        finally:\n            pass\n",
        ),
    ),
    *mutants(
        "nbdserver/cli/devices/disk_images.py",
        "tests/nbdserver/cli/devices/test_disk_images.py",
        (
            "export: what a full disk took a part of is written",
            "            view = view[count:]\n",
            "            break\n",
        ),
    ),
    *mutants(
        "storage/fs/devices/open_devices.py",
        "tests/storage/fs/test_store_devices.py::test_a_device_is_found_by_name",
        (
            "follow: a view counts as held if all of it is",
            "return any(device in devices for",
            "return all(device in devices for",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/job_context.py",
        "tests/storage/lsm/compaction/test_given_up_before_a_commit.py",
        ("maintenance: what was uploaded stays if it is given up", "            self.garbage.add(uploaded)\n", ""),
    ),
    *mutants(
        "storage/lsm/compaction/job_context.py",
        "tests/storage/lsm/compaction/test_many_drops.py",
        (
            "maintenance: more is dropped than is remembered",
            "            return 0\n",
            "            pass\n",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/compactor.py",
        "tests/storage/lsm/compaction/test_many_drops.py",
        (
            "maintenance: it does not see that there is room again",
            "left, often, bool(context.drop_max())",
            "left, often",
        ),
        ("compact: it ends while drops wait", "            await self.make_room()\n", ""),
    ),
    *mutants(
        "storage/lsm/compaction/sst_table.py",
        "tests/storage/lsm/compaction/test_plan.py",
        (
            "plan: what is dropped may still be read",
            "self.where(self.merged & (self.live == 0))",
            "self.where(self.live == 0)",
        ),
    ),
]
