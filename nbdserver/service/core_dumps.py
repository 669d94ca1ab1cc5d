"""No core dumps: what is in the memory of a process, keys and passwords with it, is for nobody else.

Every command forbids them before it does anything, since every one may hold a password. A fork keeps that. The command
of --run keeps the limit, and is otherwise as any other process.
"""

import ctypes
import resource

PR_SET_DUMPABLE = 4
"""The option of prctl(2) that says whether a process may be dumped."""


def forbid_core_dumps() -> None:
    """From now on neither a crash nor another process of the same user gets at this memory: ptrace(2) is for root, and
    so are /proc/PID/environ and /proc/PID/mem.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
