"""Process 1 of a container: a stop that comes before a server listens to signals is not lost."""

import signal
import subprocess
import sys

import pytest

from tests.support.program import REPOSITORY
from tests.support.requirements import require

ENDED_BY_SIGTERM = 128 + signal.SIGTERM


@pytest.mark.integration
def test_it_is_ended_by_sigterm_from_its_first_moment_on() -> None:
    require("root", "unshare")
    program = """if True:
        import os, signal, sys
        from nbdserver.cli import root
        assert os.getpid() == 1
        root.open_standard = lambda: os.kill(1, signal.SIGTERM)
        sys.argv = ["nbdserver", "--version"]
        root.main()
    """
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (ENDED_BY_SIGTERM, "", "")
