"""Metrics of the real program: Prometheus' own tool accepts them, and they say what a client did."""

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.support.processes import until, unused_port
from tests.support.program import EXIT_CONFLICT, Server
from tests.support.requirements import find, require
from tests.support.stores import Away, StoreUnderTest

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")


def samples(text: str) -> dict[str, float]:
    """Value by name with labels."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#") and (sample := SAMPLE.fullmatch(line)):
            found[sample[1] + (f"{{{sample[2]}}}" if sample[2] else "")] = float(sample[3])
    return found


def promtool() -> str:
    require("promtool")
    return str(find("promtool"))


def serve_with_metrics(store: StoreUnderTest, make_server: Callable[..., Server]) -> tuple[Server, str]:
    port = unused_port()
    budget = ("--request-budget", "5M/month")
    arguments = ("--metrics", str(port), "--prices", "aws-s3-standard,fetched=0/GiB", *budget)
    server = make_server(store, create={"disk": "64MiB", "other": "1MiB"}, arguments=arguments)
    server.start()
    return server, f"http://127.0.0.1:{port}/metrics"


@pytest.fixture
def served(store: StoreUnderTest, make_server: Callable[..., Server]) -> tuple[Server, str]:
    return serve_with_metrics(store, make_server)


def test_metrics_say_what_a_client_did(served: tuple[Server, str]) -> None:
    server, url = served
    with server.connect("disk") as client:
        for number in range(20):
            client.write(number * 4096, bytes([number]) * 4096)
        client.flush()
        for number in range(30):
            client.read(number % 20 * 4096, 4096)
        client.trim(0, 4096)
        with urlopen(url) as answer:
            text = answer.read().decode()
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        checked = subprocess.run([promtool(), "check", "metrics"], input=text, text=True, capture_output=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        seen = samples(text)
        assert seen['nbdserver_device_clients{device="disk"}'] == 1
    for command, count in (("read", 30), ("write", 20), ("flush", 1), ("trim", 1)):
        assert seen[f'nbdserver_device_requests_total{{command="{command}",device="disk"}}'] == count
    assert seen['nbdserver_device_sent_bytes_total{device="disk"}'] == 30 * 4096
    assert seen['nbdserver_device_written_bytes_total{device="disk"}'] >= 20 * 4096
    assert seen['nbdserver_device_logical_bytes{device="other"}'] == 1 << 20
    assert seen['nbdserver_wait_seconds_count{request="flush"}'] == 1
    assert seen["nbdserver_devices"] == 2
    told: Any = server.host.json("stats", "--store", server.location)
    stats = {one["name"]: one["value"] for one in told["stats"]}
    assert seen['nbdserver_store_requests_total{verb="create"}'] <= stats["requests"]["create"]
    asked = {verb: seen[f'nbdserver_store_requests_total{{verb="{verb}"}}'] for verb in stats["requests"]}
    writes, reads = asked["create"] + asked["put"] + asked["list"], asked["get"] + asked["head"]
    assert seen["nbdserver_requests_cost_total"] == pytest.approx((5 * writes + 0.4 * reads) / 1e6, rel=1e-6)
    kept = seen["nbdserver_stored_bytes"] + seen["nbdserver_wal_bytes"]
    assert seen["nbdserver_stored_month_cost"] == pytest.approx(0.023 * kept / (1 << 30), rel=1e-6)
    assert seen["nbdserver_month_cost"] > seen["nbdserver_stored_month_cost"]
    assert seen['nbdserver_cost_info{currency="USD"}'] == 1
    assert stats["request_budget"] == seen["nbdserver_request_budget"] == 5e6
    assert 0 < seen["nbdserver_month_requests"] <= seen["nbdserver_month_requests_projected"] < 5e6
    assert seen["nbdserver_background_slowdown_ratio"] == 1
    facts = server.host.run("status", "--store", server.location).stdout
    assert " of 5,000,000, " in facts
    assert stats["requests_cost"] >= seen["nbdserver_requests_cost_total"]
    for problem in (
        "store_failing",
        "failing_requests",
        "unreadable_objects",
        "damaged_ssts",
        "lost_objects",
        "uncopied_objects",
        "untaken_snapshots",
        "unkept_on_host",
        "undeletable_objects",
    ):
        assert seen[f"nbdserver_{problem}"] == 0
    with urlopen(url) as answer:
        later = samples(answer.read().decode())
    assert later['nbdserver_device_clients{device="disk"}'] == 0
    assert later['nbdserver_device_requests_total{command="read",device="disk"}'] == 30, "it left, and still counts"


def test_what_rules_and_dashboard_ask_for_is_there(served: tuple[Server, str]) -> None:
    with served[0].connect("disk") as client, urlopen(served[1]) as answer:
        client.read(0, 4096)
        there = {name.split("{")[0] for name in samples(answer.read().decode())}
    wanted = set(re.findall(r"nbdserver_\w+", (MONITORING / "alerts.yml").read_text()))
    for panel in json.loads((MONITORING / "grafana.json").read_text())["panels"]:
        for target in panel["targets"]:
            wanted |= set(re.findall(r"nbdserver_\w+", target["expr"]))
    # Of those with a device there are none before a client was there.
    of_clients = {"nbdserver_device_requests_total", "nbdserver_device_sent_bytes_total"}
    # What TLS and a second server bring is looked at where there are such (see test_alerts).
    of_others = {"nbdserver_certificate_valid_seconds", "nbdserver_sign_age_seconds"}
    of_standby = {"nbdserver_standby_blind", "nbdserver_standby_failing"}
    assert wanted - there <= of_clients | of_others | of_standby


def test_a_store_that_is_away_is_seen_till_the_end(
    local_store: StoreUnderTest, make_server: Callable[..., Server]
) -> None:
    """Also while the server is stopping, when nothing but its status is answered otherwise."""
    server, url = serve_with_metrics(local_store, make_server)

    def now() -> dict[str, float]:
        with urlopen(url, timeout=30) as answer:
            return samples(answer.read().decode())

    store = Away(local_store.location)
    with server.connect("disk") as client:
        client.write(0, b"x" * 4096)
        store.leave()
        client.write(0, b"y" * 4096)
        until(lambda: now()["nbdserver_store_failing"] == 1, seconds=60, what="the failure in the metrics")
    server.send(signal.SIGTERM)
    for what in ("closing", "store_failing"):
        until(lambda: now()[f"nbdserver_{what}"] == 1, seconds=60, what=f"{what} in the metrics")  # noqa: B023
    store.come_back()
    assert server.wait(120) == 0


def test_each_alert_fires_on_its_fault() -> None:
    for arguments in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")):
        done = subprocess.run([promtool(), *arguments], cwd=MONITORING, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_port_in_use_is_one_sentence(store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    port = unused_port()
    first = make_server(store, create={"disk": "1MiB"}, arguments=("--metrics", f"127.0.0.1:{port}"))
    first.start()
    arguments = ("serve", f"{first.location}-2", "--port", "0", "--metrics", str(port))
    refused = first.host.run(*arguments, status=EXIT_CONFLICT)
    assert refused.stderr.count("\n") == 1
    assert f"port {port} on 127.0.0.1 is in use" in refused.stderr
    assert "such as 9100" in first.host.run("serve", f"{first.location}-2", "--metrics", "here", status=2).stderr
