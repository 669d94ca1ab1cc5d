"""One process keeps a device, and others see which; a lock ends with its process, however that ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbdserver.kernel_client.keeper_lock import KeeperLock, keeper
from storage.errors import Conflict

OTHER = """
import os, sys
from pathlib import Path
from nbdserver.kernel_client.keeper_lock import KeeperLock
lock = KeeperLock(3, Path(sys.argv[1]))
lock.say("no server")
print("locked", flush=True)
sys.stdin.read()
os.kill(os.getpid(), 9)
"""


def test_by_another_process(work: Path) -> None:
    folder = work / "locks"
    assert keeper(3, folder) == (None, None)
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        assert keeper(3, folder) == (other.pid, "no server")
        assert keeper(4, folder) == (None, None)
        with pytest.raises(Conflict, match="/dev/nbd3 is attached already"):
            KeeperLock(3, folder)
        assert keeper(3, folder) == (other.pid, "no server")
    assert keeper(3, folder) == (None, None)
    lock = KeeperLock(3, folder)
    lock.close()
    assert (folder / "nbd3").read_text() == ""


def test_what_it_says_is_replaced(work: Path) -> None:
    lock = KeeperLock(0, work)
    for sentence in ("a long sentence", "short", ""):
        lock.say(sentence)
        assert (work / "nbd0").read_text() == sentence
    lock.close()
    assert os.listdir(work) == ["nbd0"]
