"""One name, one thing: no two classes and no two modules of the program have the same name, and no two constants of one
name have different values. An underscore, or the plural of a module, makes no other name.
"""

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.structure.sources import FILES, ROOT, name_of, nodes, tree

MODULES_ALLOWED = {"__init__"}
"""Names that say nothing but what Python makes of them."""

ONE_AND_MANY = {"layers", "trunks"}
"""Modules about all of what another module is about one of."""


def doubles(named: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The names that stand for more than one thing, and where: `named` is pairs of a name and a place."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in named:
        places[name].append(place)
    return {name: found for name, found in places.items() if len(found) > 1}


def place(path: Path) -> str:
    return name_of(path)


def test_modules() -> None:
    assert doubles((as_heard(path.stem), place(path)) for path in FILES if path.stem not in MODULES_ALLOWED) == {}


def as_heard(stem: str) -> str:
    """The name of a module without what is easily passed over."""
    return stem if stem in ONE_AND_MANY else stem.replace("_", "").removesuffix("s")


def test_classes() -> None:
    found = [
        (node.name.lstrip("_"), place(path))
        for path in FILES
        for node in nodes(path.read_text())
        if isinstance(node, ast.ClassDef)
    ]
    assert len(found) > 100
    assert doubles(found) == {}


NO_NOUNS = {"its", "kept", "mine", "theirs", "whose"}
"""What says nothing of what it names."""


def test_names_are_nouns() -> None:
    """Of functions, classes, parameters and fields."""
    found = set()
    for path in FILES:
        for node in nodes(path.read_text()):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add((node.name, place(path)))
            elif isinstance(node, ast.arg):
                found.add((node.arg, place(path)))
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add((node.attr, place(path)))
    assert len(found) > 1000
    assert {each for each in found if each[0].strip("_").lower() in NO_NOUNS} == set()


def constants(source: str) -> list[str]:
    """The names that a module gives values to, written as constants are."""
    targets: list[ast.expr] = []
    for node in tree(source).body:
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    each = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return [name for name in each if re.fullmatch(r"_?[A-Z][A-Z0-9_]+", name)]


def disagreements(named: Iterable[tuple[str, Any, str]]) -> dict[str, list[str]]:
    """The names that stand for different values, and where: `named` is triples of a name, a value, and a place."""
    first: dict[str, Any] = {}
    places: dict[str, list[str]] = defaultdict(list)
    differ = set()
    for name, value, found in named:
        places[name].append(found)
        known = first.setdefault(name, value)
        if known is not value and (type(known) is not type(value) or known != value):
            differ.add(name)
    return {name: places[name] for name in differ}


def test_constants() -> None:
    found = []
    for path in FILES:
        names = constants(path.read_text())
        if names:
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            found += [(name, getattr(module, name), place(path)) for name in names]
    assert len(found) > 200
    assert disagreements(found) == {}


def test_the_test() -> None:
    assert constants("A_MAX = 1\n_BC: int = 2\nC, D = E, 3\nlower = 1\nX = 5\n") == ["A_MAX", "_BC"]
    assert disagreements([("A", 1, "x"), ("A", 1, "y"), ("B", 1, "x")]) == {}
    assert disagreements([("A", 1, "x"), ("A", 2, "y")]) == {"A": ["x", "y"]}
    assert disagreements([("A", 1, "x"), ("A", True, "y")]) == {"A": ["x", "y"]}
    assert as_heard("key_slots") == as_heard("keyslot")
    assert doubles([("Device", "fs"), ("Link", "fs"), ("Link", "server")]) == {"Link": ["fs", "server"]}
