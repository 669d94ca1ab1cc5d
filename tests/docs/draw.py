"""Draws the pictures in docs/ that follow from code, between the marks that name them: `scripts/draw`.

The layers of a package are those of its import contract in pyproject.toml, the states of a handshake those of the
table in nbdserver/protocol/states.py. A test compares what is written with what this draws.
"""

import re
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from nbdserver.protocol import states
from tests.support.program import REPOSITORY

WIDTH = 106
"""Columns of a picture of layers."""

_MARKED = re.compile(r"(<!-- scripts/draw: ([\w. ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def layers(package: str) -> str:
    """The layers of a package, from the top down: what stands in one may import what stands below it, and modules side
    by side know nothing of each other. Folders end with a slash."""
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (rows,) = [contract["layers"] for contract in contracts if contract.get("containers") == [package]]
    folder = REPOSITORY / package.replace(".", "/")
    lines: list[str] = []
    above = ""
    for row in rows:
        names = [f"{name}/" if (folder / name).is_dir() else name for name in re.split(r" [|:] ", row)]
        cells = [f" {name.ljust(width)} " for name, width in zip(names, _widths(names), strict=True)]
        edge = f"+{'+'.join('-' * len(cell) for cell in cells)}+"
        lines += [_joined(above or edge, edge), f"|{'|'.join(cells)}|"]
        above = edge
    lines.append(above)
    return "```\n" + "\n".join([f"{package.replace('.', '/')}/", *lines]) + "\n```\n"


def _widths(names: list[str]) -> list[int]:
    """Columns for each name of a row, which share what is left over."""
    left, over = divmod(WIDTH - 1 - sum(len(name) + 3 for name in names), len(names))
    return [len(name) + left + (index < over) for index, name in enumerate(names)]


def _joined(above: str, below: str) -> str:
    """One line for the lower edge of a row and the upper edge of the next."""
    return "".join("+" if "+" in pair else "-" for pair in zip(above, below, strict=True))


def handshake() -> str:
    """The states of a handshake, as a Mermaid diagram."""
    return f"```mermaid\n{states.picture()}```\n"


PICTURES: dict[str, Callable[[], str]] = {
    "handshake": handshake,
    **{
        f"layers of {package}": partial(layers, package)
        for package in ("nbdserver", "nbdserver.server", "storage", "storage.lsm")
    },
}


def drawn(text: str) -> str:
    """The text of a document with its pictures as they should be."""
    return _MARKED.sub(lambda match: f"{match[1]}{PICTURES[match[2]]()}{match[3]}", text)


def documents() -> list[Path]:
    """All that may have pictures."""
    return sorted((REPOSITORY / "docs").rglob("*.md"))


def pictures(text: str) -> list[str]:
    """The names of the pictures in a text."""
    return [match[2] for match in _MARKED.finditer(text)]


def main() -> None:
    for path in documents():
        text = path.read_text()
        if (new := drawn(text)) != text:
            path.write_text(new)
            print(f"drew {', '.join(pictures(text))} in {path.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
