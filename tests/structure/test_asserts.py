"""What data or a client rests on raises an error of its own, since `python -O` takes asserts away: in the program they
stand beside constants only, where they tell the reader how those hang together.
"""

import ast
from collections.abc import Iterator

from tests.structure.sources import FILES, name_of, nodes, tree


def asserts(source: str) -> Iterator[str]:
    """The asserts that are run while the program does something."""
    outer = tree(source).body
    for node in nodes(source):
        if isinstance(node, ast.Assert) and node not in outer:
            yield f"line {node.lineno}: {ast.unparse(node)}"


def test_nothing_rests_on_an_assert() -> None:
    found = {name_of(path): list(asserts(path.read_text())) for path in FILES}
    assert len(found) > 200
    assert {place: wrong for place, wrong in found.items() if wrong} == {}


def test_the_test() -> None:
    assert list(asserts("A = 4\nassert A == 2 + 2\n")) == []
    assert list(asserts("def f(a):\n    assert a\n")) == ["line 2: assert a"]
