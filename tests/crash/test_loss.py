"""What clients get that were attached when something was lost that they were answered: kill -9 of the real program."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from nbdserver.kernel_client.export_address import ExportAddress
from nbdserver.kernel_client.lineage import Lineage, ask
from nbdserver.protocol.agreement import INCARNATION
from tests.crash.reconnecting import SLOTS, SPACING, ReconnectingClient, Refused, connect
from tests.crash.test_journal import TRIES, kill_behind_answers, missing
from tests.support.commands import SYSTEM_PYTHON, run
from tests.support.nbd import NbdError
from tests.support.program import Server
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

REFUSED = "disk was attached from here when its server was lost"


@pytest.fixture
def server(local_store: StoreUnderTest, make_server: Callable[..., Server], memory: Path) -> Server:
    made = make_server(local_store, create={"disk": str(SLOTS * SPACING)}, after_loss="refuse")
    made.arguments = ["--journal", str(memory)]
    return made


def told(server: Server, since: str | None = None) -> Lineage:
    """What a server says of an incarnation."""
    return asyncio.run(ask(ExportAddress("disk", unix=server.socket), since))


def incarnation(server: Server) -> str:
    found = told(server).incarnation
    assert found is not None
    return found


def accept(server: Server, export: str = "disk") -> str:
    return server.host.run("client", "accept", export, "--store", server.location).stdout


def test_without_a_journal_a_client_is_not_fooled(server: Server) -> None:
    """The loss is there, whoever was attached is refused until somebody has accepted, and others are told."""
    server.arguments = ["--journal", "off"]
    server.start()
    for life in range(1, TRIES):
        before = incarnation(server)
        kill_behind_answers(server, life)
        server.start()
        with pytest.raises(NbdError, match=REFUSED):
            server.connect()
        assert not told(server, before).unbroken
        assert "may_have_lost" in server.said()
        status = server.host.run("status", "--json", "--store", server.location, status=3)
        assert json.loads(status.stdout)["refused"] == [{"export": "disk", "client": "this host"}]
        assert accept(server) == "disk: this host\n"
        assert accept(server) == "disk: nobody was refused\n"
        with server.connect() as client:
            if missing(client, life):
                return
    pytest.fail("nothing was lost: this showed nothing")


def test_with_a_journal_it_goes_on(server: Server) -> None:
    server.start()
    first = incarnation(server)
    kill_behind_answers(server, 1)
    server.start()
    assert told(server, first) == Lineage(incarnation(server), unbroken=True)
    with server.connect() as client:
        assert missing(client, 1) == []
    assert server.stop() == 0
    server.start()
    assert told(server, first).unbroken
    server.connect().disconnect()
    server.host.run("status", "--store", server.location)


def test_a_refusal_outlives_further_starts(server: Server) -> None:
    server.arguments = ["--journal", "off"]
    server.start()
    kill_behind_answers(server, 1)
    server.start()
    server.kill()
    server.start()
    server.stop()
    server.start()
    with pytest.raises(NbdError, match=REFUSED):
        server.connect()
    accept(server)
    server.stop()
    server.start()
    server.connect().disconnect()


def test_who_had_left_is_served(server: Server) -> None:
    server.arguments = ["--journal", "off"]
    server.start()
    with server.connect() as client:
        client.write(0, b"x" * 4096)
        client.flush()
        client.disconnect()
    while b'"attached":[]' not in next((server.host.folder / "state").rglob("attached-*.json")).read_bytes():
        assert server.running()
    server.kill()
    server.start()
    server.connect().disconnect()


def test_serve_says_otherwise(server: Server) -> None:
    server.arguments, server.after_loss = ["--journal", "off"], "serve"
    server.start()
    kill_behind_answers(server, 1)
    server.start()
    server.connect().disconnect()
    assert "may_have_lost" in server.said()


def test_a_journal_that_is_lost_is_a_loss(server: Server, memory: Path) -> None:
    server.start()
    before = incarnation(server)
    kill_behind_answers(server, 1)
    for path in memory.rglob("head"):
        path.unlink()
    server.start()
    assert not told(server, before).unbroken
    with pytest.raises(NbdError, match=REFUSED):
        server.connect()


@pytest.mark.slow
def test_a_client_that_attaches_again_is_stopped(server: Server) -> None:
    """The one that reads old data where nobody refuses it (see test_journal)."""
    server.arguments = ["--journal", "off"]
    server.start()
    client = ReconnectingClient(partial(connect, server), seed=1)
    client.start()
    while client.answered < 100 and client.failure is None:
        assert server.running()
    server.kill()
    server.start()
    with pytest.raises(Refused, match=REFUSED):
        client.stop()


def test_the_context_can_be_selected(server: Server) -> None:
    """By a client of others: an extent without a flag, while nothing is lost."""
    require("nbdsh")
    server.start()
    name = INCARNATION + incarnation(server)
    said = run(SYSTEM_PYTHON, "-m", "nbd", "-c", SELECT.format(name, str(server.socket)))
    assert json.loads(said) == {
        "can": [True, True, False],
        "seen": {name: [65536, 0], "base:allocation": [65536, 3]},
    }


SELECT = """
import json
can, seen = [], {{}}
names = [{0!r}, "base:allocation", "x-nbdserver:incarnation:0000000000000000"]
for name in names:
    h.add_meta_context(name)
h.set_export_name("disk")
h.connect_unix({1!r})
for name in names:
    can.append(bool(h.can_meta_context(name)))
def note(context, offset, extents, error, seen=seen):
    seen[context] = extents
    return 0
h.block_status(65536, 0, note)
print(json.dumps(dict(can=can, seen=seen)))
"""
