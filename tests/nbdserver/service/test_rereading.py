"""Rereading at SIGHUP: one step that fails does not keep the others from being taken, nor the end from coming."""

import pytest

from nbdserver.service.rereading import take_all
from storage.errors import Invalid


def test_what_fails_is_a_sentence_and_the_rest_is_done(caplog: pytest.LogCaptureFixture) -> None:
    taken = []

    def wrong() -> None:
        raise Invalid("the file is not right")

    def mistaken() -> None:
        raise AttributeError("'int' object has no attribute 'rpartition'")

    take_all((wrong, mistaken, lambda: taken.append("the last one")))
    assert taken == ["the last one"]
    assert [record.message for record in caplog.records] == ["configuration_not_reloaded"] * 2
    assert [record.__dict__["error"] for record in caplog.records] == [
        "the file is not right",
        "a mistake in this program: AttributeError: 'int' object has no attribute 'rpartition'",
    ]
    assert not any(record.exc_info for record in caplog.records), "a sentence, and no traceback"
