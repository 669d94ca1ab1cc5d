"""What a run of the tests leaves behind: processes, mounts, loop devices and temporary files. Anything is a failure of
the run.

Temporary files of all tests, and of all programs that they run, go to one folder, which must be empty at the end. A
process that outlived its test, a daemon included, is known by that folder: its environment or its command names it.
What a test has to put elsewhere bears the name of that folder (`prefix_elsewhere`).
"""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import pytest

ENDING_SECONDS = 10.0
"""How long what was told to end may take, the processes that ran the tests among them."""

PLACES_OF_PYTEST = "pytest-of-"

ELSEWHERE = ("/dev/shm", "/run", "/var/lib")
"""Where tests put things that cannot lie in the folder of the run."""


def prefix_elsewhere() -> str:
    """What the name of everything begins with that a test puts into one of `ELSEWHERE`."""
    return f"{Path(tempfile.gettempdir()).name}-"


class Leftovers:
    """The plugin of the process that the others are children of."""

    def __init__(self) -> None:
        self._before = os.environ.get("TMPDIR")
        # A short name: Unix sockets, whose paths may have 107 bytes, lie below it.
        self._folder = Path(tempfile.mkdtemp(prefix="t"))
        self._folder.chmod(0o711)  # programs of other users find what they are told of
        os.environ["TMPDIR"] = tempfile.tempdir = str(self._folder)
        self.found: list[str] = []

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Behind the end of those that ran tests side by side, before the summary is written."""
        result = yield
        self.found = [
            *left_mounts(self._folder),
            *left_processes(self._folder),
            *left_loop_devices(self._folder),
            *left_files(self._folder),
            *left_elsewhere(self._folder),
        ]
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


def left_processes(folder: Path) -> list[str]:
    """Processes that know of `folder`, once they all had time to end; they are killed."""
    limit = time.monotonic() + ENDING_SECONDS
    while (alive := _that_know(folder)) and time.monotonic() < limit:
        time.sleep(0.1)
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"process {pid}: {command}" for pid, command in alive.items()]


def left_mounts(folder: Path) -> list[str]:
    """Filesystems that are mounted below `folder`."""
    mounted = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    return [f"mount {place}" for place in mounted if Path(place).is_relative_to(folder)]


def left_files(folder: Path) -> list[str]:
    """Whatever lies in `folder` but for what pytest itself keeps and clears."""
    return [f"file {found}" for found in sorted(folder.iterdir()) if not found.name.startswith(PLACES_OF_PYTEST)]


def left_loop_devices(folder: Path) -> list[str]:
    """Loop devices over files in `folder`."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # it has just been detached
            if Path(backing.read_text().strip()).is_relative_to(folder):
                found.append(f"loop device {backing.parts[3]}")
    return found


def left_elsewhere(folder: Path) -> list[str]:
    """What bears the name of the run in other places; it is removed."""
    found = [path for place in ELSEWHERE for path in sorted(Path(place).glob(f"{folder.name}-*"))]
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return [f"file {path}" for path in found]


def _that_know(folder: Path) -> dict[int, str]:
    """The commands of the processes whose command or environment names `folder`, by process."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        texts = []
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):  # it has just ended, or is not ours to look into
                texts.append((process / name).read_bytes())
        if any(os.fsencode(folder) in text for text in texts) and int(process.name) != os.getpid():
            found[int(process.name)] = b" ".join(texts[0].split(b"\0")).decode(errors="replace")
    return found
