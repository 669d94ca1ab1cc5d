"""The documents say what is there: commands and options exist, links lead somewhere, tables equal the code's."""

import os
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest

from nbdserver.cli.shared.exit_status import STATUS_OF_KIND
from nbdserver.service.announce import CLIENT_OPTIONS
from tests.support.program import COMMAND, REPOSITORY

pytestmark = pytest.mark.integration

OPERATIONS = REPOSITORY / "docs" / "operations.md"
MANUALS = [
    REPOSITORY / "README.md",
    OPERATIONS,
    *(REPOSITORY / "docs" / f"{name}.md" for name in ("tls", "durability")),
]
"""Whose commands a reader types."""

DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]

README_LINES_MAX = 100
"""Two screens: what does not fit is in docs/."""

STATUSES_WITHOUT_A_KIND = {0, 1, 2, 3, 130}


MORE_PAGES = [
    ("attach",),
    ("check",),
    ("compact",),
    ("detach",),
    ("gc",),
    ("key", "rotate"),
    ("replicate",),
    ("trace",),
    ("snapshot", "create"),
    ("snapshot", "rollback"),
]
DEVICE_PAGES = [("device", verb) for verb in ("resize", "import", "export", "delete", "salvage")]


def code_lines() -> list[str]:
    """The lines of indented code in the manuals, without their comments."""
    lines = [line[4:] for path in MANUALS for line in path.read_text().splitlines() if line.startswith("    ")]
    return [re.split(r"\s+#", line)[0] for line in lines]


def commands() -> list[str]:
    """Every `nbdserver ...` of the manuals that could be typed, wherever it stands."""
    spans = [span for path in MANUALS for span in re.findall(r"`([^`\n]+)`", path.read_text())]
    lines = [line.removeprefix("ExecStart=/opt/nbdserver/.venv/bin/") for line in code_lines()]
    return sorted({text for text in lines + spans if re.match(r"nbdserver [a-z]", text)})


@cache
def help_of(*words: str) -> tuple[int, str]:
    """Exit status and output of `nbdserver WORDS --help`."""
    done = subprocess.run(
        [*COMMAND, *words, "--help"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 18


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= README_LINES_MAX


@pytest.mark.parametrize("command", commands())
def test_a_command_parses(command: str) -> None:
    _, *words = shlex.split(command)
    name: list[str] = []
    while words and "Commands:" in help_of(*name)[1]:
        name.append(words.pop(0))
    status, page = help_of(*name)
    assert status == 0, f"there is no command {' '.join(name)}"
    options = {word.split("=")[0] for word in words if word.startswith("-")}
    for option in options:
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", page), f"{' '.join(name)} has no option {option}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_options_that_are_mentioned_exist(document: Path) -> None:
    """Of all commands together: a mention in prose does not say of which one."""
    pages = "".join(help_of(*name)[1] for name in [(), ("init",), ("serve",), ("status",), *MORE_PAGES, *DEVICE_PAGES])
    spans = re.findall(r"`([^`\n]+)`", document.read_text())
    mentioned = {word for span in spans for word in re.findall(r"(?:^|\s)(--[a-z-]+)", span)}
    assert {option for option in mentioned if option not in pages} == set()


def headings(document: Path) -> set[str]:
    """Those of a document, as links name them."""
    found = re.findall(r"^#+ (.*)", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_files_exist(document: Path) -> None:
    text = document.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, heading = target.partition("#")
        there = document.parent / path if path else document
        assert path.startswith("https://") or there.exists(), f"{target} leads nowhere"
        assert not heading or heading in headings(there), f"there is no heading {target}"
    for script in re.findall(r"scripts/\w+", text):
        assert os.access(REPOSITORY / script, os.X_OK), f"{script} cannot be run"
    for mentioned in re.findall(r"`((?:tests|docs|storage|nbdserver)/[\w/.]+)`", text):
        assert (REPOSITORY / mentioned).exists(), f"{mentioned} is not there"


def test_every_part_of_the_map_exists() -> None:
    """The map of the tree names nothing else, and every file of the engine."""
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    map_of_tree = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    for name in re.findall(r"\b\w+\.py\b", map_of_tree):
        found = [*REPOSITORY.glob(f"storage/**/{name}"), *REPOSITORY.glob(f"nbdserver/**/{name}")]
        assert found, f"{name} is not there"
    for path in REPOSITORY.glob("storage/lsm/*.py"):
        assert path.stem == "__init__" or re.search(rf"\b{path.stem}\b", map_of_tree), f"{path.name} is not on the map"


def test_the_exit_statuses_are_those_of_the_program() -> None:
    table = OPERATIONS.read_text().split("\nExit status:\n")[1].split("\n## ")[0]
    numbers = [int(number) for number in re.findall(r"\| (\d+) \| \w", table)]
    assert sorted(numbers) == sorted({*STATUS_OF_KIND.values(), *STATUSES_WITHOUT_A_KIND})


def test_the_client_is_attached_as_the_server_says() -> None:
    lines = [line for line in code_lines() if line.startswith("nbd-client 127")]
    assert lines
    assert all(line.endswith(CLIENT_OPTIONS) for line in lines)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "docs" / "systemd").glob("*.service")), ids=lambda path: path.name
)
def test_units_that_give_up_over_a_wrong_clock_wait_for_it(path: Path) -> None:
    """A store refuses who signs requests by a clock that is off (status 13), and so does a certificate (2): right
    behind a boot that passes, but a service is not started again for it.
    """
    lines = dict(line.split("=", 1) for line in path.read_text().splitlines() if re.match(r"\w+=", line))
    assert {"2", "13"} <= set(lines["RestartPreventExitStatus"].split())
    assert "time-sync.target" in lines["After"].split()
