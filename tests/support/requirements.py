"""Which programs of the system a test needs, and what to do where one is missing.

On a developer's machine the test is skipped and the missing thing named; with CI=true it fails, so that
nothing is skipped unseen there.
"""

import os
import shutil
from pathlib import Path

import pytest

OWN = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbdserver" / "bin"
"""Where `scripts/minio --build` and `scripts/test` leave programs."""

SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:{OWN}"
"""mkfs, fsck and nbd-client live in sbin, which is not on every user's path."""


def find(name: str) -> str | None:
    """The path of a program, of a file given by its absolute path, or "root" where we are root; None: not
    here.
    """
    if name == "root":
        return "root" if os.geteuid() == 0 else None
    if name.startswith("/"):
        return name if Path(name).exists() else None
    return shutil.which(name, path=SYSTEM_PATH)


def require(*names: str) -> None:
    """Skip the calling test, or fail it where CI=true, unless everything named is here."""
    missing = [name for name in names if find(name) is None]
    if not missing:
        return
    sentence = f"needs {', '.join(missing)} (scripts/test installs what is missing)"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)
