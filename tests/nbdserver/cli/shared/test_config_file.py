"""The configuration file: which one counts, what may stand in it, what weighs more, and how a mistake is told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nbdserver.cli.root import cli
from nbdserver.cli.shared.config_file import NEVER, BadConfig, commands_under, options, read
from nbdserver.cli.shared.config_place import CONFIG_NAME, find
from storage.errors import AccessDenied
from tests.support.program import Host
from tests.support.requirements import require


def written(folder: Path, text: str) -> Path:
    path = folder / CONFIG_NAME
    path.write_text(text)
    return path


def test_a_key_is_for_all_commands_that_have_the_option_and_a_table_for_one(work: Path) -> None:
    text = 'store = "/a"\nunix = "/s"\n[serve]\ncreate = ["x=1M"]\nunix = "/t"\n[device.import]\nstore = "/b"\n'
    file = read(written(work, text), cli)
    assert file.defaults["serve"] == {"store": "/a", "unix": "/t", "create": ["x=1M"]}
    assert file.defaults["attach"] == {"unix": "/s"}
    assert file.defaults["device"]["list"] == {"store": "/a"}
    assert file.defaults["device"]["import"] == {"store": "/b"}
    assert "config" not in file.defaults
    assert [file.line_of(("serve",), key) for key in ("store", "unix", "create", "port")] == [1, 5, 4, None]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("por = 1", "line 1: por: this is no option of any command"),
        ("\n[serve]\npor = 1", "line 3: serve.por: this is no option of nbdserver serve"),
        ("[serf]\nport = 1", "serf: this is no option of any command"),
        ("[serve]\nport = 70000", "line 2: serve.port: 70000 is not in the range 0<=x<=65535"),
        ("[serve]\nport = true", "line 2: serve.port: a text or a number is expected"),
        ("[serve]\nport = [1]", "line 2: serve.port: one value is expected, no list"),
        ('[serve]\ncreate = "a=1M"', "line 2: serve.create: a list is expected"),
        ('[serve]\ncreate = ["a"]', "line 2: serve.create: 'a' is not NAME=SIZE"),
        ('[serve]\ncache-size = "2 loaves"', "line 2: serve.cache-size: '2 loaves' is not a size: write 10GiB"),
        ("[serve]\nread-only = 1", "line 2: serve.read-only: true or false is expected"),
        ("[serve]\ntake-over = true", "line 2: serve.take-over: this is no option of nbdserver serve that can stand"),
        ("[device.delete]\nyes = true", "line 2: device.delete.yes: this is no option"),
        ('config = "/x"', "line 1: config: this is no option"),
        ("port = ", "(at "),
        ("port = 1\nport = 2", "(at "),
    ],
)
def test_a_mistake_is_told_with_its_place(work: Path, text: str, sentence: str) -> None:
    path = written(work, text)
    with pytest.raises(BadConfig) as told:
        read(path, cli)
    assert str(path) in told.value.message
    assert sentence in told.value.message
    assert told.value.status == 2


def test_what_is_done_once_has_no_place_in_it() -> None:
    for path, command in commands_under(cli, ()):
        assert not {each.name for each in options(command)} & NEVER, path


def test_one_that_others_can_write(work: Path) -> None:
    folder = work / "open"
    folder.mkdir()
    path = written(folder, "")
    folder.chmod(0o777)
    with pytest.raises(AccessDenied, match="would not be safe: other users can write to"):
        read(path, cli)


def test_which_one_counts(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user, here = work / "config" / "nbdserver", work / "here"
    for folder in (user, here):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    environ = {"XDG_CONFIG_HOME": str(work / "config"), "HOME": str(work)}
    assert find(environ) in (None, f"/etc/nbdserver/{CONFIG_NAME}")
    written(user, "")
    assert find(environ) == str(user / CONFIG_NAME)
    written(here, "")
    assert find(environ) == str(here / CONFIG_NAME)


@pytest.mark.integration
def test_folders_that_cannot_be_looked_into_have_none(host: Host, work: Path) -> None:
    """The working folder is gone, or another user's; so may the home be, of who was before `sudo -u`."""
    require("root", "setpriv")
    closed = work / "closed"
    closed.mkdir(mode=0o700)
    written(closed, "wrong")
    gone = work / "gone"
    look = "import os; from nbdserver.cli.shared.config_place import find; print(find(dict(HOME=os.environ['LOOK'])))"
    for folder, prefix in ((gone, []), (closed, ["setpriv", "--reuid=65534", "--clear-groups"])):
        folder.mkdir(exist_ok=True)
        leave = f'cd {folder} && {f"rmdir {gone}" if folder == gone else "true"} && exec "$@"'
        done = subprocess.run(
            ["sh", "-c", leave, "sh", *prefix, sys.executable, "-c", look],
            env={**host.environment(), "LOOK": str(closed if prefix else gone)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.strip() in ("None", f"/etc/nbdserver/{CONFIG_NAME}"), done.stderr


@pytest.mark.integration
def test_what_weighs_more(host: Host) -> None:
    """The command line, the environment, the file."""
    host.environment()
    written(host.folder, 'store = "/of/the/file"\n')
    listed = "device", "list"
    for done, store in (
        (host.run(*listed, status=10), "/of/the/file"),
        (host.run(*listed, status=10, NBDSERVER_STORE="/of/environment"), "/of/environment"),
        (host.run(*listed, "--store=/of/arguments", status=10, NBDSERVER_STORE="/of/environment"), "/of/arguments"),
    ):
        assert store in done.stderr


@pytest.mark.integration
def test_show_and_check(host: Host) -> None:
    host.environment()
    path = written(host.folder, '[serve]\nport = 10810\nbind = "::1"\n')
    assert host.run("config", "check").stdout == f"{path}: fine\n"
    rows = json.loads(host.run("config", "show", "--json", NBDSERVER_BIND="::2").stdout)
    shown = {row["option"]: (row["value"], row["source"]) for row in rows}
    assert shown["port"] == ("10810", f"{path}:2")
    assert shown["bind"] == ("::2", "NBDSERVER_BIND")
    assert shown["scrub-days"] == (30, "default")
    assert shown["password"] == ("(not shown)", "NBDSERVER_PASSWORD")
    assert host.password not in json.dumps(rows)
    assert "10810" not in host.run("config", "show", "attach").stdout
    elsewhere = host.folder / "other.toml"
    elsewhere.write_text("[serve]\nport = 0\nprot = 1\n")
    said = host.run("--config", str(elsewhere), "config", "check", status=2).stderr
    assert said == (
        f"nbdserver: {elsewhere}, line 3: serve.prot: this is no option of nbdserver serve that can stand in a file\n"
    )
