"""The real program on a copied folder: adopted, served beside the original, and read by scripts/recover."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.program import EXIT_CONFLICT, EXIT_CORRUPT, EXIT_FENCED, REPOSITORY, Host, Server
from tests.support.stores import StoreUnderTest


def id_of(host: Host, location: str) -> str:
    told = host.json("status", "--store", location)
    assert isinstance(told, dict)
    return str(told["store"]["store_id"])


def test_a_copied_folder(local_store: StoreUnderTest, work: Path, make_server: Callable[..., Server]) -> None:
    first = make_server(local_store, create={"disk": "16MiB"})
    first.start()
    with first.connect() as client:
        client.write(0, b"both")
        client.flush()
    assert first.stop() == 0
    folder, copy = Path(local_store.location.removeprefix("file://")), work / "copy"
    shutil.copytree(folder, copy)
    (work / "elsewhere").mkdir()
    host = Host(work / "elsewhere")
    first.start()
    assert "no copy" in first.host.run("adopt", local_store.location, status=None).stderr
    first.stop()
    assert "no copy" in first.host.run("adopt", local_store.location, status=EXIT_CONFLICT).stderr
    first.start()
    assert "is a store of its own now, with the id" in host.run("adopt", str(copy)).stdout
    running = work / "copy of a running one"
    shutil.copytree(folder, running)
    refused = host.run("adopt", str(running), status=EXIT_FENCED).stderr
    assert "looks as if its server ran elsewhere" in refused
    assert "is a store of its own now" in host.run("adopt", str(running), "--take-over").stdout
    second = make_server(StoreUnderTest("file", f"file://{copy}"), on=host)
    second.start()
    for server, data in ((first, b"original"), (second, b"the copy")):
        with server.connect() as client:
            assert client.read(0, 4) == b"both"
            client.write(4, data)
            client.flush()
    assert id_of(first.host, first.location) != id_of(host, second.location)
    assert first.stop() == second.stop() == 0
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "recover"), str(copy), "export", "disk", str(work / "disk.raw")],
        env=host.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (work / "disk.raw").read_bytes()[:12] == b"boththe copy"
    shutil.rmtree(copy)
    shutil.copytree(folder, copy)
    assert "adopted" in host.run("device", "list", "--store", str(copy), status=EXIT_CORRUPT).stderr
