"""The page for when things go wrong has every exit status, and what it names is there."""

import re
from pathlib import Path

from nbdserver.cli.shared.exit_status import FAILED, INTERRUPTED, PROBLEMS, STATUS_OF_KIND, USAGE

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()


def test_every_exit_status_has_a_row() -> None:
    rows = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    assert rows == sorted({FAILED, USAGE, PROBLEMS, INTERRUPTED, *STATUS_OF_KIND.values()})


def test_the_table_of_commands_has_the_same() -> None:
    table = (ROOT / "docs/operations.md").read_text().partition("Exit status:")[2].partition("##")[0]
    told = {int(number) for number in re.findall(r"\| (\d+) \|", table)}
    assert told - {0} == {int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}


def test_quoted_sentences_are_those_of_the_program() -> None:
    source = " ".join(path.read_text() for folder in ("nbdserver", "storage") for path in (ROOT / folder).rglob("*.py"))
    joined = re.sub(r'"\s*f?"', "", source)
    for quoted in ("a mistake in this program", "is refused to ", "is older than this host remembers"):
        assert quoted in PAGE
        assert quoted in joined, quoted
