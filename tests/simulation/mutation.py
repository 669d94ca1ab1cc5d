"""A mistake to be planted in the code: one piece of text in one file, and what stands there instead."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutation:
    """`old` is replaced by `new` in `file`, where it must stand exactly once."""

    name: str
    file: str
    old: str
    new: str


def mutated(mutation: Mutation) -> str:
    """The text of the file with the mistake in it; ValueError if the text to replace is not there (once)."""
    text = (ROOT / mutation.file).read_text()
    count = text.count(mutation.old)
    if count != 1:
        raise ValueError(f"{mutation.name}: its text stands {count} times in {mutation.file}")
    return text.replace(mutation.old, mutation.new)
