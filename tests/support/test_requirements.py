"""A missing tool is named; it skips a test on a developer's machine and fails it in CI."""

import pytest

from tests.support.requirements import require


def test_what_is_here_is_no_obstacle() -> None:
    require("sh", "/dev/null")


def test_what_is_missing_skips_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program, /no/such/file"):
        require("sh", "no-such-program", "/no/such/file")


def test_what_is_missing_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        require("no-such-program")
