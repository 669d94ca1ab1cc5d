"""How a test finds a free port and ends what it started: by its own process id, never by
name.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")

_reserved: list[socket.socket] = []

ACCEPTS = 0x10000
"""The flag of a socket that listens, in /proc/net/unix (SO_ACCEPTCON)."""


def unused_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on, and that nobody else gets before this process ends.

    Not one that the kernel gives to connections that go out: between this answer and a server's `bind` it would
    be any of theirs. A name in the abstract namespace keeps tests that run beside these apart; it ends with us.
    """
    lowest, highest = map(int, EPHEMERAL.read_text().split())
    others = range(11000, lowest) or range(highest + 1, 65536)
    for port in random.Random().sample(others, 1000):
        name = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError), socket.socket() as probe:
            name.bind(f"\0nbdserver tests, port {port}")
            probe.bind(("127.0.0.1", port))
            _reserved.append(name)
            return port
        name.close()
    raise OSError("no TCP port is left for a test")


def end(process: "subprocess.Popen[bytes]", *, seconds: float = 60, sign: int = signal.SIGTERM) -> int:
    """Send `sign`, wait for the end, SIGKILL after `seconds` (TimeoutExpired); returns the status."""
    if process.poll() is None:
        process.send_signal(sign)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def until(happened: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Ask again and again until it is so; AssertionError after `seconds`, a limit far above what it takes."""
    limit = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < limit, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


def listens(path: Path) -> bool:
    """Whether a process listens on a Unix socket: its file is there a moment sooner."""
    with open("/proc/net/unix") as table:
        rows = [line.split(maxsplit=7) for line in table]
    return any(len(row) == 8 and row[7].rstrip("\n") == str(path) and int(row[3], 16) & ACCEPTS for row in rows[1:])


def resident_bytes(pid: int, field: str = "VmRSS") -> int:
    """A process's resident memory in bytes: VmRSS now, VmHWM at its highest."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def cpu_seconds(pid: int) -> float:
    """User and system time a process has used."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kill_quietly(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL, for clean-up after a test that failed: the process may be stopped, or gone already."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        if process.poll() is None:
            process.kill()
        end(process, seconds=30)
