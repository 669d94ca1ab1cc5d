"""Where fresh cases begin: at a seed that follows from the commit, so that everybody who runs a commit runs the same.

A run that fails is repeated by whoever has the commit, and one that passed goes on passing; the next commit has new
cases. NBDSERVER_SEED names another seed. Where there is no git it is drawn anew at each run.
"""

import os
import random
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]

SEEDS = 10**9


def fresh_seed(folder: Path = ROOT) -> int:
    """The seed for what is checked out in this folder."""
    named = os.environ.get("NBDSERVER_SEED")
    if named:
        return int(named)
    commit = head(folder)
    return random.SystemRandom().randrange(SEEDS) if commit is None else int(commit, 16) % SEEDS


def head(folder: Path) -> str | None:
    """The commit that is checked out, in hexadecimal; None where there is no git, or nothing is committed."""
    try:
        asked = subprocess.run(
            ["git", "-c", "safe.directory=*", "rev-parse", "--verify", "HEAD"],  # whoever the folder belongs to
            cwd=folder,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None
