"""Every kind of error has its exit status."""

import inspect
import json

import click
import pytest

from nbdserver.cli.shared.exit_status import STATUS_OF_KIND, CommandFailed, is_expected, report, status_of
from storage import errors
from storage.errors import AlreadyExists, Conflict, Corrupt, Fenced, OutOfSpace, StorageError
from tests.storage.test_threads import run


def kinds() -> set[str]:
    return {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, StorageError)}


def test_the_table_names_only_kinds_that_exist() -> None:
    assert set(STATUS_OF_KIND) <= kinds()
    assert kinds() - set(STATUS_OF_KIND) == {"StorageError", "Closed"}


def test_the_status_of_each_kind_is_what_the_manual_says() -> None:
    """Scripts rest on them."""
    assert STATUS_OF_KIND == {
        "Unfinished": 3,
        "NotFound": 10,
        "NoBucket": 10,
        "Fenced": 11,
        "WrongPassword": 12,
        "AccessDenied": 13,
        "Unsupported": 14,
        "AlreadyExists": 15,
        "Conflict": 16,
        "Corrupt": 20,
        "KeyChanged": 16,
        "RolledBack": 20,
        "Unavailable": 21,
        "Unreadable": 21,
        "Untrusted": 21,
        "OutOfSpace": 22,
        "Invalid": 2,
    }


def test_statuses() -> None:
    assert status_of(Fenced("x")) == 11
    assert status_of(Corrupt("x", "y")) == 20
    assert (status_of(AlreadyExists("x")), status_of(Conflict("x")), status_of(OutOfSpace("x"))) == (15, 16, 22)
    assert status_of(CommandFailed("x")) == 1
    assert status_of(CommandFailed("x", status=2)) == 2
    assert status_of(click.UsageError("x")) == 2
    assert status_of(OSError("x")) == 1
    assert status_of(KeyboardInterrupt()) == 130
    assert status_of(ZeroDivisionError()) == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Fenced("another server holds it"), "nbdserver: another server holds it\n"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "nbdserver: /x: No such file or directory\n"),
        (CommandFailed("no"), "nbdserver: no\n"),
        (KeyboardInterrupt(), "nbdserver: interrupted\n"),
    ],
)
def test_one_sentence(error: BaseException, sentence: str, capfd: pytest.CaptureFixture[str]) -> None:
    report(error, as_json=False)
    assert capfd.readouterr().err == sentence


def test_a_mistake_of_ours_is_said_as_one(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert report(KeyError("k"), as_json=False) == 1
    said = capfd.readouterr().err
    assert "a mistake in this program: KeyError" in said
    assert "Traceback" not in said
    monkeypatch.setenv("NBDSERVER_DEBUG", "1")
    report(KeyError("k"), as_json=False)
    assert "KeyError: 'k'" in capfd.readouterr().err


def test_programs_get_json(capfd: pytest.CaptureFixture[str]) -> None:
    report(Fenced("held"), as_json=True)
    assert json.loads(capfd.readouterr().err.splitlines()[-1]) == {
        "message_type": "exit_error",
        "code": 11,
        "message": "held",
    }


def test_a_command_that_gets_no_thread_says_so() -> None:
    """Whoever starts it: the command itself, or the event loop."""
    said = run("""
        from nbdserver.cli.shared.exit_status import is_expected, report, sentence_of

        no_more_threads()
        for start in (threading.Thread(target=work).start, lambda: asyncio.run(asyncio.to_thread(work, 1))):
            try:
                start()
            except RuntimeError as error:
                print(report(error, as_json=False), is_expected(error), "TasksMax" in sentence_of(error))
    """)
    assert said == 2 * "16 True True\n"
    assert not is_expected(RuntimeError("dictionary changed size during iteration"))
