"""Numbers of seconds: what is no number, or has no end, is a usage error, of every option that takes them."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nbdserver.cli.root import cli
from tests.nbdserver.cli.test_light import COMMANDS

pytestmark = pytest.mark.fast

RANGES = [
    (*path, next(name for name in parameter.opts if name.startswith("--")))
    for path, command in COMMANDS.items()
    for parameter in command.params
    if isinstance(parameter.type, click.FloatRange)
]


def test_those_are_looked_at_that_there_are() -> None:
    assert {" ".join(words) for words in RANGES} >= {"bench store --seconds", "top --seconds"}


@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "-inf", "1e999", "zero"])
@pytest.mark.parametrize("words", RANGES, ids=" ".join)
def test_what_is_no_number_of_seconds_is_a_usage_error(words: tuple[str, ...], value: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, [*words, value, str(tmp_path)])
    assert done.exit_code == 2, done.output
    assert f"Invalid value for '{words[-1]}'" in done.output
