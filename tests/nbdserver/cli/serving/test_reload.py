"""SIGHUP: the configuration file is read again by a real server, and counts as far as it can."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.nbd import NbdError
from tests.support.processes import until
from tests.support.program import Server
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration


class Reloaded:
    """A server and its file."""

    def __init__(self, server: Server, path: Path) -> None:
        self.server = server
        self._path = path

    def write(self, text: str) -> None:
        """What the file says from now on."""
        self._path.write_text(f"[serve]\n{text}")

    def reload(self, event: str) -> dict[str, Any]:
        """What it said of it, which must be called so."""
        known = self._events()
        self.server.send(signal.SIGHUP)
        until(lambda: len(self._events()) > len(known), seconds=30, what="a word about the configuration")
        said = self._events()[len(known)]
        assert said["event"] == event, said
        return said

    def _events(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.server.said().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"].startswith("configuration_")]


@pytest.fixture
def reloaded(local_store: StoreUnderTest, make_server: Callable[..., Server], work: Path) -> Reloaded:
    path = work / "nbdserver.toml"
    path.write_text('[serve]\nexport = ["one"]\n')
    path.chmod(0o600)
    arguments = ["--log-format", "json", "--max-connections", "50"]
    server = make_server(local_store, create={"one": "1M", "two": "1M"}, arguments=arguments)
    server.host.store_environment = {"NBDSERVER_CONFIG": str(path)}
    server.start()
    return Reloaded(server, path)


def test_what_can_change_does(reloaded: Reloaded) -> None:
    server = reloaded.server
    with server.connect("one") as attached, pytest.raises(NbdError):
        server.connect("two")
    with server.connect("one") as attached:
        reloaded.write('export = ["two"]\nexclusive = true\n')
        assert reloaded.reload("configuration_reloaded")["options"] == ["--export", "--exclusive"]
        with pytest.raises(NbdError):
            server.connect("one")
        assert attached.read(0, 4096) == bytes(4096)
        with server.connect("two"), pytest.raises(NbdError):
            server.connect("two")
    reloaded.write("")
    assert reloaded.reload("configuration_reloaded")["options"] == ["--export", "--exclusive"]
    with server.connect("one"), server.connect("two"), server.connect("two"):
        pass


def test_a_schedule_begins_and_ends(reloaded: Reloaded) -> None:
    def snapshots() -> list[str]:
        listed = reloaded.server.host.json("--store", reloaded.server.location, "snapshot", "list")
        assert isinstance(listed, list)
        return [each["name"] for each in listed]

    reloaded.write('keep = "hourly=2"\n')
    reloaded.reload("configuration_reloaded")
    until(lambda: len(snapshots()) == 2, seconds=30, what="a snapshot of each disk")
    reloaded.write("")
    reloaded.reload("configuration_reloaded")
    assert len(snapshots()) == 2, "they went with the schedule"


def test_limits_a_budget_and_prices_count_from_now_on(reloaded: Reloaded) -> None:
    server = reloaded.server

    def status() -> Any:
        found = server.host.json("--store", server.location, "status")
        assert isinstance(found, dict)
        return found["store"]

    assert (status()["budget"], status()["costs"]) == (None, None)
    with server.connect("one"), server.connect("one"):
        pass
    reloaded.write('request-budget = "7M/month"\nprices = "aws-s3-standard"\nmax-connections-per-address = 1\n')
    reloaded.reload("configuration_reloaded")
    assert status()["budget"]["request_budget"] == 7_000_000
    assert status()["costs"]["currency"] == "USD"
    with server.connect("one"), pytest.raises((EOFError, OSError)):  # it is closed
        server.connect("one")


def test_what_cannot_change_is_said_each_time(reloaded: Reloaded) -> None:
    reloaded.write('export = ["one"]\ncache-size = "64MiB"\nport = 1\nmax-connections = 1\n')
    for _ in range(2):
        # The command line weighs more than the file.
        assert reloaded.reload("configuration_needs_a_restart")["options"] == ["--cache-size"]
    with reloaded.server.connect("one"), reloaded.server.connect("one"):
        pass


def test_what_is_written_as_a_number_is_read_again_too(reloaded: Reloaded) -> None:
    """Seen: a traceback, and no word to the service manager that it was over."""
    reloaded.write('export = ["one"]\nmetrics = 9100\ndashboard = 10810\ncache-size = 1048576.0\n')
    options = reloaded.reload("configuration_needs_a_restart")["options"]
    assert sorted(options) == ["--cache-size", "--dashboard", "--metrics"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exclusive = 1\n", "line 2: serve.exclusive: true or false is expected"),
        ('exclusive = true\nexport = ["three"]\n', "three"),
        ('exclusive = true\ndefault-export = "two"\nexport = ["one"]\n', "name it with --export too"),
        ("[", "at end of document"),
    ],
)
def test_a_file_that_is_not_right_changes_nothing(reloaded: Reloaded, text: str, said: str) -> None:
    reloaded.write(text)
    assert said in reloaded.reload("configuration_not_reloaded")["error"]
    with reloaded.server.connect("one"), reloaded.server.connect("one"), pytest.raises(NbdError):
        reloaded.server.connect("two")


def test_a_file_that_is_gone_changes_nothing(reloaded: Reloaded) -> None:
    os.unlink(reloaded.server.host.store_environment["NBDSERVER_CONFIG"])
    assert "cannot be read" in reloaded.reload("configuration_not_reloaded")["error"]
    with reloaded.server.connect("one"), pytest.raises(NbdError):
        reloaded.server.connect("two")
