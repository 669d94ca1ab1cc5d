"""A run whose tests together have not seen what they must fails and names it, also where they run side by side."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

CONFTEST = """
from tests.support.sightings import Sightings

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Sightings())
"""

TESTS = """
import pytest
from tests.support.sightings import tell

@pytest.mark.parametrize("number", range({tests}))
def test_that_sees(number, record_property):
    seen = {{"all see it": 1, "one sees it": int(number == 3)}}
    must = ["all see it", "one sees it", *{others}]
    tell(record_property, "worlds", cases=10, seen=seen, must=must, cases_that_see_all=40)
"""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("tests", "others", "missing"),
    [(4, [], None), (4, ["nobody sees it"], "40 worlds never had: nobody sees it"), (3, ["nobody sees it"], None)],
    ids=["all is seen", "something is not", "too few to tell"],
)
def test_what_no_test_sees_fails_the_run(
    pytester: pytest.Pytester, workers: int, tests: int, others: list[str], missing: str | None
) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS.format(tests=tests, others=others))
    pytester.syspathinsert(Path(__file__).resolve().parents[2])
    done = pytester.run(
        *pytester._getpytestargs(), "-q", "-p", "no:cacheprovider", "-n", str(workers), "-W", "ignore", timeout=120
    )
    done.stdout.fnmatch_lines([f"*{tests} passed*"])
    assert done.ret == (0 if missing is None else 1)
    if missing is not None:
        done.stdout.fnmatch_lines(["*never seen by the tests*", f"*{missing}*"])
