"""What is private is private: only the code of a class reaches for what begins with `_` in its objects."""

import ast
import re
from collections.abc import Iterator

from tests.structure.sources import FILES, TESTS, name_of, tree

ALLOWED = {
    "os._exit": "the system's name for an end without more ado",
    "self._client._execute": "minio: what is public there makes a large object of each name that is listed, slowly",
    "self._client._put_object": "minio: what is public there takes neither bytes as they are nor If-None-Match",
    "client._put_object": "minio, to measure the same",
    "pytester._getpytestargs": "pytest's name for its own command line",
}

PUBLIC = {"_replace", "_asdict"}
"""Of a named tuple, whose fields have all other names."""

OF_ANOTHER = re.compile(r"(?<!\bself)(?<!\bcls)\._(?!_)")
"""What stands wherever there is anything to find."""

LOOK_INSIDE = {
    "tests/support/inside.py": "what tests look into, with a name for each",
    "tests/nbdserver/inside.py": "what tests look into, with a name for each",
    "tests/support/idle.py": "an event loop of asyncio, whose names these are",
    "tests/simulation/loop.py": "an event loop for asyncio, whose names these are",
    "tests/soak/broken.py": "mistakes planted into the server",
    "tests/nbdserver/server/test_session_model.py": "mistakes planted into a session",
    "tests/nbdserver/server/session_model.py": "a mistake planted into a session",
}
"""Files of tests that reach for what is private, and why."""


def own(owner: ast.ClassDef) -> set[str]:
    """The private names that a class defines: methods, fields, and what its methods set."""
    found = set()
    for node in ast.walk(owner):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            found.add(node.attr)
    return found


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def pokes(source: str) -> Iterator[str]:
    """Where a module reaches for something private of an object that is not of the class in which it stands. What
    stands beside a class, in its module, may name its methods: a table of what answers what.
    """
    if not OF_ANOTHER.search(source):
        return
    module = tree(source)
    classes = {node.name: own(node) for node in module.body if isinstance(node, ast.ClassDef)}

    def look(node: ast.AST, mine: set[str]) -> Iterator[str]:
        if isinstance(node, ast.ClassDef):
            mine = mine | own(node)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            known = mine
            if isinstance(node.value, ast.Name) and node.value.id in classes:
                known = classes[node.value.id]
            text = ast.unparse(node)
            if not is_self(node.value) and node.attr not in known | PUBLIC and text not in ALLOWED:
                yield f"line {node.lineno}: {text}"
        for child in ast.iter_child_nodes(node):
            yield from look(child, mine)

    yield from look(module, set())


def test_nobody_reaches_into_another() -> None:
    found = {name_of(path): list(pokes(path.read_text())) for path in FILES}
    assert len(found) > 200
    assert {place: wrong for place, wrong in found.items() if wrong} == {}


def test_tests_look_inside_where_it_has_a_name() -> None:
    found = {name_of(path): list(pokes(path.read_text())) for path in TESTS}
    assert LOOK_INSIDE.keys() <= found.keys()
    assert {place: wrong for place, wrong in found.items() if wrong and place not in LOOK_INSIDE} == {}


def test_the_test() -> None:
    mine = "class A:\n    def copy(self, other):\n        self._x = 1\n        other._x = self._x\n"
    assert list(pokes(mine)) == []
    assert list(pokes(mine + "\nTABLE = {1: A._x}\n")) == []
    assert list(pokes(mine + "\ndef f(a):\n    return a._x\n")) == ["line 7: a._x"]
    assert list(pokes("class B:\n    def f(self):\n        return self.a._x\n")) == ["line 3: self.a._x"]
    assert list(pokes("class B:\n    def f(self, a):\n        a.b._y += 1\n")) == ["line 3: a.b._y"]
