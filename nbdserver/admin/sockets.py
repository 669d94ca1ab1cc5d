"""Where the admin socket of a store's server lies, for the server that makes it and for who looks, and whose server
may answer there.

It lies in the runtime folder, under a name made from where the store is, so that a command that knows only the store
finds the server. Folder and socket belong to one user, and both ends ask the kernel who is at the other: that is all
there is to log in.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from nbdserver.unix_sockets import SOCKET_PATH_BYTES_MAX
from storage.errors import AccessDenied, Invalid
from storage.lsm.recovery.state_folder import default_state_folder
from storage.trusted_files import trusted_folder, users_trusted_in

SYSTEM_FOLDER = Path("/run/nbdserver")

Role = Literal["writer", "follower", "standby"]
_SUFFIXES: Mapping[Role, str] = {"writer": "", "follower": "-r", "standby": "-s"}
"""Servers of one store have a socket each."""


def runtime_folder(environ: Mapping[str, str]) -> Path:
    """Where this user's servers put their sockets."""
    return _folders(environ)[0]


def socket_path(folder: Path, store: str, *, role: Role = "writer") -> Path:
    """The socket of the server of `store`, as `config.locate` writes it; of the one that writes it, of one that follows
    that, or of one that stands by.

    Invalid: the path is too long for one.
    """
    path = folder / socket_name(store, role=role)
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise Invalid(
            f"a socket in {folder} would have a path of more than {SOCKET_PATH_BYTES_MAX} bytes: "
            "name a shorter folder with NBDSERVER_RUNTIME_FOLDER"
        )
    return path


def sockets_to_try(environ: Mapping[str, str], store: str, *, role: Role = "writer") -> list[Path]:
    """Where the socket of a store's server may lie: this user's own folder first, then the system's."""
    folders = dict.fromkeys([*_folders(environ), SYSTEM_FOLDER])
    paths = [folder / socket_name(store, role=role) for folder in folders]
    return [path for path in paths if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX]


def make_runtime_folder(folder: Path) -> None:
    """Make the folder, for this user alone. AccessDenied: it cannot be made, or others could get in.

    In that of the system others may see which stores are served, so that they are told why they cannot be.
    """
    advice = "name another with NBDSERVER_RUNTIME_FOLDER"
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o755 if folder == SYSTEM_FOLDER else 0o700, exist_ok=True)
        trusted_folder(folder, users=frozenset((os.geteuid(),)))
    except AccessDenied as error:
        raise AccessDenied(
            f"the runtime folder must be one that only this user can write to: {error}; {advice}"
        ) from error
    except OSError as error:
        raise AccessDenied(f"the runtime folder {folder} cannot be made: {error.strerror}; {advice}") from error


def servers_trusted_in(folder: Path) -> frozenset[int]:
    """The users whose servers may answer in a folder: this user and root. To root also the owner of a folder that
    nobody but root can have made, as the service manager makes that of the system.

    AccessDenied: others can write there too, so nothing in it is trusted. OSError: it is not there.
    """
    users = users_trusted_in(folder)
    trusted_folder(folder, users=users)
    return users


def socket_name(store: str, *, role: Role = "writer") -> str:
    """What the socket of a store's server is called, in whatever folder."""
    return f"{hashlib.sha256(store.encode()).hexdigest()[:24]}{_SUFFIXES[role]}.sock"


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
        # Never a folder for everybody's files: there anybody may have been first.
        folders.append(default_state_folder(environ) / "run")
    return folders
