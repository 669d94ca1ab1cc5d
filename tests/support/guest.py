"""A guest with the kernel's NBD client whose script asks its host for things: a server that ends, or comes back.

The script says `HOST word`; what the test gave for that word is done, and the script goes on meanwhile.
"""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.commands import LAB
from tests.support.processes import end
from tests.support.requirements import SYSTEM_PATH

GUEST_SECONDS = 900
"""Of a guest from its start to its end: on a slow machine beside other tests 240 were too few."""


def run_guest(
    port: int, export: str, script: str, work: Path, asked: Mapping[str, Callable[[], object]], **variables: str
) -> str:
    """Run `script` in a guest (tests/lab/guest-nbd.sh has its functions) to its end; what the guest said."""
    path = work / "script"
    path.write_text(script)
    said: list[str] = []
    process = subprocess.Popen(
        [str(LAB / "guest-nbd.sh"), str(port), export],
        env={
            **os.environ,
            "PATH": SYSTEM_PATH,
            "GUEST_SCRIPT": str(path),
            "GUEST_TIMEOUT": str(GUEST_SECONDS),
            **variables,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace")
            said.append(line)
            _, is_asked, word = line.partition("] HOST ")
            if is_asked:
                asked[word.strip()]()
    finally:
        status = end(process, seconds=GUEST_SECONDS)
    assert status == 0, "".join(said)[-6000:]
    return "".join(said)
