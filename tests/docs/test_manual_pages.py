"""Manual pages: one for every command, with all its options, and nothing in it that the formatter complains of."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nbdserver.cli.root import cli
from tests.support.requirements import require

REPOSITORY = Path(__file__).resolve().parents[2]


def pages_of(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for inner, each in command.commands.items() if isinstance(command, click.Group) else ():
        yield from pages_of(each, f"{name}-{inner}")


@pytest.mark.thorough
def test_every_command_has_a_page(tmp_path: Path) -> None:
    require("man")
    subprocess.run([REPOSITORY / "scripts" / "man", tmp_path], check=True, capture_output=True)
    wanted = dict(pages_of(cli, "nbdserver"))
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.1" for name in wanted}
    for name, command in wanted.items():
        page = tmp_path / f"{name}.1"
        done = subprocess.run(
            ["man", "--warnings", "-E", "utf8", "-l", page], capture_output=True, text=True, env={"MANWIDTH": "500"}
        )
        assert (done.returncode, done.stderr) == (0, ""), name
        options = {each.opts[-1] for each in command.params if isinstance(each, click.Option)}
        assert {option for option in options if option not in done.stdout} == set(), name


def test_examples_stay_lines_of_their_own(tmp_path: Path) -> None:
    require("man")
    subprocess.run([REPOSITORY / "scripts" / "man", tmp_path], check=True, capture_output=True)
    shown = subprocess.run(["man", "-l", tmp_path / "nbdserver-serve.1"], capture_output=True, text=True).stdout
    assert "nbdserver serve s3://bucket/disks --create vol1=10GiB" in [line.strip() for line in shown.splitlines()]
