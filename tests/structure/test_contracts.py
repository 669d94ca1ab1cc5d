"""Each file has its place in the import contracts of `pyproject.toml`: without one, a new file fails."""

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.structure.sources import FILES, ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def packages(files: Iterable[Path]) -> dict[str, set[str]]:
    """The modules and packages that lie in each package, by its name; not `__init__`."""
    found: dict[str, set[str]] = {}
    for path in files:
        names = [*path.parent.parts, *(() if path.stem == "__init__" else (path.stem,))]
        if len(names) > 1:
            found.setdefault(".".join(names[:-1]), set()).add(names[-1])
    return found


def unguarded(inside: Mapping[str, Collection[str]], contracts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The packages with two modules or more that no exhaustive contract of layers is about."""
    guarded = {
        package
        for contract in contracts
        if contract["type"] == "layers" and contract.get("exhaustive", False)
        for package in contract.get("containers", ())
    }
    for package, modules in inside.items():
        if len(modules) > 1 and package not in guarded:
            yield package


def test_every_package_has_its_layers() -> None:
    inside = packages(path.relative_to(ROOT) for path in FILES)
    assert len(inside) > 20
    assert sorted(unguarded(inside, CONTRACTS)) == []


def test_no_module_has_its_place_by_being_ignored() -> None:
    ignored = {contract["name"] for contract in CONTRACTS if contract.keys() & {"exhaustive_ignores", "ignore_imports"}}
    assert ignored == set()


def test_the_test() -> None:
    files = [Path("a/__init__.py"), Path("a/one.py"), Path("a/b/__init__.py"), Path("a/b/two.py"), Path("a/b/three.py")]
    inside = packages(files)
    assert inside == {"a": {"one", "b"}, "a.b": {"two", "three"}}
    layers = {"type": "layers", "containers": ["a"], "exhaustive": True}
    assert list(unguarded(inside, [layers])) == ["a.b"]
    assert list(unguarded(inside, [layers, {"type": "layers", "containers": ["a.b"]}])) == ["a.b"], "not exhaustive"
    assert list(unguarded(inside, [layers, {**layers, "containers": ["a.b"]}])) == []
    assert list(unguarded({"c": {"one"}}, [])) == []
