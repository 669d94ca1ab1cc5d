"""This file knows where the admin socket of a store's server lies, for the server that makes it and for who
looks.

It lies in the runtime folder, under a name made from where the store is, so that a command that knows only
the store finds the server. Folder and socket belong to one user and are open to nobody else: that is all
there is to log in.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from storage.errors import AccessDenied, Invalid

SYSTEM_FOLDER = Path("/run/nbdserver")

PATH_BYTES_MAX = 107
"""Of a Unix socket on Linux."""


def runtime_folder(environ: Mapping[str, str]) -> Path:
    """Where this user's servers put their sockets."""
    return _folders(environ)[0]


def socket_path(folder: Path, store: str) -> Path:
    """The socket of the server of `store`, as `config.locate` writes it.

    Invalid: the path is too long for one.
    """
    path = _join(folder, store)
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise Invalid(
            f"a socket in {folder} would have a path of more than {PATH_BYTES_MAX} bytes: "
            "name a shorter folder with NBDSERVER_RUNTIME_FOLDER"
        )
    return path


def sockets_to_try(environ: Mapping[str, str], store: str) -> list[Path]:
    """Where the socket of a store's server may lie: this user's own folder first, then the system's."""
    folders = dict.fromkeys([*_folders(environ), SYSTEM_FOLDER])
    return [path for folder in folders if len(os.fsencode(path := _join(folder, store))) <= PATH_BYTES_MAX]


def make_runtime_folder(folder: Path) -> None:
    """Make the folder, for this user alone. AccessDenied: it cannot be made, or others could get in."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise AccessDenied(
            f"the runtime folder {folder} cannot be made: {error.strerror}; name another with NBDSERVER_RUNTIME_FOLDER"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise AccessDenied(
            f"the runtime folder {folder} must be a folder that only this user can write to; "
            "name another with NBDSERVER_RUNTIME_FOLDER"
        )


def _join(folder: Path, store: str) -> Path:
    return folder / f"{hashlib.sha256(store.encode()).hexdigest()[:24]}.sock"


def _folders(environ: Mapping[str, str]) -> list[Path]:
    folders = []
    if folder := environ.get("NBDSERVER_RUNTIME_FOLDER"):
        folders.append(Path(folder))
    if folder := environ.get("RUNTIME_DIRECTORY"):
        folders.append(Path(folder.split(":")[0]))
    if os.geteuid() == 0:
        folders.append(SYSTEM_FOLDER)
    elif folder := environ.get("XDG_RUNTIME_DIR"):
        folders.append(Path(folder) / "nbdserver")
    else:
        folders.append(Path(tempfile.gettempdir()) / f"nbdserver-{os.geteuid()}")
    return folders
