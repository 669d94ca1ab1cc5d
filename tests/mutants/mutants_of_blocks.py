"""Mistakes on a block's way through memory: where it is linked, found, put together, and counted as in use."""

from tests.mutants.mutant import mutants

DROPS = "tests/storage/lsm/compaction/test_many_drops.py"

OF_BLOCKS = [
    *mutants(
        "storage/lsm/memtable/link.py",
        "tests/storage/lsm/memtable/test_link.py",
        (
            "link: a sector between ranges of zeros is no write",
            "            entry.extents.pop(sector, None)\n        self.newest_write = sequence\n",
            "            entry.extents.pop(sector, None)\n",
        ),
        (
            "link: what has any other length is no write",
            '        """A write of any length."""\n        self.newest_write = sequence\n',
            '        """A write of any length."""\n',
        ),
        (
            "link: an uploaded block between ranges of zeros is no write",
            "        self.memtable.located += 1\n        self.newest_write = sequence\n",
            "        self.memtable.located += 1\n",
        ),
    ),
    *mutants(
        "storage/lsm/memtable/memtable.py",
        "tests/storage/lsm/memtable/test_link.py",
        (
            "memtable: a range takes the block behind it along",
            "[block for block in blocks if first <= block < end]",
            "[block for block in blocks if first <= block <= end]",
        ),
    ),
    *mutants(
        "storage/lsm/index/map_scan.py",
        "tests/storage/lsm/index/test_map_scan.py",
        (
            "scan: what one step gives is all",
            "            if len(found) < FRAMES_AT_ONCE:",
            "            if len(found) <= FRAMES_AT_ONCE:",
        ),
        (
            "scan: live rows behind free ones are dead",
            "    for start in range(0, index.patches.rows, PATCHES_AT_ONCE):\n        part = index",
            "    for start in range(0, len(index.patches), PATCHES_AT_ONCE):\n        part = index",
        ),
        (
            "scan: frames of rows behind free ones stay where they are",
            "    for start in range(0, index.patches.rows, PATCHES_AT_ONCE):\n        columns",
            "    for start in range(0, len(index.patches), PATCHES_AT_ONCE):\n        columns",
        ),
        (
            "scan: the last page of each step is passed over",
            "        some = pages[start : start + PAGES_AT_ONCE]\n",
            "        some = pages[start : start + PAGES_AT_ONCE - 1]\n",
        ),
        (
            "scan: the frames on the last page of each step stay",
            "        found: list[FrameRef] = []\n        for number in numbers[start : start + PAGES_AT_ONCE]:\n",
            "        found: list[FrameRef] = []\n        for number in numbers[start : start + PAGES_AT_ONCE - 1]:\n",
        ),
    ),
    *mutants(
        "storage/lsm/index/block_map.py",
        "tests/storage/lsm/index/test_rebase.py",
        (
            "map: what was put together outlives what it was made of",
            "            page.set_head(at, 0)\n            self.forget_assembled(block)\n",
            "            page.set_head(at, 0)\n",
        ),
    ),
    *mutants(
        "storage/cache/frame_cache.py",
        "tests/storage/cache/test_frame_cache.py",
        (
            "cache: places of what was discarded stay for ever",
            "if len(self._small) + len(self._main) > 2 * len(self.entries) + STALE_MAX:",
            "if False:",
        ),
        ("cache: what moved is there twice", "            self.discard(old)\n", ""),
    ),
    *mutants(
        "nbdserver/server/session.py",
        "tests/nbdserver/server/test_back_pressure.py",
        (
            "session: a long write that is answered later keeps its room",
            "            self._carry_out(write)\n            self.admission.release_payload()\n            return True",
            "            self._carry_out(write)\n            return True",
        ),
    ),
    *mutants(
        "nbdserver/server/acceptor.py",
        "tests/nbdserver/server/test_acceptor.py",
        (
            "acceptor: one that went away again was the last one",
            "            self._watch()  # it went away again",
            "            pass  # it went away again",
        ),
    ),
    *mutants(
        "nbdserver/service/service.py",
        "tests/nbdserver/cli/serving/test_reload.py",
        ("service: a new budget is not gone by", "        store.governor.change(settings.request_budget)\n", ""),
        ("service: new limits are not gone by", "        self._server.use_limits(_limits(settings))\n", ""),
        ("service: new prices are not gone by", "        store.prices = price_list(settings)\n", ""),
    ),
    *mutants(
        "nbdserver/kernel_client/kernel_device.py",
        "tests/nbdserver/kernel_client/test_kernel_device.py",
        (
            "attach: what is mounted is nobody's",
            "            return error.errno == errno.EBUSY",
            "            return error.errno == errno.EACCES",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/job_context.py",
        DROPS,
        (
            "drops: one deletion that fails, and nobody waits for the others",
            "        if not self.garbage.is_stuck and",
            "        if self.garbage.failing is None and",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/sst_table.py",
        DROPS,
        (
            "drops: writers wait for what waits for deletions",
            "        return int(self.size[~self.merged | (self.live > 0)].sum())",
            "        return int(self.size.sum())",
        ),
    ),
    *mutants(
        "storage/lsm/gc/sweep.py",
        DROPS,
        (
            "drops: what earlier writers left pushes them out",
            "            swept = found.old[: max(self._garbage.room_at_half, 0)]\n",
            "            swept = found.old\n",
        ),
    ),
]
