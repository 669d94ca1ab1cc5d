"""A recovery code is shown once: what becomes of a sheet that nobody gets, with the real program."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.program import COMMAND, Host

pytestmark = pytest.mark.integration


def sheet(host: Host, store: str, *program: str, to: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Run `password sheet` with its output in a file, or kept."""
    with open(to or "/dev/null", "wb") as file:
        return subprocess.run(
            [*(program or COMMAND), "password", "sheet", store],
            env=host.environment(),
            cwd=host.folder,
            stdin=subprocess.DEVNULL,
            stdout=file if to else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )


def labels(host: Host, store: str) -> list[str]:
    return [line.split("\t")[0] for line in host.run("password", "list", store).stdout.splitlines()]


def test_a_sheet_that_is_not_written_says_what_was_added(host: Host, work: Path) -> None:
    """Whoever sees its label in the list later takes it that the sheet lies in a safe."""
    store = str(work / "store")
    host.prepare(store)
    done = sheet(host, store, to="/dev/full")
    assert done.returncode == 1
    assert "standard output: No space left on device" in done.stderr
    way_out = f"nbdserver password remove recovery --store file://{store}"
    assert f"nbdserver: the code was added as 'recovery', and nobody has it: {way_out}\n" in done.stderr
    assert labels(host, store) == ["main", "recovery"]
    host.run(*way_out.split()[1:])
    assert labels(host, store) == ["main"]


@pytest.mark.parametrize(
    ("fails", "status", "shown"),
    [("keys_change.delete_older", 3, True), ("keys_change.write_next", 21, False)],
)
def test_a_store_that_fails_in_the_midst(host: Host, work: Path, fails: str, status: int, shown: bool) -> None:
    """A code that is in force is shown, though something is left to do; and where nobody knows, that is said."""
    store, (module, function) = str(work / "store"), fails.split(".")
    host.prepare(store)
    script = f"""
import sys
from nbdserver.cli import main
from storage.crypto import {module}
from storage.errors import Unavailable

async def fails(*_):
    raise Unavailable("it is away")

{module}.{function} = fails
sys.exit(main())
"""
    done = sheet(host, store, sys.executable, "-c", script)
    assert done.returncode == status, done.stderr
    assert ("RECOVERY SHEET" in done.stdout) is shown
    assert ("if `password list` has 'recovery', added just now, nobody has it" in done.stderr) is not shown
    assert ("recovery" in labels(host, store)) is shown
