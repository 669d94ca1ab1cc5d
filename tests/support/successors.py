"""A server that another one has replaced: a process that is no child of the tests."""

import os
import signal

from tests.support.processes import until
from tests.support.program import Host


def pid_of(host: Host, location: str) -> int | None:
    """The process that serves a store, if one does."""
    found = host.json("status", "--store", location)
    assert isinstance(found, dict)
    return found["pid"] if found["served"] else None


def end_of(pid: int) -> None:
    """SIGTERM, and wait for a process that is not our child."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        until(lambda: not os.path.exists(f"/proc/{pid}"), seconds=60, what="the end of the server")
    finally:
        os.close(descriptor)
