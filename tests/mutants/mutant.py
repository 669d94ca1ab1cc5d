"""One mistake in the code, and the tests that must notice it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`old` is replaced by `new` in `file`, where it must stand exactly once; then one of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def mutants(file: str, noticed_by: str, *mistakes: tuple[str, str, str]) -> list[Mutant]:
    """Those of one file, which the same tests notice."""
    return [Mutant(name, file, old, new, tuple(noticed_by.split())) for name, old, new in mistakes]
