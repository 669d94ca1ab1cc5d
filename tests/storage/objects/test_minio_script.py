"""`scripts/minio`: what it prints is all that is needed, and nothing is left when it ends."""

import asyncio
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.objects.locations import open_location
from tests.support.processes import unused_port
from tests.support.requirements import require

SCRIPT = Path(__file__).parents[3] / "scripts" / "minio"


@pytest.mark.integration
def test_the_program_is_found() -> None:
    require("minio")
    found = subprocess.run([SCRIPT, "--build"], check=True, capture_output=True, text=True).stdout.strip()
    assert os.access(found, os.X_OK)


async def write_and_read(env: RealEnv) -> None:
    store = open_location("s3://nbdserver/a/disk", env)
    await store.create("wal/1", b"data")
    assert await store.get("wal/1") == b"data"
    await store.close()


@pytest.mark.integration
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_bucket_is_served_until_the_end(
    env: RealEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: signal.Signals
) -> None:
    require("minio", "curl")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("MINIO_PORT", str(unused_port()))  # what it draws itself may be another's when MinIO binds it
    for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with subprocess.Popen(
        [SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # A shell that was started with SIGINT ignored, as in the background of another, cannot trap it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout is not None
            printed = [process.stdout.readline() for _ in range(4)]
            for line in printed:
                exported = re.fullmatch(r"export (AWS_[A-Z0-9_]+)=(\S+)\n", line)
                assert exported is not None, line
                monkeypatch.setenv(exported[1], exported[2])
            drawn = os.environ["AWS_SECRET_ACCESS_KEY"]
            assert re.fullmatch("[0-9a-f]{40}", drawn)
            assert drawn not in SCRIPT.read_text(), "everybody would know it"
            asyncio.run(write_and_read(env))
        finally:
            process.send_signal(sign)
        assert process.wait(120) == 0
    assert list(tmp_path.iterdir()) == [], "the data were left"
