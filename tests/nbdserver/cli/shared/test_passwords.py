"""Where a password may come from."""

import io
import os
import sys
import threading
from pathlib import Path

import pytest

from nbdserver.cli.shared import passwords
from nbdserver.cli.shared.exit_status import CommandFailed
from storage.secret import Secret
from tests.support.processes import until


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"from a file\n")
    path.chmod(0o600)
    return path


@pytest.mark.thorough
def test_a_command_may_take_its_time_and_what_is_waited_for_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It may ask a person, who is not there yet."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    told = ""

    def is_told() -> bool:
        nonlocal told
        told += capfd.readouterr().err
        return bool(told)

    def answer() -> None:
        until(is_told, seconds=30, what="a line")
        pipe.write_text("at last\n")

    person = threading.Thread(target=answer)
    person.start()
    found = passwords.current({"NBDSERVER_PASSWORD_COMMAND": f"cat {pipe}"})
    person.join()
    assert found.secret == Secret(b"at last")
    assert told == "nbdserver: waiting for the command in NBDSERVER_PASSWORD_COMMAND\n"


def test_a_command_reads_nothing_that_was_meant_for_this_process(tmp_path: Path) -> None:
    """What comes in may be a disk. A terminal is for both: a person is asked there."""
    path, kept = tmp_path / "input", os.dup(0)
    path.write_text("a part of a disk")
    controller, terminal = os.openpty()
    try:
        with path.open() as file:
            os.dup2(file.fileno(), 0)
        with pytest.raises(CommandFailed, match="is empty"):
            passwords.current({"NBDSERVER_PASSWORD_COMMAND": "cat"})
        assert os.lseek(0, 0, os.SEEK_CUR) == 0
        os.dup2(terminal, 0)
        found = passwords.current({"NBDSERVER_PASSWORD_COMMAND": "sh -c 'test -t 0 && echo asked'"})
        assert found.secret == b"asked"
    finally:
        os.dup2(kept, 0)
        for descriptor in (kept, controller, terminal):
            os.close(descriptor)


def test_each_source(secret_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "password").write_bytes(b"from systemd")
    sources = {
        b"from a variable": {"NBDSERVER_PASSWORD": "from a variable"},
        b"from a file": {"NBDSERVER_PASSWORD_FILE": str(secret_file)},
        b"a 'quoted' one": {"NBDSERVER_PASSWORD_COMMAND": """printf '%s\\r\\n' "a 'quoted' one" """},
        b"from systemd": {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")},
    }
    for secret, environ in sources.items():
        assert passwords.current(environ) == passwords.Password(Secret(secret))
    assert passwords.current({"NBDSERVER_PASSWORD": "\udcff"}).secret == b"\xff"
    assert str(tmp_path / "credentials" / "password") in capfd.readouterr().err


def test_new_passwords_have_variables_of_their_own(secret_file: Path) -> None:
    environ = {"NBDSERVER_PASSWORD": "old", "NBDSERVER_NEW_PASSWORD_FILE": str(secret_file)}
    assert passwords.current(environ).secret == b"old"
    assert passwords.new(environ).secret == b"from a file"


def test_an_empty_variable_is_none(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"NBDSERVER_PASSWORD": "", "NBDSERVER_PASSWORD_FILE": str(secret_file), "NBDSERVER_PASSWORD_COMMAND": ""}
    assert passwords.current(environ).secret == b"from a file"
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(CommandFailed, match="no password: set NBDSERVER_PASSWORD"):
        passwords.current({"NBDSERVER_PASSWORD": ""})


def test_only_the_end_of_the_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b" two lines\n and spaces \n\n")
    path.chmod(0o600)
    assert passwords.current({"NBDSERVER_PASSWORD_FILE": str(path)}).secret == b" two lines\n and spaces \n"


def test_two_at_once_are_an_error(secret_file: Path) -> None:
    environ = {"NBDSERVER_PASSWORD": "x", "NBDSERVER_PASSWORD_FILE": str(secret_file)}
    with pytest.raises(CommandFailed, match="NBDSERVER_PASSWORD and NBDSERVER_PASSWORD_FILE") as caught:
        passwords.current(environ)
    assert caught.value.status == 2


@pytest.mark.parametrize(
    "environ",
    [
        {"NBDSERVER_PASSWORD_FILE": "/dev/null"},
        {"NBDSERVER_PASSWORD_FILE": "/nonexistent"},
        {"NBDSERVER_PASSWORD_COMMAND": "true"},
        {"NBDSERVER_PASSWORD_COMMAND": "false"},
        {"NBDSERVER_PASSWORD_COMMAND": "/nonexistent"},
        {"NBDSERVER_PASSWORD_COMMAND": "'"},
    ],
)
def test_a_source_without_a_password(environ: dict[str, str]) -> None:
    with pytest.raises(CommandFailed):
        passwords.current(environ)


def test_a_file_that_everybody_can_read_is_warned_of(secret_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    secret_file.chmod(0o640)
    passwords.current({"NBDSERVER_PASSWORD_FILE": str(secret_file)})
    assert capfd.readouterr().err == ""
    secret_file.chmod(0o604)
    passwords.current({"NBDSERVER_PASSWORD_FILE": str(secret_file)})
    assert str(secret_file) in capfd.readouterr().err


def test_a_key_that_others_know_is_warned_of_too(secret_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    passwords.warn_of_readers(secret_file, "the key")
    assert capfd.readouterr().err == ""
    secret_file.chmod(0o606)
    passwords.warn_of_readers(secret_file, "the key")
    said = capfd.readouterr().err.splitlines()
    assert [line.split(" in /")[0] for line in said] == [
        "nbdserver: warning: everybody can read the key",
        "nbdserver: warning: everybody can replace the key",
    ]
    if os.geteuid() == 0:
        secret_file.chmod(0o600)
        os.chown(secret_file, 33, -1)
        passwords.warn_of_readers(secret_file, "the key")
        assert "belongs to user 33, who knows the key" in capfd.readouterr().err


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(CommandFailed, match="NBDSERVER_PASSWORD_COMMAND"):
            passwords.current({})


def test_that_of_a_second_store(secret_file: Path) -> None:
    environ = {"NBDSERVER_PASSWORD": "first", "NBDSERVER_TO_PASSWORD_FILE": ""}
    assert passwords.of_second_store(environ) is None, "then it is the same"
    environ["NBDSERVER_TO_PASSWORD_FILE"] = str(secret_file)
    assert passwords.of_second_store(environ) == passwords.Password(Secret(b"from a file"))
    environ["NBDSERVER_TO_PASSWORD"] = "x"
    with pytest.raises(CommandFailed, match="given twice"):
        passwords.of_second_store(environ)
