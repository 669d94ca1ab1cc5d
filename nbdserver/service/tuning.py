"""A server's process, set up for speed: the allocator, the collector, the interpreter lock, the scheduler; and the
descriptors it may have.

The first three were measured with 4 KiB random writes over one connection; none changes what the program does.
"""

import contextlib
import ctypes
import gc
import logging
import os
import resource
import sys
import threading

from storage.env import STORE_THREADS
from storage.units import MIB

logger = logging.getLogger("nbdserver")

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
"""Names of glibc's mallopt(3)."""

TRIM_BYTES = 64 * MIB
"""Free memory that is kept. A page given back and taken again costs a fault of 0.5 to 3 us, as much as the write it
is for.
"""

MMAP_BYTES_MIN = 32 * MIB
"""The largest threshold glibc takes: SSTs and batches come from the heap, whose pages are there already."""

COLLECT_AFTER = (50_000, 20, 100)
"""Containers made before the collector looks. Requests make no cycles, and a scan of a full memtable takes 10 ms."""

SWITCH_SECONDS = 0.0005
"""How long a codec thread may keep the interpreter lock from the event loop; the default of 5 ms is a latency users
see.
"""


LOOP_NICE = -5
"""The event loop answers everybody, and takes less of a processor than the threads that seal and upload: at this
priority it runs as soon as there is something to answer, also where others want more processors than there are.
"""


def go_first() -> None:
    """Give the calling thread, and none that it starts, that priority, where the system allows it (root, CAP_SYS_NICE,
    LimitNICE=) and nobody has chosen another.
    """
    thread = threading.get_native_id()
    with contextlib.suppress(OSError, AttributeError):
        if os.getpriority(os.PRIO_PROCESS, thread) == 0:
            os.setpriority(os.PRIO_PROCESS, thread, LOOP_NICE)
            os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))


DESCRIPTORS_MAX = 1 << 19
"""More than any server needs. A helper that is started, such as a `credential_process`, may close each number up to its
limit, and where there is none that takes minutes.
"""


def allow_descriptors() -> None:
    """Let this process open as many files and sockets as the system lets it have: the usual limit of 1,024 is there for
    programs that call select(2). A command of --run may be one of those and would inherit it, so not with that.
    """
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


DESCRIPTORS_BESIDE = 2 * 64 + 2 * STORE_THREADS + 50
"""What a server opens beside its clients: two ports for people, the store, files of this host and what Python has."""


def warn_of_descriptors(connections: int) -> None:
    """Say where so many clients could take the descriptors that the store and the state of this host need."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + DESCRIPTORS_BESIDE
    if most != resource.RLIM_INFINITY and wanted > most:
        logger.warning("descriptors_may_run_out", extra={"limit": most, "wanted": wanted, "connections": connections})


def give_back() -> None:
    """Give memory that is free back to the system. Once, when a store was opened: that takes as much again for a moment
    as its index needs, in pieces between what stays, of which the allocator gives nothing back by itself. 10 ms for a
    store of a terabyte; for a thread.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def tune() -> None:
    """Set up this process. Call it once, before threads start; without glibc the allocator stays as it is."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for option, value in ((M_ARENA_MAX, 1), (M_TRIM_THRESHOLD, TRIM_BYTES), (M_MMAP_THRESHOLD, MMAP_BYTES_MIN)):
            libc.mallopt(option, value)
    gc.set_threshold(*COLLECT_AFTER)
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)
    go_first()
