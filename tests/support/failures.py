"""A failure is said when it happens, with its message: a long run that is cut short has told what it found, such as the
seed of a world that broke.
"""

import pytest

LINES_SHOWN = 12


class FailuresAtOnce:
    """The plugin of the process with the terminal; tests that run in others are reported to it one by one."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.write("\n")  # behind the letter of the test
            terminal.write_line(f"{report.when} of {report.nodeid} failed:", red=True)
            for line in last_words(report):
                terminal.write_line(f"    {line}")


def last_words(report: pytest.TestReport) -> list[str]:
    """The message of a failure, or the beginning and the end of a long one: ours end with what to do."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash is not None else report.longreprtext).splitlines()
    half = LINES_SHOWN // 2
    return lines if len(lines) <= LINES_SHOWN else [*lines[:half], "...", *lines[-half:]]
