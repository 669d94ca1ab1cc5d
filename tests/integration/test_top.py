"""`nbdserver top` on a real server: what it shows is what a client does."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

from tests.support.program import Host, Server
from tests.support.stores import StoreUnderTest

EXIT_NOT_FOUND = 10


def test_rates_of_what_a_client_does(store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    server = make_server(store, create={"disk": "64MiB", "idle": "1MiB"})
    server.start()
    over = threading.Event()

    def write() -> None:
        with server.connect() as client:
            while not over.is_set():
                client.write(0, bytes(8192))
                client.flush()
            client.disconnect()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        arguments = ("top", server.location, "--seconds", "0.5", "--count", "3")
        looks = [json.loads(line) for line in server.host.run(*arguments, "--json").stdout.splitlines()]
        rows = [line.split("\t") for line in server.host.run(*arguments).stdout.splitlines()]
    finally:
        over.set()
        writer.join()
    assert len(looks) == 3
    for look in looks:
        disk, flush = look["disk"]["disk"], look["wait"]["flush"]
        assert disk["clients"] == 1
        # Each write has 8 KiB, and each flush comes behind one.
        assert abs(disk["received"] - 8192 * disk["writes"]) <= 8192 * 2 / 0.5
        assert abs(disk["other"] - disk["writes"]) <= 2 / 0.5
        assert not flush["rate"] or 0 < flush["median"] <= flush["p99"]
        assert look["disk"]["idle"]["writes"] == 0
        assert look["problems"] == []
    # On a busy machine a flush may take longer than a look.
    assert any(look["disk"]["disk"]["writes"] > 0 for look in looks)
    assert any(look["wait"]["flush"]["rate"] > 0 for look in looks)
    assert any(look["store"]["create"]["rate"] > 0 for look in looks)
    assert [row[1] for row in rows if row[0] == "disk"] == ["disk", "idle"] * 3


def test_a_store_at_rest_has_nothing_to_show(work: Path) -> None:
    said = Host(work).run("top", str(work / "nothing"), "--count", "1", status=EXIT_NOT_FOUND).stderr
    assert "runs on this host" in said
