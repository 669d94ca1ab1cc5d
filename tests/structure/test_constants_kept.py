"""A constant of the program has one value: no test gives it another one. What tests want to vary is an option or an
argument, so that nothing is tested that cannot be had.
"""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.structure.sources import TESTS, name_of, nodes, tree

CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]+")
PROGRAM = ("storage", "nbdserver")

ALLOWED = {
    "tests/structure/test_constants_kept.py": "its own examples",
}
"""Files that do so, and why."""


def imported(source: str) -> set[str]:
    """Names under which a module of tests knows modules of the program, or may."""
    names = set()
    for node in nodes(source):
        if isinstance(node, ast.Import):
            names |= {each.asname or each.name.split(".")[0] for each in node.names if is_ours(each.name)}
        elif isinstance(node, ast.ImportFrom) and node.module is not None and is_ours(node.module):
            names |= {each.asname or each.name for each in node.names}
    return names


def is_ours(module: str) -> bool:
    return module.split(".")[0] in PROGRAM


def may_be_a_program(text: str) -> bool:
    return "\n" in text and "import" in text


def changes(source: str) -> Iterator[str]:
    """Where a module gives a new value to an upper-case name of a module of the program."""
    ours = imported(source)

    def names_ours(owner: ast.expr) -> bool:
        return ast.unparse(owner).split(".")[0] in ours

    def may_be_ours(owner: ast.expr) -> bool:
        return names_ours(owner) or ast.unparse(owner) == "module"

    for node in nodes(source):
        if isinstance(node, ast.Call) and len(node.args) >= 2:
            owner, name = node.args[:2]
            method = _last_name(node.func)
            if method in ("setattr", "object", "setitem") and isinstance(name, ast.Constant) and names_ours(owner):
                if CONSTANT.fullmatch(str(name.value)):
                    yield f"line {node.lineno}: {ast.unparse(owner)}.{name.value!s}"
            elif isinstance(owner, ast.Constant) and method in ("setattr", "patch"):
                if is_ours(str(owner.value)) and CONSTANT.fullmatch(str(owner.value).split(".")[-1]):
                    yield f"line {node.lineno}: {owner.value!s}"
            elif (
                method == "setattr"
                and isinstance(node.func, ast.Name)
                and isinstance(name, ast.Name)
                and may_be_ours(owner)
            ):
                yield f"line {node.lineno}: {ast.unparse(owner)}, whatever the name"
        elif isinstance(node, ast.Assign | ast.AugAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Attribute) and CONSTANT.fullmatch(target.attr) and names_ours(target.value):
                    yield f"line {node.lineno}: {ast.unparse(target)}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and may_be_a_program(node.value):
            yield from _in_text(node)


def _last_name(function: ast.expr) -> str:
    """`c` of `a.b.c`; nothing of what is called without a name."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _in_text(node: ast.Constant) -> Iterator[str]:
    """The same of a program that a module has as text."""
    try:
        inner = str(node.value)
        tree(inner)
    except (SyntaxError, ValueError):
        return
    yield from (f"line {node.lineno}, {change}" for change in changes(inner))


@pytest.mark.thorough
def test_no_test_changes_a_constant() -> None:
    found = {name_of(path): list(changes(path.read_text())) for path in TESTS}
    assert {place: wrong for place, wrong in found.items() if wrong and place not in ALLOWED} == {}
    assert [place for place in ALLOWED if not found[place]] == [], "it does so no more"


def test_the_test() -> None:
    first = "from storage.bucket import pace\nimport storage\n"
    bad = (
        'monkeypatch.setattr(pace, "SST_BYTES_MAX", 3)',
        'monkeypatch.setattr("storage.bucket.pace.SST_BYTES_MAX", 3)',
        'with patch.object(pace, "SST_BYTES_MAX", 3):\n    pass',
        "pace.SST_BYTES_MAX = 3",
        "storage.bucket.pace.SST_BYTES_MAX += 3",
        "setattr(pace, name, 3)",
        'PROGRAM = """\nfrom storage.bucket import pace\npace.SST_BYTES_MAX = 3\n"""',
    )
    assert [len(list(changes(first + line))) for line in bad] == [1] * len(bad)
    good = 'monkeypatch.setattr(pace, "Pace", None)\nmonkeypatch.setattr(world, "SECONDS_MAX", 1)\nself.ONE = 1\n'
    assert list(changes(first + good)) == []
