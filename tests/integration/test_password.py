"""`nbdserver password`: several passwords of a store that is served, and of one at rest, on a folder and on MinIO."""

import json
import re
import shlex
from collections.abc import Callable

import pytest

from tests.support.program import EXIT_CONFLICT, EXIT_EXISTS, EXIT_WRONG_PASSWORD, Host, Server
from tests.support.stores import StoreUnderTest

NOT_FOUND = 10


def passwords(server: Server, *words: str, password: str = Host.password, new: str = "", status: int = 0) -> str:
    """What `nbdserver password WORDS` says."""
    arguments = ("password", *words, "--store", server.location)
    done = server.host.run(*arguments, status=status, NBDSERVER_PASSWORD=password, NBDSERVER_NEW_PASSWORD=new)
    return done.stderr if status else done.stdout


def opens(server: Server, password: str) -> bool:
    done = server.host.run("device", "list", "--store", server.location, status=None, NBDSERVER_PASSWORD=password)
    assert done.returncode in (0, EXIT_WRONG_PASSWORD)
    return done.returncode == 0


@pytest.mark.parametrize("store", ["minio"], indirect=True)
def test_several_passwords_of_a_store_that_is_served(store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    server = make_server(store, create={"disk": "1MiB"})
    server.start()
    assert passwords(server, "add", "backup", new="second") == "backup: added\n"
    assert "labelled 'backup' already" in passwords(server, "add", "backup", new="third", status=EXIT_EXISTS)
    assert "already, as 'backup'" in passwords(server, "add", "third", new="second", status=EXIT_EXISTS)
    wrong = passwords(server, "add", "third", password="none of them", new="third", status=EXIT_WRONG_PASSWORD)
    assert wrong.startswith("nbdserver: the password does not open")
    rows = passwords(server, "list", password="second").splitlines()
    assert [row.split("\t")[::2] for row in rows] == [["main", "no"], ["backup", "yes"]]
    assert passwords(server, "change", password="second", new="changed") == "the password was changed\n"
    assert passwords(server, "remove", "main", password="changed") == "main: removed\n"
    assert "no password is labelled" in passwords(server, "remove", "main", password="changed", status=NOT_FOUND)
    only = passwords(server, "remove", "backup", password="changed", status=EXIT_CONFLICT)
    assert only.startswith("nbdserver: 'backup' is the only password")

    with server.connect("disk") as client:
        client.write(0, b"goes on" * 100)
        client.flush()
    assert server.stop() == 0
    assert [opens(server, password) for password in (Host.password, "second", "changed")] == [False, False, True]


@pytest.mark.slow
def test_a_recovery_sheet_of_a_store_at_rest(local_store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    """What stands on it is what to type."""
    server = make_server(local_store, create={"disk": "1MiB"})
    server.start()
    assert server.stop() == 0
    sheet = passwords(server, "sheet")
    code = re.search(r"^ {4}((?:[0-9A-Z]{4}-){7}[0-9A-Z]{4})$", sheet, re.MULTILINE)
    assert code, sheet
    assert "already" in passwords(server, "sheet", status=EXIT_EXISTS), "a second one has a label of its own"
    commands = [shlex.split(line)[1:] for line in sheet.splitlines() if line.startswith("    nbdserver ")]
    assert [words[:2] for words in commands] == [
        ["device", "list"],
        ["password", "add"],
        ["password", "remove"],
        ["password", "sheet"],
    ]
    for words, new in zip(commands, ("", "my own", "", ""), strict=True):
        password = "my own" if words[1] in ("remove", "sheet") else code[1]
        server.host.run(*words, NBDSERVER_PASSWORD=password, NBDSERVER_NEW_PASSWORD=new)
    assert not opens(server, code[1])
    listed = json.loads(passwords(server, "list", "--json", password="my own"))
    assert [(each["label"], each["given"]) for each in listed] == [
        ("main", False),
        ("LABEL", True),
        ("recovery", False),
    ]
