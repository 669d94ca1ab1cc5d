"""Mistakes in what a host remembers of a store: what is durable when, and which of several files counts."""

from tests.mutants.mutant import mutants

OF_HOSTS = [
    *mutants(
        "storage/lsm/recovery/anchor.py",
        "tests/storage/lsm/recovery/test_host_durability.py",
        ("host: a mark that was cut off says something", "if len(raw) == MARK.size else 0", "if len(raw) == 8 else 99"),
        (
            "host: a claim is seen before it is locked",
            """                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                write(descriptor, first_lines(os.getpid(), journal_id))
                hidden.rename(path)
""",
            """                write(descriptor, first_lines(os.getpid(), journal_id))
                hidden.rename(path)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
""",
        ),
        (
            "host: a claim may be gone after a power cut",
            "                hidden.rename(path)\n                sync_folder(self._folder)\n",
            "                hidden.rename(path)\n",
        ),
        (
            "host: who was attached is forgotten with the anchor",
            'path.rename(self._folder / "attached-0.json")',
            "path.unlink()",
        ),
        (
            "host: who was attached first counts",
            "(max(found), found[max(found)].read_bytes())",
            "(min(found), found[min(found)].read_bytes())",
        ),
        (
            "host: what was forgotten comes back with a power cut",
            "            if self._folder.is_dir():\n                sync_folder(self._folder)",
            "",
        ),
        (
            "host: it remembers where others may write",
            "        self._check_folder()\n\n    def _check_folder",
            "\n    def _check_folder",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/locks.py",
        "tests/storage/lsm/recovery/test_host_durability.py",
        (
            "host: the journal that was named first counts",
            'bytes.fromhex(named[-1]) if named and named[-1] != "none"',
            'bytes.fromhex(named[0]) if named and named[0] != "none"',
        ),
        (
            "host: that a take-over landed is forgotten with a power cut",
            '            os.write(self._descriptor, b"confirmed\\n")\n            os.fsync(self._descriptor)\n',
            '            os.write(self._descriptor, b"confirmed\\n")\n',
        ),
        (
            "host: the note of who came later goes",
            "if remove and os.path.samestat(self._path.lstat(), os.fstat(self._descriptor)):",
            "if remove:",
        ),
        (
            "host: a note of another machine is of this one",
            "    if note.machine != machine or (alive and note.boot != boot):",
            "    if alive and note.boot != boot:",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/durable_files.py",
        "tests/storage/lsm/recovery/test_host_durability.py",
        (
            "host: what was replaced comes back with a power cut",
            "    hidden.rename(path)\n    sync_folder(path.parent)\n",
            "    hidden.rename(path)\n",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/unsaved.py",
        "tests/storage/lsm/recovery/test_unsaved.py",
        (
            "unsaved: what failed is not tried again",
            "                    await self.attempt(env, what, self._newest[what])\n",
            "                    pass\n",
        ),
        ("unsaved: what hangs is waited for by all", "        if self._is_late(what):\n", "        if False:\n"),
        ("unsaved: an older one that ends late counts", "if call is self._newest[what] and", "if"),
        (
            "unsaved: what hangs counts as kept",
            "            self._late[what] = running\n            self._not_kept(what, SILENT)\n",
            "            self._late[what] = running\n",
        ),
        (
            "unsaved: it is said with each attempt",
            "        if what not in self._failed:\n",
            "        if what:\n",
        ),
        (
            "unsaved: what is kept again is said for ever",
            "self._failed.pop(what, None) is not None:\n",
            "self._failed.get(what) is not None:\n",
        ),
        (
            "unsaved: an older one is tried again in place of a newer",
            "        self._newest[what] = call\n        if self._is_late",
            "        self._newest.setdefault(what, call)\n        if self._is_late",
        ),
    ),
    *mutants(
        "nbdserver/admin/own_socket.py",
        "tests/nbdserver/admin/test_own_socket.py",
        (
            "host: the admin socket of a living server is replaced by who lost its own",
            "self._listen(self._path, replace=False)",
            "self._listen(self._path, replace=True)",
        ),
        ("host: a folder of sockets that is gone stays so", "if not path.parent.exists():", "if 0:"),
        ("host: a socket that nobody finds is listened on for ever", "await before.stop()", "pass"),
        ("host: a lost admin socket is told of at each look", "self._missed = True", "pass"),
        (
            "host: a server removes the admin socket of another one",
            "unix_sockets.remove(self._path, self._made)",
            "self._path.unlink()",
        ),
    ),
]
