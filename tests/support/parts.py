"""The tests dealt out to several runs side by side: `--part 1/2` runs every second one, `--part 2/2` the others.

Unlike pytest-xdist none of them is told by another what to run, nor tells another what came of it: on two cores that is
worth it where tests take milliseconds.
"""

import re

import pytest


class Parts:
    """The plugin of one such run. It comes last, so that it deals out what others have left."""

    def __init__(self, named: str) -> None:
        """`named` is NUMBER/COUNT. UsageError: it is something else."""
        found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", named)
        if found is None or int(found[1]) > int(found[2]):
            raise pytest.UsageError(f"--part {named}: give NUMBER/COUNT, such as 1/2")
        self.number, self.count = int(found[1]), int(found[2])

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        ours = items[self.number - 1 :: self.count]
        others = [item for at, item in enumerate(items) if at % self.count != self.number - 1]
        config.hook.pytest_deselected(items=others)
        items[:] = ours
