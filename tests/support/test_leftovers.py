"""A run whose test leaves something behind fails and names it, whatever its tests said."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

CONFTEST = """
import pytest
from tests.support.leftovers import Leftovers

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Leftovers())
"""

LEAVING = {
    "nothing": "",
    "a process": "subprocess.Popen(['sleep', '1000'])",
    "a daemon": "subprocess.run(['setsid', '--fork', 'sleep', '1000'], check=True)",
    "a file": "tempfile.mkstemp(prefix='forgotten-')",
    "a journal": "tempfile.mkdtemp(prefix=prefix_elsewhere() + 'forgotten-', dir='/dev/shm')",
    "a folder of a program": "subprocess.run(['mktemp', '-d', '--tmpdir', 'forgotten-XXXXX'], check=True)",
}


@pytest.mark.parametrize(
    ("what", "workers"),
    [
        ("nothing", 0),
        ("nothing", 2),
        ("a process", 0),
        ("a daemon", 0),
        ("a daemon", 2),
        ("a file", 2),
        ("a journal", 2),
        ("a folder of a program", 0),
    ],
)
def test_what_is_left_behind_fails_the_run(pytester: pytest.Pytester, what: str, workers: int) -> None:
    pytester.makeconftest(CONFTEST)
    imports = "import subprocess, tempfile\nfrom tests.support.leftovers import prefix_elsewhere\n"
    pytester.makepyfile(f"{imports}def test_leaving(monkeypatch):\n    {LEAVING[what] or 'pass'}\n")
    root = Path(__file__).resolve().parents[2]
    pytester.syspathinsert(root)
    done = pytester.run(
        *pytester._getpytestargs(), "-q", "-p", "no:cacheprovider", "-n", str(workers), "-W", "ignore", timeout=120
    )
    done.stdout.fnmatch_lines(["*1 passed*"])
    if what == "nothing":
        assert done.ret == 0
        return
    assert done.ret == 1
    done.stdout.fnmatch_lines(["*left behind by the tests*"])
    done.stdout.fnmatch_lines(["*sleep 1000*" if what in ("a process", "a daemon") else "*forgotten-*"])
