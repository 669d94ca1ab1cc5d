"""What clients are refused is in the log, and cannot fill it."""

import asyncio
import logging

import pytest

from nbdserver.server.peer import Peer
from nbdserver.server.refusal_log import LENGTH_MAX, LINES, LINES_PER_ADDRESS, PERIOD_SECONDS, RefusalLog
from tests.nbdserver.inside import lines_remembered
from tests.support.nbd import Client, NbdError
from tests.support.running import Running


def peer(address: str) -> Peer:
    return Peer(f"{address}:1", address, None)


def facts(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    """Of each record its event, and what is said of it."""
    return [
        {"event": record.message, **{key: vars(record).get(key, "") for key in ("peer", "reason")}}
        for record in caplog.records
    ]


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def test_one_address_gets_so_many_lines_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog()
    for _ in range(1000):
        log.note(peer("10.0.0.1"), 5.0, "client_refused", "no")
    log.note(peer("10.0.0.2"), 5.0, "client_refused", "no")
    assert len(caplog.records) == LINES_PER_ADDRESS + 1
    assert "no more of 10.0.0.1 is logged" in facts(caplog)[-2]["reason"]
    assert facts(caplog)[-1] == {"event": "client_refused", "peer": "10.0.0.2:1", "reason": "no"}
    log.note(peer("10.0.0.1"), 5.0 + PERIOD_SECONDS, "client_refused", "again")
    assert facts(caplog)[-1]["reason"] == "again"


def test_many_addresses_get_so_many_together(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog()
    for number in range(10_000):
        log.note(peer(f"10.0.{number >> 8}.{number & 255}"), 0.0, "client_refused", "no")
    assert len(caplog.records) == LINES
    assert "no more is logged" in facts(caplog)[-1]["reason"]
    assert lines_remembered(log) <= LINES + 1, "what is remembered is bounded too"


def test_what_a_client_sent_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    RefusalLog().note(peer("a"), 0.0, "client_refused", "x\n\x1b[2J" + "y" * 1000)
    (said,) = facts(caplog)
    assert said["reason"].isprintable()
    assert len(said["reason"]) < LENGTH_MAX + 100


async def test_a_name_that_is_not_served_is_logged(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(NbdError):
        await asyncio.to_thread(Client, running.path, "another", timeout=60)
    (said,) = [each for each in facts(caplog) if each["event"] == "client_refused"]
    assert "no export named 'another'" in said["reason"]
