"""The program as source: its files, and each of them parsed once for all rules that look at it."""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for package in ("nbdserver", "storage") for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    """The file as people name it."""
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree(source: str) -> ast.Module:
    """A module parsed; not to be changed."""
    return ast.parse(source)


@functools.cache
def nodes(source: str) -> tuple[ast.AST, ...]:
    """All that a module is made of."""
    return tuple(ast.walk(tree(source)))
