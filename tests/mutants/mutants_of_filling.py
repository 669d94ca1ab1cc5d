"""Mistakes in what fills a device beside others, in what is kept over what cannot be read, and in zeros in memory."""

from tests.mutants.mutant import mutants

FILLING = [
    *mutants(
        "storage/fs/devices/filling.py",
        "tests/storage/fs/devices/test_filling_beside_others.py",
        ("filling: what is being filled is undone", " and layer.number not in self._under_way)", ")"),
        (
            "filling: what it goes on from may be deleted while it is compared",
            "            with self._pins.pin(origin.number, user):\n",
            "            if user:\n",
        ),
        (
            "filling: nobody undoes what could not be undone at once",
            "            device.exclusive_user = None\n        self.on_cut_short()\n",
            "            device.exclusive_user = None\n",
        ),
        (
            "filling: what was set aside goes under who is attached to it",
            '            self._refuse_in_use(name, "delete it")\n            if number in self._pins:',
            "            if number in self._pins:",
        ),
        (
            "filling: what was set aside goes under who reads it",
            "            if number in self._pins:\n                raise",
            "            if False:\n                raise",
        ),
    ),
    *mutants(
        "storage/fs/devices/filling.py",
        "tests/storage/fs/devices/test_filling.py::test_a_snapshot_is_not_filled",
        ("filling: a snapshot is filled", "        if split_snapshot(name)[1]:\n", "        if False:\n"),
    ),
    *mutants(
        "storage/fs/devices/filling.py",
        "tests/storage/fs/devices/test_filling_by_links.py",
        (
            "filling: a link that leads elsewhere has another disk set aside",
            "            if inode.number != file:\n",
            "            if False:\n",
        ),
        (
            "filling: a link that leads elsewhere has another disk marked",
            "number = self._tree.namespace.device_file(file).layer",
            "number = self._tree.namespace.device(name)[1].layer",
        ),
    ),
    *mutants(
        "storage/fs/devices/filling.py",
        "tests/storage/fs/devices/test_identity.py",
        (
            "filling: a disk with another content is the same disk",
            "generation=inode.generation + 1)",
            "generation=inode.generation)",
        ),
    ),
    *mutants(
        "storage/lsm/flush/complete.py",
        "tests/storage/lsm/read/test_unreadable_flush.py tests/storage/lsm/flush/test_complete.py",
        (
            "pieces: what is read again bounds for ever",
            "    for number, layer in layers.items():\n        layer.kept_bytes = kept[number]\n",
            "    for number in kept:\n        layers[number].kept_bytes = kept[number]\n",
        ),
        ("pieces: one within another cuts it off", "            high = max(high, end)\n", "            high = end\n"),
    ),
    *mutants(
        "storage/lsm/layer.py",
        "tests/storage/lsm/read/test_unreadable_flush.py",
        ("pieces: beginnings of sectors have no bound", "if (offset | length) &", "if offset &"),
        ("pieces: ends of sectors have no bound", "if (offset | length) &", "if length &"),
    ),
    *mutants(
        "storage/lsm/flush/complete.py",
        "tests/storage/lsm/flush/test_complete_snapshot.py",
        (
            "pieces: what a snapshot has in the same flush does not lie below",
            "    tables = [table, *layer.inherited]\n",
            "    tables = [table]\n",
        ),
    ),
    *mutants(
        "storage/lsm/flush/flush.py",
        "tests/storage/lsm/flush/test_complete.py",
        ("pieces: nobody is told that they are kept", "if layers and layers != self._layers_kept:", "if False:"),
        ("pieces: that they are kept is said at each flush", " and layers != self._layers_kept", ""),
    ),
    *mutants(
        "storage/lsm/layer.py",
        "tests/storage/lsm/test_layer.py",
        (
            "zeros: a sector is read from below them",
            " and (len(self.memtables) > 1 or self.active.zeros):",
            " and len(self.memtables) > 1:",
        ),
        (
            "zeros: the log does not know which stay allocated",
            "self.queue.append((sequence, offset, length, allocated), zero",
            "self.queue.append((sequence, offset, length, False), zero",
        ),
        (
            "zeros: a replay makes holes of them",
            "self.links.zero(record[1], record[2], allocated=record[3], sequence=record[0])",
            "self.links.zero(record[1], record[2], allocated=False, sequence=record[0])",
        ),
        (
            "zeros: a part of a block is read from below them",
            "if len(self.memtables) > 1 or self.active.zeros or self.index",
            "if len(self.memtables) > 1 or self.index",
        ),
    ),
    *mutants(
        "nbdserver/admin/transfer.py",
        "tests/nbdserver/admin/test_transfer.py",
        (
            "export: a disk that is half filled is copied",
            '    if device.exclusive_user is not None:\n        raise Conflict(f"the device is in use',
            '    if False:\n        raise Conflict(f"the device is in use',
        ),
        (
            "import: it waits for no room",
            "        if gate.closed:\n            self._turn.clear()",
            "        if False:\n            self._turn.clear()",
        ),
        ("salvage: what is withheld ends it", "    except (Corrupt, Unreadable):\n", "    except Corrupt:\n"),
    ),
]
