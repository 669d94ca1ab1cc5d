"""The program as a guest without Python can run it: the interpreter that runs the tests, and the modules that
`nbdserver attach` loads, a tenth of all.
"""

import compileall
import json
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.support.program import REPOSITORY

LOADED = """
import json, sys
import runpy, shutil, importlib.util, encodings.idna, stringprep, unicodedata, traceback, logging.handlers, select
import concurrent.futures.thread, nbdserver.cli.serving.cmd_attach, nbdserver.kernel_client.staying
import nbdserver.service.logs, nbdserver.service.daemon, nbdserver.cli.shared.event_sentences
import nbdserver.cli.shared.config_file, tomllib, signal, shlex, storage.trusted_files
print(json.dumps([file for file in (getattr(each, "__file__", None) for each in sys.modules.values()) if file]))
"""
"""What the commands import when they run, also what only some of their runs do."""

RUN = """#!/bin/sh
here=/setup/folder/program
export PYTHONHOME=$here/python PYTHONPATH=$here/site LD_LIBRARY_PATH=$here/shared
exec $here/python/bin/python3 -m nbdserver "$@"
"""


def put_into(folder: Path) -> None:
    """Make `folder/nbdserver`, to be run by a guest that has `folder` as /setup/folder (tests/lab/guest-nbd.sh)."""
    program = folder / "program"
    (program / "python" / "bin").mkdir(parents=True)
    interpreter = Path(sys.executable).resolve()
    shutil.copy(interpreter, program / "python" / "bin" / "python3")
    loaded = subprocess.run([sys.executable, "-c", LOADED], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    packages = Path(sysconfig.get_path("purelib")).resolve()
    inside = program / "python" / "lib" / standard.name
    files = [Path(file).resolve() for file in json.loads(loaded.stdout)] + [REPOSITORY / "nbdserver" / "__main__.py"]
    for file in files:
        for root, place in ((packages, program / "site"), (standard, inside), (REPOSITORY, program / "site")):
            if file.is_relative_to(root):
                target = place / file.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
                break
    compileall.compile_dir(program, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    _copy_libraries([interpreter, *(file for file in files if file.suffix == ".so")], program / "shared")
    (folder / "nbdserver").write_text(RUN)
    (folder / "nbdserver").chmod(0o755)


def _copy_libraries(files: list[Path], place: Path) -> None:
    place.mkdir()
    said = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=True).stdout
    for library in {line.split(" => ")[1].split(" (")[0] for line in said.splitlines() if " => /" in line}:
        if "/libc.so" not in library:
            shutil.copy(library, place)
