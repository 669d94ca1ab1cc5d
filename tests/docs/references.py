"""What a text of this repository refers to, and which of it is not there.

Looked at: files and modules, tests (`file.py::name`), headings (`docs/x.md, "Heading"`), numbers of decisions and of
bad inputs, and numbered sections of documents. A document that nobody can read is not to be cited at all.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.program import REPOSITORY

DOCS = REPOSITORY / "docs"
BAD_INPUTS = DOCS / "bad-inputs.md"
FORMAT = DOCS / "format.md"

FOLDERS = ("nbdserver", "storage", "tests", "docs", "scripts", "changelog", ".ci")
SUFFIXES = {".py", ".md", ".sh", ".toml", ".yaml", ""}

_PATH = re.compile(r"(?<![\w/.~@<>\\-])((?:docs|tests|storage|nbdserver|scripts|changelog)/[\w./-]*\w)(::\w+)?")
_MODULE = re.compile(r"(?<![\w/.@-])((?:storage|nbdserver|tests)(?!\.example\.|\.toml\b)(?:\.[A-Za-z_]\w*)+)(?![\w/-])")
_HEADING = re.compile(r'(docs/[\w/-]+\.md)`?, "([^"]+)"')
_DECISION = re.compile(r"\b[Dd]ecision (\d+)")
_SECTION = re.compile(r"\b[Ss]ection (\d+)")
_BAD_INPUT = re.compile(r"\b[Bb]ad inputs? (\d+)")
_UNREADABLE = re.compile(r"\bDESIGN(?:\.md)?\b|\bof the design\b|\bthe design (?:says|promises|lays)\b")

_PUBLISHED = re.compile(r"RFC \d+|draft-[\w-]+|proto\.md")
"""Documents that anybody can read, and their sections with them."""

NEAR = 160
"""Characters before a section in which its document is named."""


def texts() -> list[Path]:
    """The files whose references are looked at: of the repository, and what people wrote."""
    folders = [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*")]
    found = [*folders, *REPOSITORY.glob("*.md"), *REPOSITORY.glob("*.toml"), *REPOSITORY.glob(".*.yaml")]
    return sorted(path for path in found if path.suffix in SUFFIXES and path.is_file())


def lost(text: str, *, of_format: bool = False) -> list[str]:
    """The references of a text that lead nowhere. `of_format`: it is docs/format.md, whose sections are its own."""
    text = re.sub(r"\n\s*(?:#:? )?", " ", text)
    return [*_lost_files(text), *_lost_numbers(text, of_format=of_format)]


def rows_of_bad_inputs() -> list[int]:
    """The numbers of docs/bad-inputs.md, as they stand."""
    return [int(number) for number in re.findall(r"^\| (\d+) \|", BAD_INPUTS.read_text(), re.MULTILINE)]


def headings(path: Path) -> set[str]:
    """The headings of a document, and the bold words with which its paragraphs begin."""
    text = path.read_text()
    return {*re.findall(r"^#+ (.*)$", text, re.MULTILINE), *re.findall(r"^\*\*(.+?)\.\*\*", text, re.MULTILINE)}


def _lost_files(text: str) -> Iterator[str]:
    for name, test in _PATH.findall(text):
        path = REPOSITORY / name
        if not path.exists():
            yield f"{name} is not there"
        elif test and f"def {test[2:]}(" not in path.read_text():
            yield f"there is no test {name}{test}"
    for name, heading in _HEADING.findall(text):
        if (REPOSITORY / name).exists() and heading not in headings(REPOSITORY / name):
            yield f'{name} has no heading "{heading}"'
    yield from (f"{name} is not there" for name in _MODULE.findall(text) if not _is_there(name))


def _lost_numbers(text: str, *, of_format: bool) -> Iterator[str]:
    for number in _DECISION.findall(text):
        if not list(DOCS.glob(f"decisions/{int(number):03}-*.md")):
            yield f"there is no decision {number}"
    for number in _BAD_INPUT.findall(text):
        if int(number) not in rows_of_bad_inputs():
            yield f"there is no bad input {number}"
    for match in _SECTION.finditer(text):
        before = text[max(0, match.start() - NEAR) : match.start()]
        if of_format or "docs/format.md" in before:
            if not any(heading.startswith(f"{match[1]}. ") for heading in headings(FORMAT)):
                yield f"docs/format.md has no {match[0]}"
        elif not _PUBLISHED.search(before):
            yield f"{match[0]} of what?"
    yield from (f'"{words}" is no document that can be read' for words in _UNREADABLE.findall(text))


@cache
def _is_there(name: str) -> bool:
    """Whether it is a module, or something that stands in the last module of it."""
    at = REPOSITORY
    for part in name.split("."):
        if (at / part).is_dir():
            at = at / part
        elif (at / f"{part}.py").is_file():
            at = at / f"{part}.py"
        else:
            file = at / "__init__.py" if at.is_dir() else at
            return file.is_file() and re.search(rf"\b{part}\b", file.read_text()) is not None
    return True
