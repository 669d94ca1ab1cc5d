"""A server of another user on a store in S3, beside which lies no note: root finds it, or is told whose it is."""

import json
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.leftovers import prefix_elsewhere
from tests.support.minio import RunningMinio
from tests.support.other_users import VICTIM, python
from tests.support.processes import end
from tests.support.program import EXIT_FENCED, REPOSITORY, Host
from tests.support.stores import StoreUnderTest, minio_store

PASSWORD = "a secret"


@pytest.fixture
def s3(minio: RunningMinio, work: Path) -> StoreUnderTest:
    python()
    work.chmod(0o711)
    (work / "home").mkdir(mode=0o700)
    os.chown(work / "home", VICTIM, VICTIM)
    return minio_store(minio, f"others-{uuid.uuid4().hex[:8]}")


@contextmanager
def served_by_victim(store: StoreUnderTest, work: Path, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Its server, which keeps what it remembers in that user's home."""
    home = work / "home"
    environment = {
        **store.environment,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{REPOSITORY}:{python()[1]}",
        "NBDSERVER_PASSWORD": PASSWORD,
        "NBDSERVER_STATE_FOLDER": str(home / "state"),
        "HOME": str(home),
        **variables,
    }
    log = work / "service.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [python()[0], "-m", "nbdserver", "serve", store.location, "--create", "a=1M", "--unix", str(home / "s")],
            user=VICTIM,
            group=VICTIM,
            extra_groups=[],
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), log.read_text()
        yield process
    finally:
        end(process)


def given(folder: Path) -> str:
    """A runtime folder that nobody but root can have made for that user."""
    folder.chmod(0o711)
    runtime = folder / "nbdserver"
    runtime.mkdir(mode=0o755)
    os.chown(runtime, VICTIM, VICTIM)
    return str(runtime)


def test_root_commands_a_server_in_the_folder_that_root_gave_it(s3: StoreUnderTest, work: Path) -> None:
    """As the service manager does."""
    host = Host(work, s3.environment)
    with (
        tempfile.TemporaryDirectory(dir="/run", prefix=prefix_elsewhere()) as made,
        served_by_victim(s3, work, NBDSERVER_RUNTIME_FOLDER=(there := given(Path(made)))) as server,
    ):
        host.run("device", "create", "b", "1M", "--store", s3.location, NBDSERVER_RUNTIME_FOLDER=there)
        status = json.loads(host.run("status", "--json", "--store", s3.location, NBDSERVER_RUNTIME_FOLDER=there).stdout)
        assert (status["pid"], status["exports"]) == (server.pid, ["a", "b"])


def test_root_is_told_whose_the_server_is_that_keeps_its_folders_to_itself(s3: StoreUnderTest, work: Path) -> None:
    host = Host(work, s3.environment)
    with served_by_victim(s3, work) as server:
        for command in (
            ("serve", s3.location, "--run", "true"),
            ("device", "create", "b", "1M", "--store", s3.location),
        ):
            done = host.run(*command, status=EXIT_FENCED, NBDSERVER_PASSWORD=PASSWORD)
            assert f"another server of this host (process {server.pid} of user nobody) holds" in done.stderr
            assert "--take-over" not in done.stderr
