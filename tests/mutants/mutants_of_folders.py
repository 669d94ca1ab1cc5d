"""Mistakes in a store that is a folder: what is durable when, what a system call gives, whose files are removed."""

from tests.mutants.mutant import mutants

OF_FOLDERS = [
    *mutants(
        "storage/objects/store_folder.py",
        "tests/storage/objects/test_local_durability.py",
        (
            "folder: one whose name could not be synced counts as durable",
            "            folders.make(root, folder)\n            self._durable.add(folder)\n",
            "            self._durable.add(folder)\n            folders.make(root, folder)\n",
        ),
        (
            "folder: who finds one removed takes the unfinished files of others along",
            "                self._retired.append(self._temporaries)  # another thread may be using its descriptor\n",
            "                self._temporaries.close()\n",
        ),
    ),
    *mutants(
        "storage/objects/store_folder.py",
        "tests/storage/objects/test_local.py",
        (
            "folder: a store that is gone is one of which a part is",
            "        if root is not None:\n            self.check_presence(root)\n",
            "",
        ),
    ),
    *mutants(
        "storage/objects/local.py",
        "tests/storage/objects/test_local.py",
        ("folder: what lies elsewhere is read through a link", "os.O_RDONLY | os.O_NOFOLLOW", "os.O_RDONLY"),
        (
            "folder: what is no file stays open",
            "            os.close(descriptor)\n            raise NotFound",
            "            raise NotFound",
        ),
        (
            "folder: a read that gives less gives all",
            "            while len(data) < wanted:",
            "            while False:",
        ),
        (
            "folder: an object that became shorter is whole",
            '                    raise Unavailable(f"{name} in {self.url} became shorter while it was read")\n',
            "                    break\n",
        ),
        ("folder: a quota is no lack of room", "{errno.ENOSPC, errno.EDQUOT, errno.EFBIG}", "{errno.ENOSPC}"),
        (
            "folder: what replaced nothing stays as it was written",
            "                temporaries.remove(temporary)\n                raise\n",
            "                raise\n",
        ),
        (
            "folder: what is deleted while it is listed ends the listing",
            "                    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile\n",
            "                    with contextlib.suppress():\n",
        ),
    ),
    *mutants(
        "storage/objects/folders.py",
        "tests/storage/objects/test_local_links.py",
        (
            "folder: what lies elsewhere is changed through a link",
            "os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW",
            "os.O_RDONLY | os.O_DIRECTORY",
        ),
        (
            "folder: one that is a link is an empty one",
            "        if error.errno in (errno.ENOTDIR, errno.ELOOP) and is_link(descriptor, part):\n"
            "            raise FoundLink(above + part) from error\n",
            "",
        ),
        (
            "folder: a link is no part of a listing of all",
            "elif entry.is_symlink() and not past_links and not _leads_to_file(entry):",
            "elif False:",
        ),
    ),
    *mutants(
        "storage/objects/folders.py",
        "tests/storage/objects/test_local_durability.py",
        (
            "folder: files that others put beside unfinished ones are removed",
            "filter(_FILE.fullmatch, os.listdir(descriptor))",
            "os.listdir(descriptor)",
        ),
        ("folder: a longer name is one of ours", "_TEMPORARIES.fullmatch", "_TEMPORARIES.match"),
        (
            "folder: one that another sweep has removed is used",
            "        except FileNotFoundError:\n            return False\n        return True",
            "        except FileNotFoundError:\n            return True\n        return True",
        ),
    ),
]
