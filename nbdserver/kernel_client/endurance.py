"""A process that a disk waits for: it must not wait for that disk itself.

Memory that was written out to the disk, or that the kernel wants to gain by writing to it, cannot be had while the
disk is away. So all of this process stays in memory, the kernel takes none by writing for it, and does not end it for
want of memory.
"""

import contextlib
import ctypes
import os
from pathlib import Path

MCL_CURRENT = 1
MCL_FUTURE = 2
"""The flags of mlockall(2) for what is mapped now, and for what will be."""

PR_SET_IO_FLUSHER = 57
"""Of prctl(2), Linux 5.6 and later: "this process is a part of a block device"."""

OOM_NEVER = "-1000"
"""Of proc(5), oom_score_adj."""


def endure() -> list[str]:
    """Set up this process; what could not be done, by name. Call it when all modules are imported."""
    failed = []
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0):
        failed.append("PR_SET_IO_FLUSHER")
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE):
        failed.append("mlockall")
    try:
        Path("/proc/self/oom_score_adj").write_text(OOM_NEVER)
    except OSError:
        failed.append("oom_score_adj")
    with contextlib.suppress(OSError):
        os.chdir("/")  # and it holds no filesystem
    return failed
