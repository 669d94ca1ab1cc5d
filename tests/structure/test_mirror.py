"""Tests mirror the tree: a folder of tests bears the name of a package, or of a module that needs several files of
them, and what is named for a module stands where that stands.
"""

import functools
from collections import defaultdict
from pathlib import PurePosixPath

from tests.structure.sources import FILES, TESTS, name_of

ELSEWHERE = {
    "tests/nbdserver/cases": "cases of the whole server as data, and who runs them",
    "tests/nbdserver/differential": "the same requests to nbdkit and to this server",
}
"""Folders of tests that are of no single package, and why."""

MODULES = {PurePosixPath(name_of(path)).with_suffix("") for path in FILES}
PACKAGES = {module.parent for module in MODULES}


@functools.cache
def places() -> dict[str, set[PurePosixPath]]:
    """By the name of a module: where tests of it may stand."""
    found: defaultdict[str, set[PurePosixPath]] = defaultdict(set)
    for module in MODULES:
        found[module.name] |= {"tests" / module.parent, "tests" / module}
    return found


def of_packages() -> list[PurePosixPath]:
    paths = (PurePosixPath(name_of(path)) for path in TESTS)
    ours = (path for path in paths if path.parts[1] in ("storage", "nbdserver"))
    return [path for path in ours if str(path.parent) not in ELSEWHERE]


def misplaced(path: PurePosixPath) -> str | None:
    """Where a file of tests should stand; None: it stands there."""
    mirrored = PurePosixPath(*path.parts[1:-1])
    if mirrored not in PACKAGES | MODULES:
        return f"{path}: there is no {mirrored}"
    name = path.stem.removeprefix("test_")
    where = {place for place in places()[name] if place.parts[1] == path.parts[1]}
    if path.name.startswith("test_") and where and path.parent not in where:
        return f"{path} should stand in one of {sorted(map(str, where))}"
    return None


def test_tests_mirror_the_tree() -> None:
    assert list(filter(None, map(misplaced, of_packages()))) == []


def test_no_folder_is_left_out_in_vain() -> None:
    there = {str(PurePosixPath(name_of(path)).parent) for path in TESTS}
    assert set(ELSEWHERE) <= there


def test_the_test() -> None:
    storage = PurePosixPath("tests", "storage", "lsm")
    server = PurePosixPath("tests", "nbdserver", "server")
    assert misplaced(storage / "wal" / "test_pacing.py") is None
    assert misplaced(server / "tls_transport" / "test_tls_transport.py") is None
    assert misplaced(storage / "wal" / "test_a_story.py") is None
    assert misplaced(storage / "test_pacing.py") is not None
    assert misplaced(storage / "commit" / "test_a_story.py") is not None
