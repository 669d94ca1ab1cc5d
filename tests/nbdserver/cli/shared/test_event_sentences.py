"""Whatever happens in a command that has no log is said to whoever runs it: a sentence for each event, from the first
moment on.
"""

import ast
import functools
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbdserver.cli.shared.event_sentences import SENTENCES, EventSentence
from tests.support.program import COMMAND, Host
from tests.support.stores import StoreUnderTest

ROOT = Path(__file__).resolve().parents[4]
GRAVE = {"warning", "error", "exception", "critical"}
OF_A_VARIABLE = {
    "storage/fs/request_governor.py": {"request_budget_used_up", "request_budget_will_not_do"},
    "storage/objects/health.py": set[str](),
}
"""Where the name of an event is no text in the call: health.py has a function of its own, which is looked at too."""


def events_of(path: Path) -> Iterator[str | None]:
    """Each event that a file logs as a warning or worse; None: its name is not in the call."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        on = node.func.value
        logs = isinstance(on, ast.Name) and on.id in ("_log", "logger") and node.func.attr in GRAVE
        if logs or node.func.attr == "_say":
            name = node.args[0]
            yield name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


@functools.cache
def storage_events() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in (ROOT / "storage").rglob("*.py"):
        where = str(path.relative_to(ROOT))
        for event in events_of(path):
            assert event is not None or where in OF_A_VARIABLE, f"{where} logs an event whose name this test cannot see"
            found |= dict.fromkeys([event] if event else OF_A_VARIABLE[where], path)
    return found


def test_each_event_of_a_store_has_a_sentence() -> None:
    assert set(storage_events()) | {"callback_crashed"} == set(SENTENCES)


@pytest.mark.parametrize("event", sorted(SENTENCES))
def test_a_sentence_says_what_and_what_to_do(event: str) -> None:
    sentence = SENTENCES[event]
    source = storage_events().get(event, ROOT / "nbdserver/service/logs.py").read_text()
    fields = re.findall(r"{(\w+)}", sentence)
    assert all(re.search(rf'"{field}":|\b{field}=|\*\*facts', source) for field in fields), "it is filled in"
    assert ": " in sentence or "; " in sentence, "behind what it is stands what to do"
    assert len(sentence.split()) > 6
    assert not sentence.endswith(".")
    record = logging.makeLogRecord(
        {"name": "nbdserver", "msg": event, "levelno": logging.WARNING} | dict.fromkeys(fields, 1)
    )
    line = EventSentence().format(record)
    assert line.startswith("nbdserver: ")
    assert event not in line
    assert "{" not in line


def test_what_has_no_sentence_says_all_that_is_known() -> None:
    record = logging.makeLogRecord({"name": "nbdserver", "msg": "never_seen", "object": "wal/1", "tried": 3})
    assert EventSentence().format(record) == "nbdserver: never seen (object: wal/1, tried: 3)"
    of_a_library = logging.makeLogRecord({"name": "urllib3", "msg": "it is %s", "args": ("late",)})
    assert EventSentence().format(of_a_library) == "nbdserver: urllib3: it is late"


def test_what_a_store_says_is_one_line() -> None:
    record = logging.makeLogRecord({"name": "nbdserver", "msg": "maintenance_failed", "error": "no\n\x1b[2Jroom"})
    assert "no\\n\\x1b[2Jroom" in EventSentence().format(record)


def test_a_script_is_told_of_errors_and_not_of_warnings() -> None:
    """As its standard error is no terminal."""
    program = (
        "import logging; from nbdserver.cli.shared.event_sentences import say_events; say_events(); "
        "log = logging.getLogger('nbdserver'); log.warning('spare_copy_written'); log.error('engine_failed')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == f"nbdserver: {SENTENCES['engine_failed']}\n"


@pytest.mark.integration
def test_what_happens_before_a_command_is_loaded_is_said(host: Host, local_store: StoreUnderTest) -> None:
    host.store_environment = {"NBDSERVER_STORE": local_store.location}
    host.prepare(local_store.location)
    host.run("serve", "--create", "disk=4MiB", "--run", "true")
    keys = next((Path(local_store.location.removeprefix("file://")) / "keys").iterdir())
    keys.unlink()
    said = f"nbdserver: keys/{keys.name} was read from its copy spare/{keys.name} (it is missing): nothing is lost; "
    for command in (["device", "list"], ["status"]):
        lines = host.run(*command).stderr.splitlines()
        assert lines, command
        assert [line for line in lines if not line.startswith(said)] == [], command


@pytest.mark.integration
def test_who_waits_at_a_terminal_is_told_of_warnings(host: Host) -> None:
    """Of a store that does not answer: the keys are asked for before all else."""
    host.store_environment = {
        "NBDSERVER_STORE": "s3://bucket/store",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }
    host.store_environment |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(host.folder)
        os.execve(sys.executable, [*COMMAND, "device", "list"], host.environment())
    shown = b""
    try:
        while b"does not do what it is asked" not in shown:
            shown += os.read(terminal, 4096)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
    whole, _, _ = shown.rpartition(b"\n")
    assert all(line.startswith(b"nbdserver: ") for line in whole.splitlines())
