"""One name, one thing: no two classes and no two modules of the program have the same name."""

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for package in ("nbdserver", "storage") for path in (ROOT / package).rglob("*.py"))

MODULES_ALLOWED = {"__init__"}
"""Names that say nothing but what Python makes of them."""


def doubles(named: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The names that stand for more than one thing, and where: `named` is pairs of a name and a place."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in named:
        places[name].append(place)
    return {name: found for name, found in places.items() if len(found) > 1}


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_modules() -> None:
    assert doubles((path.stem, place(path)) for path in FILES if path.stem not in MODULES_ALLOWED) == {}


def test_classes() -> None:
    found = [
        (node.name, place(path))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert len(found) > 100
    assert doubles(found) == {}


def test_the_test() -> None:
    assert doubles([("Device", "fs"), ("Link", "fs"), ("Link", "server")]) == {"Link": ["fs", "server"]}
