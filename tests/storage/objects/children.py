"""Processes of their own that use a folder store, and what they leave."""

import os
import subprocess
import sys
from pathlib import Path

from storage.objects import folders

REPOSITORY = Path(__file__).parents[3]
PRELUDE = """
import asyncio, os, sys
from pathlib import Path
from storage.env import RealEnv
from storage.errors import *
from storage.objects.local import LocalStore

folder = Path(sys.argv[1])
env = RealEnv()
store = LocalStore(folder, env)
"""


def child(script: str, folder: Path, *, under: tuple[str, ...] = ()) -> "subprocess.Popen[bytes]":
    """A process of its own that runs `script` after PRELUDE, with its standard output in a pipe."""
    return subprocess.Popen(
        [*under, sys.executable, "-c", PRELUDE + script, str(folder)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
    )


def finish(process: "subprocess.Popen[bytes]") -> str:
    """The output of a child that must end well."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.decode()


def temporaries(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(folders.TEMPORARY)]
