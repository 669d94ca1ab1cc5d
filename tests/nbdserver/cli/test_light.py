"""Help and version cost nothing: no heavy module is imported before a command runs."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nbdserver import __version__
from nbdserver.cli.late_commands import ROOT_COMMANDS
from nbdserver.cli.root import cli

REPOSITORY = Path(__file__).resolve().parents[3]

HEAVY = (
    "aiohttp",
    "asyncio",
    "cryptography",
    "lz4",
    "minio",
    "msgspec",
    "nacl",
    "numpy",
    "prometheus_client",
    "rich",
    "storage",
    "structlog",
)

OF_COMMANDS_ONLY = (
    "bz2",
    "dataclasses",
    "json",
    "logging",
    "lzma",
    "pathlib",
    "shlex",
    "shutil",
    "traceback",
    "urllib",
)
"""Half of the time that a page takes would be theirs."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(cli))

ON_NO_STORE = {"attach", "attached", "detach", "config check", "config schema", "config show", "completion"}
"""What has to do with this machine, and with a store only through the server, or not at all."""


def test_help_and_version_import_nothing_heavy() -> None:
    program = f"""if True:
        import sys
        from nbdserver.cli import main
        sys.argv = ["nbdserver", *{{}}]
        assert main() == 0
        assert not (loaded := set({HEAVY!r}) & set(sys.modules)), loaded
    """
    pages = ("--version",), ("--help",), ("serve", "--help"), ("device", "import", "--help"), ("attach", "--help")
    for arguments in map(list, pages):
        done = subprocess.run(
            [sys.executable, "-c", program.format(arguments)], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["--help", "--version"])
def test_the_page_of_all_commands_imports_nothing_that_only_commands_need(page: str) -> None:
    program = f"""if True:
        import sys
        before = set(sys.modules)
        from nbdserver.cli import main
        sys.argv = ["nbdserver", {page!r}]
        assert main() == 0
        assert not (loaded := set({OF_COMMANDS_ONLY!r}) & (set(sys.modules) - before)), loaded
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("columns", ["60", "20", "0", "x", " 70 ", "-1", pytest.param("9" * 5000, id="no-number")])
def test_the_page_is_as_wide_as_click_makes_it(columns: str) -> None:
    environ = {**os.environ, "COLUMNS": columns}
    program = "from nbdserver.cli import main; import sys; sys.argv = ['nbdserver', '--help']; main()"
    shown = [
        subprocess.run(
            [sys.executable, "-c", before + program], cwd=REPOSITORY, capture_output=True, text=True, env=environ
        ).stdout
        for before in ("", "from nbdserver.cli.root import cli; import click; cli.context_class = click.Context; ")
    ]
    assert shown[0] == shown[1] != ""


def test_what_asks_a_server_imports_nothing_asynchronous() -> None:
    program = "import sys, nbdserver.cli.serving.cmd_status, nbdserver.admin.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not (set(HEAVY) - {"msgspec", "storage"}) & set(done.stdout.split())


def test_a_command_is_imported_when_it_is_wanted() -> None:
    program = """if True:
        import sys
        from nbdserver.cli import main
        sys.argv = ["nbdserver", *{}]
        assert main() == 0
        print({{name.rpartition(".")[2] for name in sys.modules if ".cmd_" in name}})
    """
    for arguments, wanted in ([["--help"], set()], [["status", "--help"], {"cmd_status"}]):
        done = subprocess.run(
            [sys.executable, "-c", program.format(arguments)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == str(wanted)


@pytest.mark.parametrize("name", ROOT_COMMANDS)
def test_the_page_of_all_commands_says_what_each_says_of_itself(name: str) -> None:
    command = cli.commands[name]
    assert command.name == name
    assert command.get_short_help_str(1000) == ROOT_COMMANDS[name][1]
    assert list(ROOT_COMMANDS) == sorted(ROOT_COMMANDS)


def test_the_version_is_the_projects() -> None:
    assert tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"] == __version__


def test_the_commands() -> None:
    assert {" ".join(path) for path in COMMANDS} == {
        "init",
        "adopt",
        "serve",
        "restart",
        "bench store",
        "bench device",
        "debug list",
        "debug object",
        "stats",
        "top",
        "trace",
        "dashboard",
        "compact",
        "gc",
        "status",
        "flush",
        "check",
        "scrub",
        "replicate",
        *(f"password {verb}" for verb in ["list", "change", "add", "remove", "sheet"]),
        *(f"key {verb}" for verb in ["show", "rotate"]),
        "client list",
        "client disconnect",
        "client accept",
        *ON_NO_STORE,
        *(
            f"device {verb}"
            for verb in ["create", "list", "show", "resize", "rename", "clone", "delete", "import", "export", "salvage"]
        ),
        *(f"fs {verb}" for verb in ["ls", "tree", "stat", "mkdir", "ln", "mv", "rm", "chmod", "chown"]),
        *(f"snapshot {verb}" for verb in ["create", "list", "diff", "delete", "rollback"]),
    }


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_takes_a_store_and_speaks_json(path: tuple[str, ...]) -> None:
    options = {name for parameter in COMMANDS[path].params for name in parameter.opts}
    wanted = {"--json"} if " ".join(path) in ON_NO_STORE else {"--store", "--json", "--state-folder"}
    if path == ("completion",):
        wanted = set()  # what it prints is for a shell
    assert wanted <= options
    assert COMMANDS[path].help
    arguments = [parameter.name for parameter in COMMANDS[path].params if isinstance(parameter, click.Argument)]
    assert arguments or "--store" not in wanted, "a store is all it is given, and takes a word before it"


SAID_EACH_TIME = {
    "after",
    "before",
    "discard",
    "drop_others",
    "force",
    "help",
    "mounts",
    "of_running",
    "others",
    "overwrite",
    "raw",
    "shrink",
    "since",
    "stream",
    "yes",
}
"""What one command is told once, and no environment for all that follow."""


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_is_a_variable_too(path: tuple[str, ...]) -> None:
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option) and parameter.name not in SAID_EACH_TIME:
            long_name = next(name for name in parameter.opts if name.startswith("--"))
            assert parameter.envvar == "NBDSERVER_" + long_name[2:].replace("-", "_").upper()
