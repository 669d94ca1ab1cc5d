"""What the program logs, in its own words: one logger, events with a name that never varies, and facts in fields.

A fact in the text of an event is lost to whoever reads the log as JSON.
"""

import ast
import re
from collections.abc import Iterator

from tests.structure.sources import FILES, name_of, nodes

METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
LOGGERS = {"logger", "_log"}


def faults(source: str) -> Iterator[str]:
    """What is wrong with the log calls of a module."""
    for call in nodes(source):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        owner = call.func.value
        if call.func.attr == "getLogger" and call.args and [ast.unparse(each) for each in call.args] == ["__name__"]:
            yield f"line {call.lineno}: a logger of its own"
        if isinstance(owner, ast.Name) and owner.id in LOGGERS and call.func.attr in METHODS:
            event, *rest = call.args[1:] if call.func.attr == "log" else call.args
            fixed = isinstance(event, ast.Constant) and re.fullmatch(r"[a-z]+(_[a-z]+)*", str(event.value))
            if rest or not (fixed or isinstance(event, ast.Name)):
                yield f"line {call.lineno}: a fact in the text of an event, instead of in extra="


def test_facts_are_fields() -> None:
    found = {name_of(path): list(faults(path.read_text())) for path in FILES}
    assert len(found) > 200
    assert {place: wrong for place, wrong in found.items() if wrong} == {}


def test_the_test() -> None:
    bad = (
        'logger.info("client_left peer=%s", peer)',
        'logger.log(level, "%s: %s", event, text)',
        'logger.error(f"failed {x}")',
        "logging.getLogger(__name__)",
        'logger.exception("a write that waited ended unexpectedly")',
    )
    assert [len(list(faults(line))) for line in bad] == [1] * len(bad)
    good = 'logger.log(level, event, extra=facts)\n_log.error("failed", exc_info=error)\nlogging.getLogger("nbdserver")'
    assert list(faults(good)) == []
