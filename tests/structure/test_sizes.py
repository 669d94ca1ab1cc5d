"""A file says one thing, a function fits on a screen, and a class can be kept in mind: none is larger than the house
rules say.
"""

import ast
from collections.abc import Iterator

from tests.structure.sources import FILES, ROOT, TESTS, name_of, nodes

FILE_LINES_MAX = 350
FOLDERS_OF_ENGINE_MAX = 10
FILES_OF_ENGINE_MAX = 7
FUNCTION_LINES_MAX = 50
"""From `def` to the end, with the docstring and without decorators."""

METHODS_MAX = 24
"""Of a class, with its properties: what has more is two things, or has parts with a state of their own."""

MANY_METHODS = {
    "BlockMap": "all of them read or keep one table of pages and one of patches, whose invariants stand at the class",
}
"""Classes that have more methods, and why."""


def too_long(source: str) -> Iterator[str]:
    """What is too long in a module."""
    lines = len(source.splitlines())
    if lines > FILE_LINES_MAX:
        yield f"the file: {lines} lines"
    for node in nodes(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.name}: {lines} lines"


def test_nothing_is_too_long() -> None:
    found = {name_of(path): list(too_long(path.read_text())) for path in FILES}
    assert len(found) > 200
    assert {place: wrong for place, wrong in found.items() if wrong} == {}


def test_no_function_of_the_script_that_reads_stores_is_too_long() -> None:
    """It is one file, so that it can be carried away alone."""
    found = list(too_long((ROOT / "scripts" / "recover").read_text()))
    assert [wrong for wrong in found if not wrong.startswith("the file:")] == []


def test_no_file_of_tests_is_too_long() -> None:
    lines = {name_of(path): len(path.read_text().splitlines()) for path in TESTS}
    assert len(lines) > 300
    assert {place: count for place, count in lines.items() if count > FILE_LINES_MAX} == {}


def methods(source: str) -> Iterator[tuple[str, int]]:
    """The classes of a module, and how many methods each has."""
    for node in nodes(source):
        if isinstance(node, ast.ClassDef):
            yield node.name, sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)


def test_no_class_has_too_many_methods() -> None:
    """Those that are excepted have more: a reason that nothing needs any more goes."""
    found = {name for path in FILES for name, count in methods(path.read_text()) if count > METHODS_MAX}
    assert found == MANY_METHODS.keys()


def test_the_engine_is_seen_at_a_glance() -> None:
    """What stands at its top can be kept in mind: folders, and the few files that join them."""
    engine = ROOT / "storage" / "lsm"
    folders = {path.parent.name for path in engine.glob("*/__init__.py")}
    files = {path.name for path in engine.glob("*.py")} - {"__init__.py"}
    assert 5 < len(folders) <= FOLDERS_OF_ENGINE_MAX, sorted(folders)
    assert 3 < len(files) <= FILES_OF_ENGINE_MAX, sorted(files)


def test_the_test() -> None:
    def source(lines: int) -> str:
        return "@decorated\nasync def f():\n" + "    pass\n" * (lines - 1)

    assert list(too_long(source(FUNCTION_LINES_MAX))) == []
    assert list(too_long(source(FUNCTION_LINES_MAX + 1))) == ["f: 51 lines"]
    assert list(too_long("\n" * FILE_LINES_MAX)) == []
    assert list(too_long("\n" * (FILE_LINES_MAX + 1))) == ["the file: 351 lines"]
    many = "class C:\n" + "    def f(self): ...\n" * 3 + "    async def g(self): ...\n    x: int\n"
    assert list(methods(many + "def h(): ...\n")) == [("C", 4)]
