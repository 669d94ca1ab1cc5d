"""A run that is killed has said what failed until then, also where tests run side by side."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
from tests.support.failures import FailuresAtOnce

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailuresAtOnce(config))
"""

TESTS = """
import time
import pytest

def test_that_fails():
    pytest.fail("it broke\\n\\nrepeat it with: --seed 4711", pytrace=False)

def test_that_fails_an_assertion():
    assert 1 + 1 == 3, "seed 4712"

def test_that_does_not_end():
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_failure_is_said_before_the_run_ends(tmp_path: Path, workers: str) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); import pytest; pytest.main()"]
    running = subprocess.Popen(
        [*command, "-q", "-p", "no:cacheprovider", "-n", workers, str(tmp_path)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert running.stdout is not None
        said = ""
        while "--seed 4711" not in said or "seed 4712" not in said:
            line = running.stdout.readline()
            assert line, f"the run ended, and had said:\n{said}"
            said += line
        assert "call of test_some.py::test_that_fails failed:" in said
        assert running.poll() is None
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()
