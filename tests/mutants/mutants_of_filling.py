"""Mistakes in what fills a device beside others, and in what is kept over what cannot be read."""

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
]
