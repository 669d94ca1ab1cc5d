"""What a server's process is set up like."""

import json
import resource
import subprocess
import sys

import pytest

from nbdserver.service.tuning import DESCRIPTORS_BESIDE, warn_of_descriptors

PRIORITIES = """
import json, os, sys, threading
from nbdserver.service.tuning import go_first
before = int(sys.argv[1])
if before:
    os.nice(before)
os.nice(0)
go_first()
found = []
def look():
    found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
look()
thread = threading.Thread(target=look)
thread.start()
thread.join()
found.append(int(os.popen("nice").read()))
print(json.dumps(found))
"""

IS_ALLOWED = "import os; os.setpriority(os.PRIO_PROCESS, 0, -5)"


@pytest.mark.parametrize("nice", [0, 7])
def test_the_loop_goes_before_its_threads_where_that_may_be(nice: int) -> None:
    """And before a command of --run; but not where somebody has chosen what it is worth."""
    own = int(subprocess.check_output(["nice"]))
    allowed = subprocess.run([sys.executable, "-c", IS_ALLOWED], stderr=subprocess.DEVNULL).returncode == 0
    found = json.loads(subprocess.check_output([sys.executable, "-c", PRIORITIES, str(nice)]))
    base = min(own + nice, 19)
    assert found == ([-5, 0, 0] if allowed and base == 0 else [base] * 3)


@pytest.mark.parametrize(("connections", "said"), [(58, []), (59, ["descriptors_may_run_out"])])
def test_clients_that_may_take_the_descriptors_of_the_store_are_warned_of(
    connections: int, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS_BESIDE + 58, hard))
    try:
        warn_of_descriptors(connections)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caplog.messages == said
