"""Invariants are numbered where their class is, and cited by number where they are relied on: each number that is cited
is defined, and each that is defined is cited.
"""

import re
from collections import Counter
from collections.abc import Iterable

from tests.structure.sources import FILES

DEFINED = re.compile(r"^ {4,}([A-Z][0-9])  \S", re.MULTILINE)
CITED = re.compile(r"\(([A-Z][0-9](?:, [A-Z][0-9])*)\)")


def faults(sources: Iterable[str]) -> list[str]:
    """What does not fit: numbers defined twice, cited and not defined, defined and not cited."""
    defined: Counter[str] = Counter()
    cited: set[str] = set()
    for source in sources:
        defined.update(DEFINED.findall(source))
        cited.update(number for found in CITED.findall(source) for number in found.split(", "))
    found = [f"{number} is defined {count} times" for number, count in defined.items() if count > 1]
    found += [f"{number} is cited and not defined" for number in cited - defined.keys()]
    found += [f"{number} is defined and not cited" for number in defined.keys() - cited]
    return sorted(found)


def test_invariants_are_cited() -> None:
    sources = [path.read_text() for path in FILES]
    assert len({number for source in sources for number in DEFINED.findall(source)}) > 15
    assert faults(sources) == []


def test_the_test() -> None:
    defined = "    Invariants, by number:\n\n        A1  It grows.\n        A2  It ends.\n"
    assert faults([defined, "# It grew (A1, A2).\n"]) == []
    assert faults([defined, '"""It grew (A1)."""\n']) == ["A2 is defined and not cited"]
    assert faults([defined, "# It grew (A1, A2), and shrank (A3).\n"]) == ["A3 is cited and not defined"]
    assert faults([defined, defined, "# (A1, A2)\n"]) == ["A1 is defined 2 times", "A2 is defined 2 times"]
