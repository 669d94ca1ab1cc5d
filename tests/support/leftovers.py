"""What a run of the tests leaves behind: processes, mounts and temporary files. Anything is a failure of the run.

The run adopts the orphans of its tests (`PR_SET_CHILD_SUBREAPER`, prctl(2)), so a process that outlives its test, a
daemon included, is a child of this one at the end. Temporary files of all tests and of all programs they run go to one
folder, which must be empty then.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import pytest

PR_SET_CHILD_SUBREAPER = 36

ENDING_SECONDS = 10.0
"""How long what was told to end may take, the processes that ran the tests among them."""

PLACES_OF_PYTEST = "pytest-of-"


class Leftovers:
    """The plugin of the process that the others are children of."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        self._before = os.environ.get("TMPDIR")
        # A short name: Unix sockets, whose paths may have 107 bytes, lie below it.
        self._folder = Path(tempfile.mkdtemp(prefix="t"))
        os.environ["TMPDIR"] = tempfile.tempdir = str(self._folder)
        self.found: list[str] = []

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Behind the end of those that ran tests side by side, before the summary is written."""
        result = yield
        self.found = [*left_mounts(self._folder), *left_processes(), *left_files(self._folder)]
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._before is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = self._before
        tempfile.tempdir = None
        if self.found and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.found:
            terminalreporter.section("left behind by the tests", red=True)
            for line in self.found:
                terminalreporter.line(line)


def left_processes() -> list[str]:
    """Children of this process, once they all had time to end; they are killed."""
    limit = time.monotonic() + ENDING_SECONDS
    while (children := _children()) and time.monotonic() < limit:
        time.sleep(0.05)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return [f"process {pid}: {command}" for pid, command in children.items()]


def left_mounts(folder: Path) -> list[str]:
    """Filesystems that are mounted below `folder`."""
    mounted = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    return [f"mount {place}" for place in mounted if Path(place).is_relative_to(folder)]


def left_files(folder: Path) -> list[str]:
    """Whatever lies in `folder` but for what pytest itself keeps and clears."""
    return [f"file {found}" for found in sorted(folder.iterdir()) if not found.name.startswith(PLACES_OF_PYTEST)]


def _children() -> dict[int, str]:
    """The commands of those that are alive, by process: a zombie holds nothing."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                words = (process / "cmdline").read_bytes().split(b"\0")
                found[int(process.name)] = b" ".join(words).decode(errors="replace")
    return found
