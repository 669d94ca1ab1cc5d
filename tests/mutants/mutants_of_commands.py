"""Mistakes in what people type: the tree of names, the configuration file, completion; and what the cache is for."""

from tests.mutants.mutant import mutants

FILES = "tests/storage/fs/test_file_tree.py"
CONFIG = "tests/nbdserver/cli/shared/test_config_file.py"

COMMANDS = [
    *mutants(
        "nbdserver/cli/root.py",
        "tests/nbdserver/cli/shared/test_event_sentences.py",
        ("commands: what is logged before all is loaded is a bare word", "    say_events()\n", ""),
    ),
    *mutants(
        "nbdserver/cli/root.py",
        "tests/nbdserver/cli/test_process_one.py",
        ("commands: a stop is lost while process 1 of a container starts", "    heed_termination()\n", ""),
    ),
    *mutants(
        "nbdserver/cli/devices/cmd_fs.py",
        "tests/nbdserver/cli/devices/test_fs.py",
        ("fs: a link looks like a file", '"symlink": modes.S_IFLNK', '"symlink": modes.S_IFREG'),
        (
            "fs: the tree ends with its first directory",
            "_list(place, path, below=True",
            "_list(place, path, below=False",
        ),
        ("fs: nobody is an owner", "if not (uid or gid) or not all(", "if not all("),
        ("fs: another group is another owner too", "uid=int(uid) if uid else None", "uid=int(uid or 0)"),
    ),
    *mutants(
        "nbdserver/admin/file_operations.py",
        "tests/nbdserver/cli/devices/test_fs.py",
        ("fs: no directory is made", "        await store.files.make_directory(self.path)\n", ""),
        (
            "fs: what was moved is shown where it was",
            "return _shown(store, self.new)",
            "return _shown(store, self.old)",
        ),
        ("fs: a group is not given", "uid=self.uid, gid=self.gid", "uid=self.uid"),
        ("fs: nothing is removed", "        await store.files.remove(self.path)\n", ""),
    ),
    *mutants(
        "storage/fs/file_tree.py",
        FILES,
        ("files: they come in order of age", "sorted(entries.items())", "entries.items()"),
        (
            "files: a link at the end is followed",
            "trail = walk(table, path, follow=False)",
            "trail = walk(table, path)",
        ),
        ("files: a device leaves the devices", " or not new.startswith(BELOW):", ":"),
        ("files: a device in use is moved", '        self._refuse_in_use(name, "move it")\n', ""),
        ("files: one directory is all below it", "if below and info.kind", "if info.kind"),
        ("files: a link has no size", "size=self._tree.namespace.size(inode)", "size=0"),
        ("files: modified is when it was changed", "modified=inode.mtime / 1e9", "modified=inode.ctime / 1e9"),
        ("files: changed is when it was modified", "changed=inode.ctime / 1e9", "changed=inode.mtime / 1e9"),
    ),
    *mutants(
        "storage/fs/metadata/file_plans.py",
        FILES,
        ("files: a full directory goes", "    if names.table.entries.get(inode.number):\n", "    if False:\n"),
        ("files: a device goes as a file", "    if inode.kind is InodeKind.DEVICE:\n", "    if False:\n"),
        ("files: a directory lies in itself", "if any(number == inode.number for _, number in above):", "if False:"),
        ("files: devices move with their directory", " or _has_devices(names, inode.number):", ":"),
        ("files: the root is moved", "    if len(trail) == 1 or (", "    if ("),
        ("files: the directory of devices moves", "(trail[-2][1] == ROOT and trail[-1][0] == DEVICES)", "False"),
        ("files: what was removed keeps its inode", "RemoveInode(inode.number), ", ""),
        ("files: a move is not seen in the directories", "sorted({before, directory})", "()"),
        ("files: what was moved did not change", "ctime=nanoseconds(now))),\n    ]", "ctime=inode.ctime)),\n    ]"),
        ("files: an empty target will do", "    check_target(target)\n", ""),
        ("files: any mode will do", "    check_attributes(changed)\n", ""),
    ),
    *mutants(
        "nbdserver/cli/shared/config_file.py",
        CONFIG,
        ("config: others may write it", "        trusted_folder(path.parent)\n", ""),
        ("config: what is done once may stand in it", " and each.name not in NEVER:", ":"),
        ("config: a flag may be anything", "        if not isinstance(value, bool):\n", "        if False:\n"),
        ("config: one value is a list", "    if option.multiple != isinstance(value, list):\n", "    if False:\n"),
        ("config: true is a number", "if isinstance(each, bool) or not", "if not"),
        ("config: values are not tried", "            option.type(str(each), param=option)\n", "            pass\n"),
        ("config: what is no option is passed over", "    if not found:\n", "    if False:\n"),
        ("config: lines count from zero", "enumerate(text.splitlines(), 1)", "enumerate(text.splitlines())"),
        (
            "config: the top weighs more than a table",
            "        inner[option.name] = as_given\n",
            "        inner.setdefault(option.name, as_given)\n",
        ),
    ),
    *mutants(
        "nbdserver/cli/shared/config_file.py",
        "tests/nbdserver/cli/serving/test_file_options.py",
        ("config: a number is no text", "        texts.append(str(each))\n", "        texts.append(each)\n"),
    ),
    *mutants(
        "nbdserver/cli/shared/config_place.py",
        CONFIG,
        ("config: that of the folder does not count", 'folders = ["", *(', "folders = [*("),
    ),
    *mutants(
        "nbdserver/cli/shell/cmd_config.py",
        CONFIG,
        ("config: a password is shown", '"(not shown)", name)', "os.environ[name], name)"),
        ("config: the environment is nobody", "    if source is ParameterSource.ENVIRONMENT:\n", "    if False:\n"),
        ("config: no line is named", "line = file.line_of(table, name)", "line = None"),
    ),
    *mutants(
        "nbdserver/cli/shell/cmd_completion.py",
        "tests/nbdserver/cli/shell/test_completion.py",
        ("completion: every shell is bash", "get_completion_class(shell)", 'get_completion_class("bash")'),
        ("completion: nobody listens", 'VARIABLE = "_NBDSERVER_COMPLETE"', 'VARIABLE = "_NBDSERVER_COMPLETES"'),
    ),
    *mutants(
        "storage/cache/frame_cache.py",
        "tests/storage/cache/test_hit_rates.py",
        ("cache: one hit is none", "        found.hits += 1\n", ""),
        ("cache: what was read once stays", "            if frame.hits > 1:\n", "            if frame.hits >= 0:\n"),
        ("cache: what went is not remembered", "        self._ghost[location] = None\n", ""),
        ("cache: what was asked for again goes all the same", "        if frame.hits:\n", "        if False:\n"),
    ),
    *mutants(
        "nbdserver/cli/snapshots/quiescing.py",
        "tests/integration/test_quiescing.py::test_a_frozen_filesystem_needs_no_recovery",
        ("quiescing: commands find the password", "env=without_secrets(os.environ)", "env=None"),
    ),
    *mutants(
        "nbdserver/cli/shared/passwords.py",
        "tests/nbdserver/cli/shared/test_passwords.py",
        (
            "passwords: a command reads what comes in for its caller",
            "stdin=None if os.isatty(INPUT) else subprocess.DEVNULL",
            "stdin=None",
        ),
        (
            "passwords: a command may ask nobody",
            "stdin=None if os.isatty(INPUT) else subprocess.DEVNULL",
            "stdin=subprocess.DEVNULL",
        ),
    ),
    *mutants(
        "nbdserver/cli/snapshots/quiescing.py",
        "tests/nbdserver/cli/snapshots/test_snapshots.py",
        ("quiescing: who kills the guard is told of a connection", "suppress(ConnectionResetError)", "suppress()"),
        ("quiescing: commands read their caller's input", "stdin=subprocess.DEVNULL, stdout=ERROR", "stdout=ERROR"),
        (
            "quiescing: commands print into the answer",
            "stdin=subprocess.DEVNULL, stdout=ERROR",
            "stdin=subprocess.DEVNULL",
        ),
    ),
    *mutants(
        "nbdserver/cli/devices/disk_images.py",
        "tests/nbdserver/cli/devices/test_disk_images.py",
        ("export: what was there shows through the holes", "os.ftruncate(self._descriptor, 0)", "pass"),
        ("export: what is there is emptied again and again", "        self._begun = True\n", ""),
    ),
    *mutants(
        "nbdserver/cli/store_care/cmd_password.py",
        "tests/nbdserver/cli/store_care/test_cmd_password.py",
        ("sheet: what is left to do keeps it back", "        return error\n", "        raise error\n"),
        ("sheet: what was not written is written at the end", "            sys.stdout.flush()\n", ""),
    ),
    *mutants(
        "nbdserver/cli/snapshots/cmd_snapshot.py",
        "tests/nbdserver/cli/snapshots/test_snapshots.py",
        (
            "snapshots: what fails afterwards takes the answer",
            "            return answer, str(error)\n",
            "            raise\n",
        ),
        ("snapshots: an interrupted one may not be there", "            complain(f\"{', '", "            str(f\"{', '"),
    ),
    *mutants(
        "nbdserver/cli/serving/cmd_restart.py",
        "tests/integration/test_restart.py::test_what_lies_in_the_folder_of_the_old_one_is_not_run",
        (
            "restart: the folder of the old server is a part of the program",
            'sys.executable, "-P", "-m"',
            'sys.executable, "-m"',
        ),
        ("restart: a place without a name is the old server's folder", 'if own.get("PYTHONPATH"):', "if False:"),
    ),
]
