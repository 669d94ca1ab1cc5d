"""What code, tests and documents refer to is in this repository."""

import re

import pytest

from tests.docs.references import DOCS, FORMAT, lost, rows_of_bad_inputs, texts
from tests.support.program import REPOSITORY

OWN = REPOSITORY / "tests" / "docs"
"""Texts here speak of references that are lost."""

NUMBERED = re.compile(r'(?:"""|\w\("|^\s+")([1-9]\d?)(?:: | [a-zA-Z])', re.MULTILINE)
"""Numbers of bad inputs, as they begin names of cases and docstrings of tests."""

LOST = {
    "see docs/no-such-page.md": "docs/no-such-page.md is not there",
    "as storage/lsm/tables.py does": "storage/lsm/tables.py is not there",
    "`tests/docs/test_references.py::test_no`": "there is no test tests/docs/test_references.py::test_no",
    'docs/format.md, "No such heading"': 'docs/format.md has no heading "No such heading"',
    'docs/format.md,\n    "No such heading"': 'docs/format.md has no heading "No such heading"',
    "see `storage.lsm.tables`": "storage.lsm.tables is not there",
    "see `storage.errors.NoSuchError`": "storage.errors.NoSuchError is not there",
    "decision 999 says so": "there is no decision 999",
    "bad input 75": "there is no bad input 75",
    "as section 5.1 has it": "section 5 of what?",
    "docs/format.md, section 99": "docs/format.md has no section 99",
    "the order of the DESIGN": '"DESIGN" is no document that can be read',
    "the defaults are those\nof the design": '"of the design" is no document that can be read',
    "as the design\n    promises": '"the design promises" is no document that can be read',
}


@pytest.mark.parametrize("text", LOST)
def test_a_lost_reference_is_found(text: str) -> None:
    assert lost(text) == [LOST[text]]


def test_what_leads_somewhere_is_not_lost() -> None:
    """Files, modules and what stands in them, tests, headings, numbers, sections of what is published."""
    assert (
        lost(
            """docs/format.md, section 4, and docs/durability.md, "The promise"; storage/lsm/engine.py,
        `storage.errors.Fenced`, tests/docs/test_format.py::test_a_closed_store; decision 1;
        bad input 74; RFC 8439, section 2.8; s3://nbdserver/prefix; /var/lib/nbdserver/x"""
        )
        == []
    )


def test_references_lead_somewhere() -> None:
    found = {
        str(path.relative_to(REPOSITORY)): lost(path.read_text(), of_format=path == FORMAT)
        for path in texts()
        if path.parent != OWN
    }
    assert len(found) > 500
    assert {place: wrong for place, wrong in found.items() if wrong} == {}


def test_bad_inputs_are_numbered_without_gaps() -> None:
    rows = rows_of_bad_inputs()
    assert rows == list(range(1, len(rows) + 1))


def test_tests_cite_bad_inputs_that_are_listed() -> None:
    """Docstrings that begin with a number; that every row is somewhere, tests/nbdserver/cases/test_rows sees."""
    rows = set(rows_of_bad_inputs())
    cited = {
        int(number)
        for path in (REPOSITORY / "tests" / "nbdserver").rglob("*.py")
        for number in NUMBERED.findall(path.read_text())
    }
    assert cited <= rows
    assert len(cited) > 20, "the pattern is wrong"


def test_decisions_are_numbered_and_listed() -> None:
    """Each page has its number in name and title, its four parts, and its line in the list."""
    pages = sorted(DOCS.glob("decisions/[0-9]*.md"))
    listed = (DOCS / "decisions" / "README.md").read_text()
    for number, page in enumerate(pages, 1):
        text = page.read_text()
        title = next(iter(text.splitlines())).removeprefix("# ")
        assert page.name.startswith(f"{number:03}-")
        assert title.startswith(f"{number}. "), page.name
        for part in ("Context", "Decision", "Rejected", "Evidence"):
            assert f"\n**{part}.**" in text, f"{page.name} has no part {part}"
        assert re.search(rf"^\| {number} \| \[[^]]+\]\({page.name}\) \|", listed, re.MULTILINE), page.name
    assert len(re.findall(r"^\| \d+ \|", listed, re.MULTILINE)) == len(pages)
