"""How to run a MinIO of one's own, ask for its counters, and count objects in it."""

import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from minio import Minio

from tests.support.processes import end, unused_port
from tests.support.requirements import find

USER, PASSWORD = "nbdserver-tests", "nbdserver-tests-password"
BUCKET = "disks"

COUNTER_CACHE_SECONDS = 11.0
"""MinIO serves its metrics from a cache that is up to 10 s old."""

_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? ([0-9.e+-]+)$")


class RunningMinio:
    """A MinIO on a loopback port with its data in `folder` and one bucket; its counters are open to all.

    `endpoint` is what clients are pointed to: `http://127.0.0.1:PORT`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = unused_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = find("minio")
        assert program is not None, "call require('minio') first"
        data = self.folder / "minio-data"
        data.mkdir(exist_ok=True)
        log = (self.folder / "minio.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [
                    program,
                    "server",
                    str(data),
                    "--address",
                    f"127.0.0.1:{self.port}",
                    "--console-address",
                    "127.0.0.1:0",
                ],
                env={
                    "HOME": str(self.folder),
                    "PATH": "/usr/bin:/bin",
                    "MINIO_ROOT_USER": USER,
                    "MINIO_ROOT_PASSWORD": PASSWORD,
                    "MINIO_PROMETHEUS_AUTH_TYPE": "public",
                    "MINIO_BROWSER": "off",
                    "MINIO_UPDATE": "off",
                },
                stdout=log,
                stderr=log,
            )
        limit = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "minio.log").read_text()
            assert time.monotonic() < limit, "MinIO did not start within 60 s"
            time.sleep(0.05)
        client = self.client()
        if not client.bucket_exists(BUCKET):
            client.make_bucket(BUCKET)

    def stop(self, *, sign: int = signal.SIGTERM) -> None:
        """End it; with SIGKILL as a power failure would."""
        if self._process is not None:
            end(self._process, seconds=30, sign=sign)
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.endpoint + "/minio/health/ready", timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def client(self, endpoint: str | None = None) -> Minio:
        """The library alone, as users of it would make it."""
        host = (endpoint or self.endpoint).removeprefix("http://")
        return Minio(host, access_key=USER, secret_key=PASSWORD, secure=False, region="us-east-1")

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """The variables with which a program finds this server."""
        return {
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": endpoint or self.endpoint,
        }

    def counters(self) -> "Counters":
        """What MinIO has counted so far; waits out the cache it answers from."""
        time.sleep(COUNTER_CACHE_SECONDS)
        with urllib.request.urlopen(self.endpoint + "/minio/v2/metrics/cluster", timeout=30) as reply:
            return Counters.parse(reply.read().decode().splitlines())

    def objects(self, prefix: str) -> list[tuple[str, int]]:
        """(name below the prefix, size in bytes) of every object."""
        listed = self.client().list_objects(BUCKET, prefix=prefix + "/", recursive=True)
        return [(str(item.object_name).removeprefix(prefix + "/"), int(item.size or 0)) for item in listed]


class Counters:
    """S3 requests by API name and the bytes MinIO received and sent, at one moment."""

    def __init__(self, requests: dict[str, int], received_bytes: int, sent_bytes: int) -> None:
        self.requests = requests
        self.received_bytes = received_bytes
        self.sent_bytes = sent_bytes

    @classmethod
    def parse(cls, lines: Iterable[str]) -> "Counters":
        requests: dict[str, int] = {}
        traffic = {"minio_s3_traffic_received_bytes": 0, "minio_s3_traffic_sent_bytes": 0}
        for line in lines:
            sample = _SAMPLE.match(line)
            if sample is None:
                continue
            name, labels, value = sample.group(1), sample.group(2) or "", float(sample.group(3))
            api = re.search(r'api="([^"]*)"', labels)
            if name == "minio_s3_requests_total" and api is not None:
                requests[api.group(1)] = requests.get(api.group(1), 0) + int(value)
            elif name in traffic:
                traffic[name] += int(value)
        return cls(requests, traffic["minio_s3_traffic_received_bytes"], traffic["minio_s3_traffic_sent_bytes"])

    def since(self, before: "Counters") -> "Counters":
        """What was counted between `before` and now."""
        requests = {
            api: count - before.requests.get(api, 0)
            for api, count in self.requests.items()
            if count != before.requests.get(api, 0)
        }
        return Counters(requests, self.received_bytes - before.received_bytes, self.sent_bytes - before.sent_bytes)

    @property
    def total(self) -> int:
        return sum(self.requests.values())
