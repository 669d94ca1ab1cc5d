"""`asyncio.wait_for` of Python 3.11 forgets that it was cancelled, if what it waits for is there at that moment: a task
that pauses by it goes on for ever, and whoever stops it waits as long. `asyncio.timeout` does not.
"""

import ast

from tests.structure.sources import FILES, name_of, nodes


def waits(source: str) -> list[int]:
    """The lines in which it is named."""
    return [
        node.lineno
        for node in nodes(source)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "asyncio.wait_for"
    ]


def test_nobody_waits_by_what_forgets_a_cancellation() -> None:
    found = {name_of(path): waits(path.read_text()) for path in FILES}
    assert {place: lines for place, lines in found.items() if lines} == {}


def test_the_test() -> None:
    assert waits("async def f(a):\n    await asyncio.wait_for(a, 1)\n") == [2]
