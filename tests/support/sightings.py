"""What many tests have seen together: one alone may miss what is rare, and all of a run must not.

A test tells what it saw (`tell`). Where a run had so many cases that everything must have been among them, it fails and
names what was not: then the cases have lost their teeth, whatever each of them says.
"""

from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any

import pytest

PROPERTY = "sightings"


def tell(
    record_property: Callable[[str, object], None],
    of: str,
    *,
    cases: int,
    seen: Mapping[str, int],
    must: Collection[str],
    cases_that_see_all: int,
) -> None:
    """So many cases saw this. Of `cases_that_see_all` together each of `must` has to be seen by one."""
    told = {
        "of": of,
        "cases": cases,
        "seen": dict(seen),
        "must": sorted(must),
        "cases that see all": cases_that_see_all,
    }
    record_property(PROPERTY, told)


class Sightings:
    """The plugin of the process to which tests are reported that run in others."""

    def __init__(self) -> None:
        self._told: dict[str, dict[str, Any]] = {}
        self._cases: Counter[str] = Counter()
        self._seen: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, told in report.user_properties:
            if name == PROPERTY:
                assert isinstance(told, dict)
                of = told["of"]
                self._told[of] = told
                self._cases[of] += told["cases"]
                self._seen.setdefault(of, Counter()).update(told["seen"])

    def missing(self) -> list[str]:
        """What nobody saw, of those who were enough to see everything."""
        return [
            f"{self._cases[of]} {of} never had: {what}"
            for of, told in self._told.items()
            if self._cases[of] >= told["cases that see all"]
            for what in told["must"]
            if not self._seen[of][what]
        ]

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        result = yield
        if self.missing() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if missing := self.missing():
            terminalreporter.section("never seen by the tests", red=True)
            for line in missing:
                terminalreporter.line(line)
