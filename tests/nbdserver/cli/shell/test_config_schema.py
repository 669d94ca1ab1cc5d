"""The JSON Schema of the configuration file: right by itself, and of one mind with who reads the file."""

import json
import tomllib
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from nbdserver.cli.root import cli
from nbdserver.cli.shared.config_file import BadConfig, commands_under, options, read
from nbdserver.cli.shared.config_place import CONFIG_NAME
from nbdserver.cli.shell.config_schema import schema
from tests.support.program import Host

REPOSITORY = Path(__file__).resolve().parents[4]
SCHEMA = schema(cli)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

DOCUMENTED = """
store = "s3://bucket/disks"
[serve]
create = ["vol1=100GiB"]
cache-size = "2GiB"
tls = "require"
tls-certificates = "/etc/nbdserver/pki"
port = 10809
read-only = false
keep = "hourly=24"
metrics = 9100
[top]
seconds = 0.5
"""


def test_it_is_a_schema_and_has_every_option() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for path, command in commands_under(cli, ()):
        table = SCHEMA
        for name in path:
            table = table["properties"][name]
        for option in options(command):
            assert all(name[2:] in table["properties"] for name in option.opts if name.startswith("--")), path


def test_what_it_takes_is_read(work: Path) -> None:
    VALIDATOR.validate(tomllib.loads(DOCUMENTED))
    (work / CONFIG_NAME).write_text(DOCUMENTED)
    read(work / CONFIG_NAME, cli)


@pytest.mark.parametrize(
    "text",
    [
        "por = 1",
        "[serf]\nport = 1",
        "[serve]\nport = 70000",
        "[serve]\nport = true",
        "[serve]\nport = [1]",
        '[serve]\ncreate = "a=1M"',
        "[serve]\nread-only = 1",
        "[serve]\nreplace = true",
        '[serve]\ntls = "maybe"',
        "[device.delete]\nyes = true",
        "seconds = 0.15",
    ],
)
def test_what_it_refuses_is_not(work: Path, text: str) -> None:
    assert not VALIDATOR.is_valid(tomllib.loads(text))
    (work / CONFIG_NAME).write_text(text)
    with pytest.raises(BadConfig):
        read(work / CONFIG_NAME, cli)


def allowed(one: dict[str, Any]) -> list[Any]:
    """A value of each type that the schema allows for an option."""
    one = one.get("items", one)
    types = one.get("type", [])
    least = one.get("minimum", 1)
    of_type = {"boolean": True, "integer": int(least), "number": float(least), "string": "a=1M"}
    values = (
        one.get("enum") or one.get("examples") or [of_type[t] for t in (types if isinstance(types, list) else [types])]
    )
    whole = [2.0**30] if "integer" in types and "examples" in one else []
    return [*values, *whole]


def test_what_it_takes_is_parsed_as_on_the_command_line(work: Path) -> None:
    """Seen: a port that is written as a number, and `nbdserver serve` ended with an AttributeError. A number may be
    refused where it means nothing, in a sentence."""
    path = work / CONFIG_NAME
    parsed = set()
    for names, command in commands_under(cli, ()):
        table = SCHEMA
        for name in names:
            table = table["properties"][name]
        for option in options(command) if names else ():
            key = next(name[2:] for name in option.opts if name.startswith("--"))
            for value in allowed(table["properties"][key]):
                case = (key, type(option.type), repr(value))
                if case in parsed:
                    continue
                parsed.add(case)
                given = [value] if option.multiple else value
                path.write_text(f"[{'.'.join(names)}]\n{key} = {json.dumps(given)}\n")
                try:
                    above = click.Context(cli, default_map=read(path, cli).defaults)
                except BadConfig:
                    assert value == "a=1M" or isinstance(value, int | float), case
                    continue
                for name in names:
                    above = click.Context(command, info_name=name, parent=above)
                found, _ = option.handle_parse_result(above, {}, [])
                text = value if option.is_flag else str(value)
                assert found == option.type_cast_value(above, [text] if option.multiple else text), case
    assert len(parsed) > 60


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("metrics = 9100", "metrics", ("127.0.0.1", 9100)),
        ("dashboard = 10810", "dashboard", ("127.0.0.1", 10810)),
        ("cache-size = 1073741824", "cache_bytes", 1 << 30),
        ("cache-size = 1073741824.0", "cache_bytes", 1 << 30),
        ("request-budget = 5000000", "request_budget", 5_000_000),
        ("port = 10810", "port", 10810),
        ("export = [1, 2.5]", "exports", ("1", "2.5")),
        ("store = 5", "store", "5"),
    ],
)
def test_numbers_stand_for_their_text(work: Path, text: str, name: str, value: object) -> None:
    (work / CONFIG_NAME).write_text(f"[serve]\n{text}\n")
    above = click.Context(cli, default_map=read(work / CONFIG_NAME, cli).defaults)
    command = cli.commands["serve"]
    assert command.make_context("serve", [], parent=above).params[name] == value


def test_the_command_prints_it(work: Path) -> None:
    printed: Any = json.loads(Host(work).run("config", "schema").stdout)
    assert printed == json.loads(json.dumps(SCHEMA))
