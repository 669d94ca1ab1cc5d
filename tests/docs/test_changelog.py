"""scripts/changelog joins the snippets of changelog/unreleased, and refuses one that it cannot place."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.program import REPOSITORY

SNIPPETS = {
    "b.md": "Fixed: A flush waits.\n\nIt did not, on Tuesdays.\n",
    "a.md": "Fixed: Reads are right.\n",
    "c.md": "Added: Snapshots.\n",
}
JOINED = """### Added

- Snapshots.

### Fixed

- Reads are right.
- A flush waits.

  It did not, on Tuesdays.

"""
CHANGES = "# Changes\n\nWords.\n\n## 0.1 (2026-01-01)\n\n- Old.\n"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A repository with this script, and three snippets."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(REPOSITORY / "scripts" / "changelog", tmp_path / "scripts")
    folder = tmp_path / "changelog" / "unreleased"
    folder.mkdir(parents=True)
    for name, text in SNIPPETS.items():
        (folder / name).write_text(text)
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    return tmp_path


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "scripts" / "changelog", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_snippets_are_joined_by_kind(copy: Path) -> None:
    assert run(copy).stdout == JOINED
    assert (copy / "CHANGELOG.md").read_text() == CHANGES


def test_a_release_takes_them(copy: Path) -> None:
    assert run(copy, "0.2").returncode == 0
    words, new, old = (copy / "CHANGELOG.md").read_text().split("\n## ")
    heading, _, changes = new.partition("\n\n")
    assert words == "# Changes\n\nWords.\n"
    assert heading.startswith("0.2 (20")
    assert f"{changes}\n" == JOINED
    assert old == "0.1 (2026-01-01)\n\n- Old.\n"
    assert list((copy / "changelog" / "unreleased").iterdir()) == []
    assert run(copy, "0.3").returncode == 1


def test_a_snippet_without_a_kind_is_refused(copy: Path) -> None:
    (copy / "changelog" / "unreleased" / "d.md").write_text("Something changed.\n")
    done = run(copy, "0.2")
    assert done.returncode == 1
    assert "d.md" in done.stderr
    assert (copy / "CHANGELOG.md").read_text() == CHANGES


def test_the_snippets_here_can_be_joined() -> None:
    assert run(REPOSITORY).returncode == 0
