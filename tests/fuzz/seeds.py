"""The inputs that a fuzzer begins with: the rows of the table, and what earlier runs found.

The file `corpus.hex` holds inputs that took a way through the code which no row takes, one a line.
"""

from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.target import INPUT_BYTES_MAX, STARTS
from tests.nbdserver.cases import extended, haggling, requests

CORPUS = Path(__file__).parent / "corpus.hex"

STEP_BY_SEVENS = 2 << 4
BUSY = 1 << 6


def rows() -> Iterator[bytes]:
    """Each row of the table that is short, whole and in segments with a handler that declines."""
    for case in (*haggling.CASES, *requests.CASES, *extended.CASES):
        start = STARTS.index(case.start.say) if case.start.say in STARTS else 0
        said = case.say if start else case.start.say + case.say
        if len(said) <= INPUT_BYTES_MAX:
            yield (start << 2).to_bytes(2, "big") + said
            yield (start << 2 | STEP_BY_SEVENS | BUSY).to_bytes(2, "big") + said


def found() -> Iterator[bytes]:
    """What earlier runs found."""
    for line in CORPUS.read_text().splitlines():
        yield bytes.fromhex(line)
