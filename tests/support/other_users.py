"""Other users of the host: processes that are somebody else's, and a server that is not what it claims to be.

Only root can become another user, so whoever uses this requires root.
"""

import functools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest

from tests.support.commands import SYSTEM_PYTHON
from tests.support.processes import end
from tests.support.requirements import require

VICTIM = 65534
NEIGHBOUR = 33
"""Two users that every Debian has: nobody and www-data. Neither need have files or a home."""

_IMPOSTOR = """
import os, socket, sys
path, heard = sys.argv[1:]
os.umask(0)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
print("listening", flush=True)
answer = b'{"changed": true, "devices": [], "name": "x", "size": 512}'
head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(answer)
while True:
    client = server.accept()[0]
    while data := client.recv(65536):
        with open(heard, "ab") as file:
            file.write(data)
        if b"\\r\\n\\r\\n" in data:
            client.sendall(head + answer)
    client.close()
"""


@functools.cache
def python() -> tuple[str, str]:
    """An interpreter that every user may run, and where it finds what this one has. Skips where there is none: ours
    may lie in a home that is closed to others, and the system's be of another version."""
    require("root")
    packages = str(Path(numpy.__file__).parents[1])
    version = f"import sys, numpy; assert sys.version_info[:2] == {sys.version_info[:2]}"
    for program in (sys.executable, SYSTEM_PYTHON):
        try:
            environment = {"PYTHONPATH": packages}
            if run_as(VICTIM, program, "-c", version, environment=environment, cwd=Path("/")).returncode == 0:
                return program, packages
        except OSError:
            continue
    pytest.skip("no Python of this version that other users may run")


def run_as(
    user: int, *command: str | Path, environment: Mapping[str, str], cwd: Path, seconds: float = 120
) -> "subprocess.CompletedProcess[str]":
    """Run a program as another user, without any group of ours, to its end."""
    return subprocess.run(
        [str(word) for word in command],
        user=user,
        group=user,
        extra_groups=[],
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


@contextmanager
def impostor(user: int, path: Path, heard: Path) -> Iterator[None]:
    """A process of `user` listens at `path`, as an admin socket would, and says that all went well; what it is told
    goes to the file `heard`."""
    process = subprocess.Popen(
        [python()[0], "-c", _IMPOSTOR, str(path), str(heard)],
        user=user,
        group=user,
        extra_groups=[],
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n", process.stderr and process.stderr.read()
        yield
    finally:
        end(process)
