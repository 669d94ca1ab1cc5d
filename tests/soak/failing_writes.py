"""The server on a folder whose disk fails writes:  python -m tests.soak.failing_writes CONTROL serve ...

While the file CONTROL is there, what is written to files below the folder `store` beside it, and each fsync of them or
of a folder, fails with EIO, as often as the number in it says, from 0 to 1. Nothing else does: reads, links and deletes
are the kernel's.
"""

import errno
import os
import random
import sys
from pathlib import Path
from typing import Any

from nbdserver.cli import main


class FailingWrites:
    """Stands between the program and the system calls that write."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._below = f"{control.resolve().parent / 'store'}/"
        self._write, self._fsync = os.write, os.fsync

    def take_effect(self) -> None:
        """From now on, in this process."""
        patched: Any = os
        patched.write, patched.fsync = self._failing_write, self._failing_fsync

    def _failing_write(self, descriptor: int, data: Any) -> int:
        self._fail(descriptor)
        return self._write(descriptor, data)

    def _failing_fsync(self, descriptor: int) -> None:
        self._fail(descriptor)
        self._fsync(descriptor)

    def _fail(self, descriptor: int) -> None:
        try:
            share = float(self._control.read_text())
        except (FileNotFoundError, ValueError):  # or it is being written
            return
        if f"{os.readlink(f'/proc/self/fd/{descriptor}')}/".startswith(self._below) and random.random() < share:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


if __name__ == "__main__":
    FailingWrites(Path(sys.argv.pop(1))).take_effect()
    main()
