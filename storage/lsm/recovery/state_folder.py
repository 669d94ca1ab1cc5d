"""The state folder, where hosts remember the stores that they have opened, unless another one is named."""

import os
from collections.abc import Mapping
from pathlib import Path


def default_state_folder(environ: Mapping[str, str]) -> Path:
    """Where services and users keep state: systemd's folder, the system's for root, else the user's own."""
    if folder := environ.get("STATE_DIRECTORY"):
        return Path(folder.split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/nbdserver")
    if folder := environ.get("XDG_STATE_HOME"):
        return Path(folder) / "nbdserver"
    return Path.home() / ".local" / "state" / "nbdserver"
