"""How a test runs a program of the system and looks at what came of it."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.requirements import SYSTEM_PATH

LAB = Path(__file__).resolve().parents[1] / "lab"
"""Shell scripts that put filesystems on an export."""

SYSTEM_PYTHON = "/usr/bin/python3"
"""Debian's own: libnbd's binding is built for it."""


def run(
    *command: str | Path,
    status: int = 0,
    seconds: float = 180,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a program to its end, check its status, and return its standard output."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "PATH": SYSTEM_PATH, **(environment or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
    )
    assert done.returncode == status, (
        f"{' '.join(map(str, command))} ended with {done.returncode}, not {status}\n"
        f"{done.stdout[-4000:]}{done.stderr[-4000:]}"
    )
    return done.stdout


def nbdsh(uri: str, script: str) -> str:
    """Run a script with libnbd's own Python binding; `h` is connected to `uri`, `nbd` the module."""
    return run(SYSTEM_PYTHON, "-m", "nbd", "--base-allocation", "-u", uri, "-c", script)
