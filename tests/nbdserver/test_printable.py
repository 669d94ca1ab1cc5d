"""Text from elsewhere on a terminal or in a log: it moves no cursor, turns no direction, and ends no line."""

import io
import logging
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbdserver.cli.shared import output
from nbdserver.cli.shared.client_words import sentence
from nbdserver.cli.shared.exit_status import report
from nbdserver.printable import printable, printable_lines, shell_word
from nbdserver.service import logs
from nbdserver.service.announce import Tcp, Unix, announce
from storage.errors import Unavailable

HOSTILE = "a\x1b[31mb\x9b2J\r\n\t\x07\x00\u202edrow\u2066\u2028\u200f\udc80\x7f\\x1b"

texts = st.one_of(st.text(), st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Ll"])))
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=40)


def harmful(text: str, *, allowed: str = "") -> set[str]:
    """What a terminal would act on."""
    return {each for each in text if unicodedata.category(each)[0] == "C" or each in "\u2028\u2029"} - set(allowed)


@given(texts)
@example(HOSTILE)
@pytest.mark.thorough
def test_nothing_harmful_is_left_and_nothing_is_hidden(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()
    if not text.isprintable():
        back = shown.encode("latin-1", "backslashreplace").decode("unicode_escape")
        assert back.encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")
    assert harmful(printable_lines(text)) <= {"\n"}


@given(names)
@example(HOSTILE.replace("\0", "").replace("\udc80", "") + "'")
def test_a_word_for_the_shell_is_shown_and_means_the_same(name: str) -> None:
    word = shell_word(name)
    assert word.isprintable()
    if not name.isprintable():
        done = subprocess.run(["bash", "-c", f"printf %s {word}"], stdout=subprocess.PIPE, check=True)
        assert done.stdout == name.encode()


@given(names)
@example(HOSTILE.replace("\0", "").replace("\udc80", ""))
def test_what_is_announced(name: str) -> None:
    for line in announce([Tcp("127.0.0.1", 1), Unix(Path(f"/run/{name}"))], [name]):
        assert (line.uri + line.attach_line).isprintable()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_log_has_one_line_for_one_record(form: logs.Format, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages, facts, and tracebacks, whose lines are our own."""
    root = logging.getLogger()
    before = root.handlers, root.level
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    try:
        logs.set_up(form, logging.INFO, [logs.standard_error(logging.INFO)])
        logging.getLogger("test").info("client %s", HOSTILE, extra={"export": HOSTILE, "names": (HOSTILE,), "count": 5})
        assert written.getvalue().count("\n") == 1
        assert "5" in written.getvalue()
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logging.getLogger("test").exception("failed")
    finally:
        root.handlers, root.level = before
    said = written.getvalue()
    assert "ValueError" in said
    assert harmful(said, allowed="\n") == set()


@given(texts)
@example(HOSTILE)
def test_what_commands_print(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        out, err = io.StringIO(), io.StringIO()
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        who = {"id": 1, "peer": "unix", "certificate": [text], "export": text, "since": 0.0, "tls": None, "requests": 0}
        flags = dict.fromkeys(("structured", "extended", "read_only", "exclusive"), False)
        output.table(("NAME",), [(text, text)])
        output.facts([("name", text), ("client", sentence({**who, **flags, "bytes_received": 0, "bytes_sent": 0}))])
        output.line(text)
        output.document({"name": text})
        for as_json in (False, True):
            report(Unavailable(text), as_json=as_json)
    for said in (out.getvalue(), err.getvalue()):
        assert harmful(said, allowed="\n\t") == set()
    assert out.getvalue().count("\n") == 5
    assert err.getvalue().count("\n") == 3
