"""Where the journals of this host lie: files in memory that hold what was answered and is not in the store yet.

By default they lie in the runtime folder, if that is in memory, and else there are none: each write would wait for
a disk, and on it what they hold would outlive the boot.
"""

from collections.abc import Mapping
from pathlib import Path

from nbdserver.admin.sockets import make_runtime_folder, runtime_folder
from storage.errors import AccessDenied
from storage.journal.files import lies_in_memory

OFF = "off"


def journal_folder(wanted: str | None, environ: Mapping[str, str]) -> Path | None:
    """The folder that --journal means: the one it names, none for `off`, and without it the runtime folder.

    A folder that was named and cannot be used is an error when the store is opened.
    """
    if wanted is not None:
        return None if wanted == OFF else Path(wanted).absolute()
    folder = runtime_folder(environ)
    try:
        make_runtime_folder(folder)
        return folder if lies_in_memory(folder) else None
    except (AccessDenied, OSError):
        return None
