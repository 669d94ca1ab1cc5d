"""The options of a running command in the configuration file, read again."""

from pathlib import Path

import click

from nbdserver.cli.root import cli
from nbdserver.cli.serving.file_options import FileOptions
from nbdserver.cli.shared.config_file import read
from nbdserver.cli.shared.config_place import CONFIG_NAME
from nbdserver.service.rereading import Change


def test_what_changed_is_parsed_as_when_the_command_began(work: Path) -> None:
    path = work / CONFIG_NAME
    path.write_text('[serve]\nmetrics = 9100\ncache-size = "1G"\nexport = ["a"]\n')
    file = read(path, cli)
    above = click.Context(cli, default_map=file.defaults, obj=file)
    rereading = FileOptions(cli.commands["serve"].make_context("serve", [], parent=above))
    assert rereading.changes() == []
    path.write_text("[serve]\nmetrics = 9101\ncache-size = 1024.0\nexport = [1]\n")
    changes = rereading.changes()
    assert sorted(changes, key=lambda each: each.field) == [
        Change("cache_bytes", "--cache-size", 1024),
        Change("exports", "--export", ("1",)),
        Change("metrics", "--metrics", ("127.0.0.1", 9101)),
    ]
    rereading.accept(changes)
    assert rereading.changes() == []
