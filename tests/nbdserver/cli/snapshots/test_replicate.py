"""`nbdserver replicate` between two stores at rest, and between one that is served and one at rest."""

import hashlib
import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import keys
from tests.support.program import EXIT_CONFLICT, EXIT_WRONG_PASSWORD, Host, Server
from tests.support.replicating import Replicating
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

MIB = 1 << 20


class Stores:
    """Two stores in folders, `one` with a device `disk`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.one = f"file://{host.folder}/one"
        self.two = f"file://{host.folder}/two"
        self._chance = random.Random(7)
        for each in (self.one, self.two):
            keys.prepare(each, {}, host.password)
        image = host.folder / "image"
        image.write_bytes(self._chance.randbytes(3 * MIB) + bytes(5 * MIB))
        self.run("device", "import", "disk", str(image), store=self.one)

    def run(self, *words: str, store: str, status: int = 0, **variables: Any) -> "subprocess.CompletedProcess[str]":
        return self.host.run(*words, "--store", store, status=status, **variables)

    def replicate(self, *words: str, status: int = 0, **variables: Any) -> Any:
        """The summary, or what it said when it failed."""
        done = self.run("replicate", "disk", self.two, "--json", *words, store=self.one, status=status, **variables)
        return done.stderr if status else json.loads(done.stdout.splitlines()[-1])

    def change(self, store: str, name: str = "disk") -> None:
        """Write to a device."""
        server = Server(self.host, store, tcp=False)
        server.start()
        with server.connect(name) as client:
            data = self._chance.randbytes(5000)
            client.write(self._chance.randrange(8 * MIB - len(data)), data)
            client.flush()
        assert server.stop() == 0

    def snapshots(self, store: str) -> list[str]:
        return [one["name"] for one in json.loads(self.run("snapshot", "list", "--json", store=store).stdout)]

    def sha(self, store: str, name: str = "disk") -> str:
        path = self.host.folder / "out"
        self.run("device", "export", name, str(path), "--overwrite", store=store)
        return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def stores(host: Host) -> Stores:
    return Stores(host)


def test_rounds(stores: Stores) -> None:
    first = stores.replicate()
    assert 3 * MIB < first["stream_bytes"] < 3.3 * MIB
    assert first["changed"]
    assert stores.snapshots(stores.one) == stores.snapshots(stores.two) == [first["snapshot"]]
    again = stores.replicate()
    assert (again["changed"], again["snapshot"]) == (False, first["snapshot"])
    assert again["as_of"] > first["as_of"]
    stores.run("snapshot", "create", "disk@mine", store=stores.one)
    stores.run("snapshot", "create", "disk@mine-too", store=stores.two)
    for number in range(2):
        if number == 1:  # what both have in common is sealed under the older key, what is written now under the newer
            stores.run("key", "rotate", store=stores.one)
        stores.change(stores.one)
        done = stores.replicate("--keep-replicas", "2")
        assert done["stream_bytes"] < 20_000
        assert stores.sha(stores.one) == stores.sha(stores.two)
    assert stores.snapshots(stores.one) == ["mine", done["snapshot"]]
    assert len(stores.snapshots(stores.two)) == 3
    stores.run("check", store=stores.two)


@pytest.mark.slow
def test_a_chain_that_was_cut(stores: Stores) -> None:
    """An older common snapshot serves; without any, and on what somebody wrote, one sentence says what to do."""
    first = stores.replicate()["snapshot"]
    stores.run("snapshot", "create", "disk@mine", store=stores.one)
    stores.change(stores.one)
    second = stores.replicate("--keep-replicas", "9")["snapshot"]
    stores.run("snapshot", "delete", f"disk@{second}", store=stores.one)
    said = stores.replicate(status=EXIT_CONFLICT)
    assert "no snapshot in common" in said
    assert "--as NAME" in said
    assert stores.snapshots(stores.two) == [first, second]

    fresh = stores.replicate("--as", "fresh")["snapshot"]
    stores.run("snapshot", "create", "disk@common", store=stores.one)
    path = stores.host.folder / "stream"
    stores.run("device", "export", "disk@common", str(path), "--since", fresh, store=stores.one)
    stores.run("device", "import", "fresh", str(path), store=stores.two)
    stores.change(stores.one)
    newest = stores.replicate("--as", "fresh", "--keep-replicas", "9")["snapshot"]
    stores.run("snapshot", "delete", f"disk@{newest}", store=stores.one)
    stores.change(stores.one)
    last = stores.replicate("--as", "fresh")["snapshot"]
    assert stores.sha(stores.two, "fresh") == stores.sha(stores.one) == stores.sha(stores.two, f"fresh@{last}")
    assert stores.snapshots(stores.two)[-2:] == ["common", last], "what the way back kept is gone"

    stores.change(stores.two, "fresh")
    for _ in range(2):
        assert f"nbdserver snapshot rollback fresh@{last}" in stores.replicate("--as", "fresh", status=EXIT_CONFLICT)
        stores.change(stores.one)
    stores.run("snapshot", "create", "fresh@theirs", store=stores.two)
    stores.replicate("--as", "fresh", status=EXIT_CONFLICT)
    stores.run("snapshot", "rollback", f"fresh@{last}", "--discard", store=stores.two)
    stores.replicate("--as", "fresh")
    assert stores.sha(stores.one) == stores.sha(stores.two, "fresh")


def test_what_is_refused(stores: Stores) -> None:
    def said(*words: str, status: int, **variables: str) -> str:
        done = stores.run("replicate", *words, store=stores.one, status=status, **variables)
        assert len(done.stderr.splitlines()) <= 3
        return done.stderr

    link = stores.host.folder / "link"
    link.symlink_to(stores.host.folder / "one")
    assert "is the same store" in said("disk", str(link), "--as", "copy", status=2)
    assert "no device named 'none'" in said("none", stores.two, status=10)
    assert "there is no store at" in said("disk", f"{stores.two}/none", status=10)
    stores.run("device", "create", "disk", "8MiB", store=stores.two)
    assert "no snapshot in common" in said("disk", stores.two, status=EXIT_CONFLICT)
    said("disk", stores.two, status=EXIT_WRONG_PASSWORD, NBDSERVER_TO_PASSWORD="another one")
    assert "separates a device" in said("disk", stores.two, "--as", "a@b", status=2)
    assert "is a device" in said("disk", stores.two, "--as", "disk/b", status=EXIT_CONFLICT)
    assert stores.snapshots(stores.one) == [], "nothing was begun"
    copy = stores.host.folder / "two-copied"
    subprocess.run(["cp", "-a", stores.host.folder / "one", copy], check=True)
    assert "or a copy of it" in said("disk", str(copy), "--as", "other", status=2)


def test_each_store_has_its_password(stores: Stores) -> None:
    stores.run("password", "change", store=stores.two, NBDSERVER_NEW_PASSWORD="the second one")
    stores.replicate(NBDSERVER_TO_PASSWORD="the second one")
    file = stores.host.folder / "secret"
    file.write_text("the second one\n")
    file.chmod(0o600)
    assert not stores.replicate(NBDSERVER_TO_PASSWORD_FILE=str(file))["changed"]


def test_rounds_go_on_until_a_signal(stores: Stores, make_server: Callable[..., Server], work: Path) -> None:
    server = make_server(StoreUnderTest("file", stores.one))
    server.start()
    with Replicating(stores.host, stores.one, stores.two, "disk", "--every", "1s") as running:
        first = running.line("summary")
        with server.connect("disk") as client:
            client.write(0, b"new")
            client.flush()
        while not (done := running.line("summary"))["changed"]:
            assert done["snapshot"] == first["snapshot"]
        server.kill()
        waiting = running.line("waiting")
        assert waiting["lag_seconds"] > 0
        assert "server" in waiting["reason"]
        for _ in range(2):
            later = running.next_line()
            assert later["message_type"] == "waiting", "its store is to be free when it comes back"
            assert later["reason"] == f"the server of {stores.one} is gone"
        server.start()
        running.line("summary")
        assert running.stop() == 0
    assert server.stop() == 0
    assert stores.sha(stores.one) == stores.sha(stores.two)
