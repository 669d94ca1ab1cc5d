"""constraints.txt pins, with hashes, what pyproject.toml asks for, and names nothing of the machine that wrote it."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MARK = "# What follows is for development only.\n"

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "constraints.txt").read_text()
PINS = re.findall(
    r"^([a-z0-9-]+)==(\S+)(?: ; [^\\\n]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", TEXT, re.M
)


def wanted() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    return [*project["project"]["dependencies"], *groups["dev"], *groups["build"]]


@pytest.mark.parametrize("text", wanted(), ids=lambda text: re.split(r"\W", text)[0])
def test_what_is_wanted_is_pinned_within_its_range(text: str) -> None:
    requirement = Requirement(text)
    versions = [version for name, version, _ in PINS if name == requirement.name.lower()]
    assert versions, f"{requirement.name} is not pinned: run scripts/lock"
    assert all(requirement.specifier.contains(version) for version in versions), "run scripts/lock"


def test_every_line_is_a_pin_with_hashes() -> None:
    pins, marks = sum(len(hashes.splitlines()) + 1 for _, _, hashes in PINS), TEXT.count(MARK)
    assert pins + marks == len(TEXT.splitlines())
    assert marks == 1


def test_what_serving_needs_stands_above_the_mark() -> None:
    """All of it, with what that needs, and no development tool: `scripts/setup --serve` installs no more."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    above = {name for name, _, _ in PINS if TEXT.index(f"\n{name}==" if TEXT.index(name) else name) < TEXT.index(MARK)}
    todo = [*project["project"]["dependencies"], *project["dependency-groups"]["build"]]
    needed: set[str] = set()
    while todo:
        requirement = Requirement(todo.pop())
        name = canonicalize_name(requirement.name)
        if name in needed or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        needed.add(name)
        todo += metadata.requires(name) or []
    assert needed <= above
    assert not above & {canonicalize_name(Requirement(text).name) for text in project["dependency-groups"]["dev"]}
