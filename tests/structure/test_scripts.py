"""What `scripts/bench` offers is what there is to run."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BENCH = (REPOSITORY / "scripts/bench").read_text()


def test_each_benchmark_can_be_run_and_stands_in_the_help() -> None:
    there = {
        path.stem
        for path in (REPOSITORY / "tests/benchmarks").glob("*.py")
        if re.search(r"^def main\(", path.read_text(), re.MULTILINE)
    }
    cases = re.search(r"^ *(amplification \|.*?)\)", BENCH, re.MULTILINE)
    assert cases
    runs = set(re.findall(r"[a-z]+", cases[1]))
    told = set(re.findall(r"^#   scripts/bench \[?([a-z]+)", BENCH, re.MULTILINE))
    assert there == runs == told
