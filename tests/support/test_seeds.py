"""One commit has one seed; where there is no commit, each run has another."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.seeds import fresh_seed


@pytest.fixture(autouse=True)
def none_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBDSERVER_SEED", raising=False)


def commit(folder: Path, what: str) -> None:
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    subprocess.run(
        ["git", *who, "commit", "-q", "--no-gpg-sign", "--allow-empty", "-m", what],
        cwd=folder,
        check=True,
    )


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_commit_has_a_seed_of_its_own(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    commit(tmp_path, "one")
    one = fresh_seed(tmp_path)
    assert fresh_seed(tmp_path) == one
    commit(tmp_path, "two")
    assert fresh_seed(tmp_path) != one


def test_without_a_commit_each_run_has_a_seed_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert len({fresh_seed(tmp_path) for _ in range(4)}) > 1
    monkeypatch.setenv("PATH", "")
    assert len({fresh_seed(tmp_path) for _ in range(4)}) > 1


def test_a_named_seed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBDSERVER_SEED", "17")
    assert fresh_seed() == 17
