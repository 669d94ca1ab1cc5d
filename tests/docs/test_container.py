"""The container file copies what is there, calls commands that exist, and runs nothing as root. No test builds it."""

import json
import re
import shlex

import click
import pytest

from nbdserver.cli.root import cli
from tests.support.program import REPOSITORY

FILE = REPOSITORY / "docs" / "container" / "Containerfile"
KNOWN = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "VOLUME", "USER", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"}
PASSWORD_VARIABLES = {"NBDSERVER_PASSWORD_FILE"}


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.M).replace("\\\n", "")
    return [(line.split()[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def of(name: str) -> list[str]:
    return [rest for each, rest in instructions() if each == name]


def command_of(words: list[str]) -> click.Command:
    """What the words name; an option that it does not have fails."""
    found: click.Command = cli
    left = list(words)
    while isinstance(found, click.Group):
        found = found.commands[left.pop(0)]
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in left if word.startswith("-")} <= known
    return found


def variables(command: click.Command) -> set[str]:
    own = {str(each.envvar) for each in command.params if each.envvar}
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    return own.union(*(variables(each) for each in inner))


def test_each_instruction_is_known() -> None:
    assert {name for name, _ in instructions()} == KNOWN | {"ENTRYPOINT", "CMD"}


def test_it_stands_on_plain_images() -> None:
    images = [rest.split()[0] for rest in of("FROM")]
    assert len(images) == 2
    assert all(re.fullmatch(r"python:3\.\d+-slim", image) for image in images)
    wanted = re.search(r'requires-python = ">=(.*)"', (REPOSITORY / "pyproject.toml").read_text())
    assert wanted is not None
    assert all(f":{wanted[1]}-" in image for image in images)


def test_what_is_copied_is_there_and_all_that_the_wheel_takes() -> None:
    copied = [shlex.split(rest)[:-1] for rest in of("COPY") if not rest.startswith("--from")]
    sources = {source for each in copied for source in each}
    assert all((REPOSITORY / source).exists() for source in sources)
    project = (REPOSITORY / "pyproject.toml").read_text()
    packages = re.search(r"packages = (\[.*\])", project)
    assert packages is not None
    assert {*json.loads(packages[1]), "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= sources
    (mark,) = re.findall(r"sed '/\^(.*)/,\$d'", FILE.read_text())
    assert (REPOSITORY / "constraints.txt").read_text().count(f"\n{mark}") == 1


@pytest.mark.parametrize("what", ["CMD", "HEALTHCHECK"])
def test_its_commands_exist_with_their_options(what: str) -> None:
    (entry,), (said,) = of("ENTRYPOINT"), of(what)
    words = json.loads(said[said.index("[") :])
    if what == "HEALTHCHECK":
        assert re.fullmatch(r"(--[a-z]+(-[a-z]+)*=\d+s )+CMD ", said[: said.index("[")])
    else:
        words = [*json.loads(entry), *words]
    program, *rest = words
    assert program == "nbdserver"
    command_of(rest)


def test_its_variables_are_those_of_options() -> None:
    (said,) = of("ENV")
    names = {word.split("=")[0] for word in shlex.split(said)}
    assert {name for name in names if name.startswith("NBDSERVER_")} <= variables(cli) | PASSWORD_VARIABLES
    assert "NBDSERVER_STATE_FOLDER" in names


def test_it_runs_as_a_user_that_may_write_to_its_volume() -> None:
    (user,), (volume,) = of("USER"), of("VOLUME")
    made = next(rest for rest in of("RUN") if "useradd" in rest)
    assert user != "root"
    assert re.search(rf"useradd .*\b{user}\b", made)
    assert re.search(rf"install .*-o {user} .*{volume}", made)
    assert [name for name, _ in instructions()].index("USER") > max(
        number for number, (name, _) in enumerate(instructions()) if name in ("RUN", "COPY")
    )
