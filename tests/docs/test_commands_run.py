"""Commands that README and guides show are run here as they stand, but for paths and ports; or the sentence before them
says that they are not run.
"""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import until, unused_port
from tests.support.program import REPOSITORY, Host, Server
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

README = REPOSITORY / "README.md"
GUIDES = sorted((REPOSITORY / "docs" / "guides").glob("*.md"))
SECONDS = 120
BIN = REPOSITORY / ".venv" / "bin"


@dataclass(frozen=True)
class Block:
    lines: tuple[str, ...]
    before: str
    """The paragraph before it."""

    @property
    def is_run(self) -> bool:
        return not re.search(r"\bnot run\b", self.before, re.I)


def blocks(text: str) -> Iterator[Block]:
    """Indented ones; one whose first line is indented further is a picture."""
    before = ""
    for part in re.split(r"\n\n+", text):
        lines = part.splitlines()
        if not all(line.startswith("    ") for line in lines):
            before = " ".join(lines)
        elif not lines[0].startswith("     "):
            yield Block(tuple(line[4:] for line in lines), before)


def commands(document: Path) -> list[str]:
    """Those that are run, without comments."""
    found = [line for block in blocks(document.read_text()) if block.is_run for line in block.lines]
    return [re.split(r"\s+#", line)[0] for line in found]


def serves_until_stopped(command: str, folder: Path, environment: dict[str, str]) -> str:
    """What it says first, of one that goes on until it is stopped."""
    said = folder / "said"
    with said.open("w") as output:
        process = subprocess.Popen(shlex.split(command), cwd=folder, env=environment, stdout=output)
    try:
        until(lambda: "\n" in said.read_text() or process.poll() is not None, seconds=SECONDS, what=command)
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(SECONDS)
    assert status == 0, command
    return said.read_text()


def test_commands_of_the_readme(host: Host, work: Path) -> None:
    (work / "password").write_text("a password")
    (work / "password").chmod(0o600)
    environment = {**os.environ, **host.environment(), "PATH": f"{BIN}:{os.environ['PATH']}"}
    for name in [name for name in environment if name.startswith("NBDSERVER_PASSWORD")]:
        del environment[name]
    made_from = re.search(r"^made_from=.*$", (REPOSITORY / "scripts" / "setup").read_text(), re.M)
    assert made_from is not None
    current = subprocess.check_output(["bash", "-c", f"{made_from[0]}; echo $made_from"], cwd=REPOSITORY, text=True)
    there = (BIN.parent / "made-from").read_text()
    assert there.split() == current.split(), "run scripts/setup first: quickstart would make .venv anew under this test"
    ran = 0
    for command in commands(README):
        port = f" --port {unused_port()}"
        if command.startswith("export "):
            (name, value) = command.removeprefix("export ").split("=")
            environment[name] = value.replace("/etc/nbdserver", str(work))
        elif command.startswith(("scripts/quickstart", "nbdserver serve")):
            there = command.replace("scripts/", f"{REPOSITORY}/scripts/").replace("/srv", str(work))
            place = f" {work}/quick" if "quickstart" in command else ""
            uri = serves_until_stopped(f"{there}{place}{port}", work, environment).split()[0]
            assert uri.startswith("nbd://127.0.0.1:")
            ran += 1
        else:
            raise AssertionError(f"how is {command!r} run here? Or say before it that it is not run")
    assert ran >= 2
    assert (work / "quick.password").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_commands_of_guides(
    guide: Path, local_store: StoreUnderTest, make_server: Callable[..., Server], work: Path
) -> None:
    require("qemu-img", "qemu-system-x86_64")
    server = make_server(local_store, create={"vm1": "16MiB"})
    server.start()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "image.qcow2", "16M"], cwd=work, check=True)
    subprocess.run(["qemu-io", "-c", "write -q -P 7 1M 1M", "image.qcow2"], cwd=work, check=True, capture_output=True)
    assert commands(guide)
    for command in commands(guide):
        there = command.replace("/run/nbd.sock", str(server.socket))
        asked = ""
        if command.startswith("qemu-system-x86_64 "):
            there, asked = f"{there} -S -nodefaults -display none -monitor stdio -m 64", "info block\nquit\n"
        else:
            assert command.startswith("qemu-img "), f"how is {command!r} run? Or say before it that it is not run"
        done = subprocess.run(
            shlex.split(there), cwd=work, input=asked, text=True, capture_output=True, timeout=SECONDS
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert not asked or "vm1" in done.stdout
    with server.connect("vm1") as client:
        assert client.read(1 << 20, 1 << 20) == bytes([7]) * (1 << 20)
        assert client.read(0, 4096) == bytes(4096)


def test_the_test() -> None:
    """It sees which blocks are run."""
    text = "Do:\n\n    one x   # why\n    two\n\nNot run: none here.\n\n    three\n\nA picture\n\n     ascii\n    x\n"
    found = list(blocks(text))
    assert [(block.lines[-1], block.is_run) for block in found] == [("two", True), ("three", False)]
