"""Mistakes in the indexes of layers: what clones share, what snapshots keep, what changed between two."""

from tests.mutants.mutant import mutants

SHARED = "tests/storage/lsm/index/test_shared_deltas.py"

TRUNKS = [
    *mutants(
        "storage/lsm/index/reverse_delta.py",
        SHARED,
        ("shared: no copy is made of what is shared", " or is_shared(page):", ":"),
        ("shared: all zeros are holes", "SHARED_DELTAS[content]", "SHARED_DELTAS[0]"),
        (
            "shared: each block that was zeroed has a row",
            "            self._writable(number).merge(rows)\n            self._share(number)\n",
            "            self._writable(number).merge(rows)\n",
        ),
    ),
    *mutants(
        "storage/lsm/index/block_map.py",
        SHARED,
        (
            "shared: what is written over zeros by a rollback is forgotten",
            "        elif not patched and (location == ALLOCATED).all():\n",
            "        elif location.any():\n",
        ),
    ),
    *mutants(
        "storage/lsm/index/shared_deltas.py",
        SHARED,
        ("shared: what is shared can be written to", ".toreadonly()", ""),
    ),
    *mutants(
        "storage/lsm/index/page.py",
        SHARED,
        ("shared: patches over zeros are nothing", " and not found.head.any()", ""),
        ("shared: the first block stands for all", "(found.location == content).all()", "True"),
    ),
    *mutants(
        "storage/lsm/index/image.py",
        SHARED,
        (
            "shared: a run of a checkpoint ends with its last whole page",
            "end + PAGE_MASK >> PAGE_SHIFT",
            "end >> PAGE_SHIFT",
        ),
    ),
    *mutants(
        "storage/lsm/index/shown_sectors.py",
        "tests/storage/lsm/read/test_extents_in_columns.py",
        ("extents: what newer patches cover is seen", "        left[at] &= ~own\n", ""),
        ("extents: of a chain only the newest patch counts", 'head, at = patch["next"][more], at[more]', "at = at[:0]"),
        ("extents: zeros that are allocated are data", "(found.allocated, ALLOCATED), ", ""),
    ),
    *mutants(
        "storage/lsm/index/trunk.py",
        "tests/storage/lsm/read/test_extents_in_columns.py",
        (
            "extents: patches that a snapshot keeps are looked for in the head's table",
            "PartOfPage(held.rows.where(~plain & (held.of == table)), held.tables[table])",
            "PartOfPage(held.rows.where(~plain & (held.of == table)), self.flat.patches)",
        ),
        (
            "extents: what a snapshot keeps without patches is left out",
            "        found.append(PartOfPage(held.rows.where(plain), self.flat.patches))\n",
            "",
        ),
    ),
    *mutants(
        "storage/lsm/read/extents.py",
        "tests/storage/lsm/read/test_extents_in_columns.py",
        (
            "extents: older zeros in memory lie over newer ones",
            "    for table in reversed(tables):\n",
            "    for table in tables:\n",
        ),
        (
            "extents: zeros in memory lie over what was written to them since",
            "        masks.allocated[block - first], masks.hole[block - first] = allocated, hole\n",
            "        pass\n",
        ),
        (
            "extents: blocks that are too many for one answer are passed over",
            "        if block < page_end or singles",
            "        if singles",
        ),
        (
            "extents: what many blocks show is that of the first sector",
            "    for mask in masks:\n        found",
            "    for mask in ():\n        found",
        ),
        ("extents: as many runs as there are", "        elif len(out) == RUNS_AT_ONCE:\n            break\n", ""),
        (
            "extents: as many pages as are asked for",
            "    while block <= last and steps > 0:\n",
            "    while block <= last:\n",
        ),
    ),
    *mutants(
        "storage/lsm/index/lent_pages.py",
        "tests/storage/lsm/index/test_clones_share.py",
        ("clones: who takes a page over writes to it", "        self._lent.add(number)\n", ""),
        ("clones: who gives a page away writes to it", "        other._lent.add(number)\n", ""),
    ),
    *mutants(
        "storage/lsm/index/rows.py",
        "tests/storage/lsm/index/test_freeze.py",
        (
            "freeze: who is done first is done for all",
            "            page.freezes -= 1\n",
            "            page.freezes = 0\n",
        ),
        ("freeze: what was looked at is copied for ever", "            page.freezes -= 1\n", "            pass\n"),
    ),
    *mutants(
        "storage/lsm/index/block_map.py",
        "tests/storage/lsm/index/test_freeze.py",
        (
            "freeze: a frame moves in a page that is looked at",
            "            if page.freezes:\n",
            "            if False:\n",
        ),
    ),
    *mutants(
        "storage/lsm/index/bulk_load.py",
        "tests/storage/lsm/index/test_patches_of_snapshots.py",
        (
            "snapshots: of several the patches of one are taken for those of another",
            "HeldRows(self.rows.where(chosen), self.of[chosen], self.tables)",
            "HeldRows(self.rows.where(chosen), self.of, self.tables)",
        ),
    ),
    *mutants(
        "storage/lsm/index/block_map.py",
        "tests/storage/lsm/index/test_patches_of_snapshots.py",
        (
            "snapshots: a page of nothing but patches is a hole",
            "if not patched and not location.any():",
            "if not location.any():",
        ),
    ),
    *mutants(
        "storage/lsm/index/trunk.py",
        "tests/storage/lsm/index/test_patches_of_snapshots.py",
        (
            "changes: what a snapshot shows by a patch over nothing is nothing",
            "shown.tag[here], shown.head[here] = held.tag[there], held.head[there]",
            "shown.tag[here] = held.tag[there]",
        ),
    ),
    *mutants(
        "storage/lsm/index/reverse_delta.py",
        "tests/storage/lsm/index/test_freeze.py",
        (
            "freeze: a frame moves in a page of a snapshot that is looked at",
            "            page = self._writable(block >> PAGE_SHIFT)\n            page.location[row], page",
            "            page.location[row], page",
        ),
    ),
    *mutants(
        "storage/lsm/index/block_map.py",
        "tests/storage/lsm/index/test_rebase.py",
        (
            "snapshots: what was put together before a rollback takes the place of what came by it",
            "            self._taken.difference_update((rows.at + np.uint32(number << PAGE_SHIFT)).tolist())\n",
            "            pass\n",
        ),
    ),
    *mutants(
        "storage/lsm/index/block_map.py",
        "tests/storage/lsm/index/test_clones_share.py",
        ("clones: patches that the head alone has stay in the table", "        self._have(table)\n", ""),
        (
            "clones: patches are numbered anew in pages of others",
            "page = self.writable(number) if page.has_chains else page",
            "page.has_chains",
        ),
        (
            "clones: a page of holes stays",
            "            del self.pages[number]\n        elif not patched",
            "            pass\n        elif not patched",
        ),
    ),
    *mutants(
        "storage/lsm/index/reverse_delta.py",
        "tests/storage/lsm/index/test_reverse_delta.py",
        ("snapshots: what is kept is kept once more", "            rows = rows.where(~own[rows.at])\n", ""),
        (
            "snapshots: many blocks are kept without their patches",
            "patches, rows.head, blocks)",
            "patches, rows.head * 0, blocks)",
        ),
    ),
    *mutants(
        "storage/lsm/index/trunk.py",
        "tests/storage/lsm/index/test_forest.py",
        (
            "snapshots: a clone gets what the newest of several kept",
            "for delta in self.deltas[at:] if number in delta.pages",
            "for delta in self.deltas[:at:-1] if number in delta.pages",
        ),
    ),
    *mutants(
        "storage/lsm/index/page.py",
        "tests/storage/lsm/index/test_reverse_delta.py",
        ("snapshots: rows are not in the order of their blocks", "(own.tag, rows.tag))[order]", "(own.tag, rows.tag))"),
    ),
    *mutants(
        "storage/lsm/read/changed.py",
        "tests/storage/fs/devices/test_history.py",
        ("changes: what has patches is passed over", "blocks[patched]\n", "blocks[:0]\n"),
        (
            "changes: patches of the newer layer alone count for nothing",
            "(one.head | other.head) != 0",
            "one.head != 0",
        ),
        (
            "changes: of zeros in memory the last block that is asked for is left out",
            "if span.first <= last and",
            "if span.first < last and",
        ),
        (
            "changes: as many blocks as are compared at once are too many",
            "        if len(one_by_one) > left:\n",
            "        if len(one_by_one) >= left:\n",
        ),
        (
            "changes: the last page is left out",
            "for number in range(first >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1):",
            "for number in range(first >> PAGE_SHIFT, last >> PAGE_SHIFT):",
        ),
        (
            "changes: pages are looked for without end",
            "        if lookups <= 0 or",
            "        if",
        ),
        (
            "changes: only the oldest of several snapshots is looked at",
            "for delta in trunk.deltas[low:high]:",
            "for delta in trunk.deltas[low : low + 1]:",
        ),
    ),
    *mutants(
        "storage/lsm/index/trunk.py",
        "tests/storage/fs/devices/test_history.py",
        (
            "changes: a snapshot shows the bases of the head",
            "        shown.location[here], shown.length[here] = held.location[there], held.length[there]\n",
            "",
        ),
    ),
    *mutants(
        "storage/lsm/index/page.py",
        "tests/storage/lsm/index/test_page.py",
        (
            "clones: pages that differ in patches are one",
            "return (self.chains, self.location,",
            "return (other.chains, self.location,",
        ),
    ),
    *mutants(
        "storage/lsm/index/forest.py",
        "tests/storage/lsm/index/test_clones_share.py",
        (
            "clones: a start gives each its own pages",
            "        _share_pages(trunk.flat for trunk in self.trunks() if trunk.shares)\n",
            "",
        ),
        (
            "clones: each has its own pages",
            "        _share_pages([*(other.flat for other in others[-COMPARED_MAX:]), flat])\n",
            "",
        ),
    ),
    *mutants(
        "storage/lsm/layers.py",
        "tests/storage/lsm/flush/test_complete_snapshot.py",
        (
            "snapshots: what was put together lacks what a flush brings later",
            "                self._show_indexes(forest.trunk(number).layers)\n",
            "",
        ),
    ),
    *mutants(
        "storage/format/trunks.py",
        "tests/storage/fs/snapshots/test_snapshots.py",
        (
            "snapshots: one goes on with the index of its device",
            "            return head, child\n",
            "            return (child,)\n",
        ),
    ),
]
