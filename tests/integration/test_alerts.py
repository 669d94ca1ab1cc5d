"""Rules of docs/monitoring/alerts.yml on what real servers answer: they fire on what is wrong, and on nothing else."""

import re
import signal
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.integration.test_metrics import MONITORING, promtool, samples
from tests.integration.test_standby import SECONDS, STANDBY, every_answer, no_answer, serves, stands_by
from tests.support.certificates import Authority, write_folder
from tests.support.minio import RunningMinio
from tests.support.processes import until, unused_port
from tests.support.program import Host, Server
from tests.support.stores import StoreUnderTest, minio_store
from tests.support.wayward import WaywardProxy

DAY = 86400.0
CERTIFICATE = "nbdserver_certificate_valid_seconds"


def answered(port: int) -> dict[str, float]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return samples(answer.read().decode())


def fires(alert: str, seen: dict[str, float], work: Path) -> bool:
    """Whether an alert fires once a server has answered so for an hour."""
    names = [name for name in seen if "{" not in name]
    series = [f"      - {{series: {name}, values: '{seen[name]}x240'}}" for name in names]
    test = f"""
rule_files: [{MONITORING / "alerts.yml"}]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
{chr(10).join(series)}
    alert_rule_test:
      - {{eval_time: 1h, alertname: {alert}, exp_alerts: []}}
"""
    path = work / "alerts.test.yml"
    path.write_text(test)
    done = subprocess.run([promtool(), "test", "rules", path], text=True, capture_output=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0 or re.search(rf'alertname="{alert}"', said), said
    return done.returncode != 0


def test_a_certificate_that_expires(
    local_store: StoreUnderTest, make_server: Callable[..., Server], work: Path
) -> None:
    """In the words of the dashboard: less than seven days are left."""
    pki, port = work / "pki", unused_port()
    write_folder(pki, Authority(days=6.9))
    arguments = ("--tls", "on", "--tls-certificates", str(pki), "--metrics", str(port))
    server = make_server(local_store, create={"disk": "1MiB"}, arguments=arguments)
    server.start()
    seen = answered(port)
    assert seen[CERTIFICATE] == pytest.approx(6.9 * DAY, abs=600)
    assert fires("NbdserverCertificateExpires", seen, work)
    write_folder(pki, Authority(days=30))
    server.send(signal.SIGHUP)
    until(lambda: answered(port)[CERTIFICATE] > 19 * DAY, seconds=SECONDS, what="the new certificate")
    assert not fires("NbdserverCertificateExpires", answered(port), work)


def test_a_standby_whose_looks_fail_beside_a_writer_that_lives(
    minio: RunningMinio, make_server: Callable[..., Server], work: Path
) -> None:
    ports, prefix, servers = (unused_port(), unused_port()), f"test-{uuid.uuid4().hex[:12]}", []
    with WaywardProxy(minio.endpoint) as way:
        for name, endpoint, port in zip("ab", (minio.endpoint, way.endpoint), ports, strict=True):
            (work / name).mkdir()
            store = minio_store(minio, prefix, endpoint=endpoint)
            create = {"disk": "64MiB"} if name == "a" else None
            arguments = (*STANDBY, "--metrics", str(port))
            on = Host(work / name, store.environment)
            servers.append(make_server(store, on=on, create=create, arguments=arguments))
        first, second = servers
        first.start()
        stands_by(second)
        until(lambda: "nbdserver_standby_looked_seconds" in answered(ports[1]), seconds=SECONDS, what="a look")
        seen = answered(ports[1])
        assert (seen["nbdserver_standby"], seen["nbdserver_standby_failing"]) == (1, 0)
        until(lambda: answered(ports[1])["nbdserver_standby_blind"] == 0, seconds=SECONDS, what="a sign of life")
        assert not fires("NbdserverStandbyFailing", seen, work)
        assert answered(ports[0])["nbdserver_sign_age_seconds"] < SECONDS
        way.decide = no_answer
        until(lambda: answered(ports[1])["nbdserver_standby_failing"] == 1, seconds=SECONDS, what="the failing looks")
        assert fires("NbdserverStandbyFailing", answered(ports[1]), work)
        with first.connect() as client:
            client.write(0, b"x" * 4096)
            client.flush()
        way.decide = every_answer
        until(lambda: answered(ports[1])["nbdserver_standby_failing"] == 0, seconds=SECONDS, what="looks that go on")
        assert first.stop() == 0
        until(lambda: serves(second), seconds=SECONDS, what="the take-over")
        seen = answered(ports[1])
        assert "nbdserver_standby" not in seen, "the port is that of the server now"
        assert seen["nbdserver_devices"] == 1
        second.close()
