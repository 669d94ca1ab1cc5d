"""Where the configuration file is. A page of help asks too, so this reads nothing and imports next to nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping

CONFIG_NAME = "nbdserver.toml"


def find(environ: Mapping[str, str]) -> str | None:
    """The file that counts: of the working folder, of the user, of the system."""
    home = environ.get("XDG_CONFIG_HOME") or (environ.get("HOME") and f"{environ['HOME']}/.config")
    folders = ["", *([f"{home}/nbdserver"] if home else []), "/etc/nbdserver"]
    paths = [os.path.join(folder, CONFIG_NAME) for folder in folders]
    # A working folder may be gone or another user's, and so may a home: then there is no file in it, and no error.
    found = next((path for path in paths if os.path.isfile(path)), None)
    return found if found is None or os.path.isabs(found) else os.path.join(os.getcwd(), found)
