"""Two things measured in turn, as a table: medians of operations a second, and the median of the ratios by round."""

import statistics
from collections.abc import Mapping, Sequence


def table(
    found: Mapping[str, Mapping[str, Sequence[float]]],
    one: tuple[str, str],
    other: tuple[str, str],
    goals: Mapping[str, str],
) -> str:
    """`found` has the rates of each cell by kind, in order of rounds; `one` and `other` are a kind and its heading, and
    the ratio is that of the other to the one.
    """
    lines = [f"| operations a second | {one[1]} | {other[1]} | ratio | goal |", "| --- | --- | --- | --- | --- |"]
    for cell, rates in found.items():
        ratio = statistics.median(b / a for a, b in zip(rates[one[0]], rates[other[0]], strict=True))
        medians = (f"{statistics.median(rates[kind]):,.0f}" for kind in (one[0], other[0]))
        lines.append(f"| {' | '.join((cell, *medians, f'{ratio:.2f}', goals[cell]))} |")
    return "\n".join(lines)
