"""`nbdserver top` as programs read it: JSON that any of them takes, also where there is nothing to say."""

import json

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from nbdserver.admin import client
from nbdserver.cli.serving.cmd_top import top
from nbdserver.service import condition


class AtRest:
    """A server whose clients do nothing, but for one flush that took longer than the last bucket says."""

    def __init__(self, *, slow: bool) -> None:
        self._slow = slow
        self._registry = CollectorRegistry()
        self._uptime = Gauge("nbdserver_uptime_seconds", "", registry=self._registry)
        self._waits = Histogram("nbdserver_wait_seconds", "", ["request"], buckets=(0.1, 1.0), registry=self._registry)
        Counter("nbdserver_store_requests", "", ["verb"], registry=self._registry).labels("create").inc()

    def metrics(self) -> str:
        self._uptime.inc(2.0)
        if self._slow:
            self._waits.labels("flush").observe(100.0)
        return generate_latest(self._registry).decode()

    def status(self) -> dict[str, object]:
        return {"store": {}}


def refused(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("slow", [False, True])
def test_what_is_no_number_is_null(monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    server = AtRest(slow=slow)
    monkeypatch.setattr(client, "find_server", lambda *_: server)
    monkeypatch.setattr(condition, "problems", lambda _: [])
    done = CliRunner().invoke(top, ["--json", "--seconds", "0.2", "--count", "2", "/nowhere"], catch_exceptions=False)
    looks = [json.loads(line, parse_constant=refused) for line in done.stdout.splitlines()]
    assert len(looks) == 2
    for look in looks:
        assert look["wait"]["flush"] == {"rate": 0.5 if slow else 0.0, "median": None, "p99": None}
        assert look["wait"]["read"] == {"rate": 0.0, "median": None, "p99": None}
