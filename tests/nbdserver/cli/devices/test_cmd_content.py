"""Whole disks from a pipe and to a file, with the real program on a store at rest."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.program import COMMAND, Host

pytestmark = pytest.mark.integration

MIB = 1 << 20


def test_a_password_command_takes_nothing_of_the_image(host: Host, work: Path) -> None:
    """It is asked for when the beginning was read already, and what it read of the rest was missing in the device."""
    store, image, back = str(work / "store"), os.urandom(2 * MIB), work / "back"
    host.prepare(store)
    host.run("device", "create", "disk", "2MiB", "--store", store)
    (work / "password").write_text(host.password)
    command = f"sh -c 'head -c 65536 > {work / 'eaten'}; cat {work / 'password'}'"
    environment = {**host.environment(), "NBDSERVER_PASSWORD_COMMAND": command}
    del environment["NBDSERVER_PASSWORD"]
    done = subprocess.run(
        [*COMMAND, "device", "import", "disk", "-", "--store", store],
        env=environment,
        cwd=work,
        input=image,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    host.run("device", "export", "disk", str(back), "--store", store)
    assert (work / "eaten").read_bytes() == b""
    assert back.read_bytes() == image
