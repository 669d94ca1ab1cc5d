"""The JSON Schema of the configuration file: right by itself, and of one mind with who reads the file."""

import json
import tomllib
from pathlib import Path
from typing import Any

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


def test_the_command_prints_it(work: Path) -> None:
    printed: Any = json.loads(Host(work).run("config", "schema").stdout)
    assert printed == json.loads(json.dumps(SCHEMA))
