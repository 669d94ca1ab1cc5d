"""`nbdserver trace` on a real server whose store goes away: what waits for it is told while it does, and
afterwards with where the time went.
"""

import json
import subprocess
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.minio import RunningMinio
from tests.support.processes import until
from tests.support.program import COMMAND, Host, Server
from tests.support.stores import minio_store
from tests.support.wayward import WaywardProxy

EXIT_NOT_FOUND = 10
SLOW = 1.0
"""What nothing else takes, however busy the machine."""


AWAY = b"HTTP/1.1 503 So\r\nContent-Length: 0\r\n\r\n"


def test_what_waits_for_a_store_that_is_away(minio: RunningMinio, make_server: Callable[..., Server]) -> None:
    with WaywardProxy(minio.endpoint) as proxy:
        store = minio_store(minio, f"trace-{uuid.uuid4().hex[:12]}", endpoint=proxy.endpoint)
        tell(make_server(store, create={"disk": "64MiB", "idle": "1MiB"}), proxy)


def tell(server: Server, proxy: WaywardProxy) -> None:
    server.start()
    with server.connect() as client:
        client.write(0, b"d" * 262144)
        client.flush()
        client.disconnect()
    server.host.run("compact", "--store", server.location)  # what is in memory goes into SSTs
    server.stop()
    server.start()  # with nothing in memory
    following = subprocess.Popen(
        [*COMMAND, "trace", "disk", "--slow", str(SLOW), "--follow", "--json", "--store", server.location],
        env=server.host.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )

    def looked(*arguments: str) -> list[dict[str, Any]]:
        done = server.host.run("trace", *arguments, "--slow", str(SLOW), "--json", "--store", server.location)
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    try:
        with server.connect() as reader, server.connect() as writer:
            proxy.decide = lambda method, path: AWAY
            writer.write(1 << 20, b"n" * 4096)
            tasks = [threading.Thread(target=reader.read, args=(0, 4096)), threading.Thread(target=writer.flush)]
            for task in tasks:
                task.start()
            until(lambda: len(looked()) == 2, seconds=30, what="both to be under way, and slow")
            assert {(each["operation"], each["outcome"]) for each in looked("disk")} == {
                ("read", "under way"),
                ("flush", "under way"),
            }
            proxy.decide = lambda method, path: None
            for task in tasks:
                task.join()
            writer.disconnect()
            reader.disconnect()
        ended = {each["operation"]: each for each in looked()}
        assert following.stdout is not None
        followed = [json.loads(following.stdout.readline()) for _ in ended]
    finally:
        following.terminate()
        following.communicate()
    flush, read = ended["flush"], ended["read"]
    assert (flush["outcome"], read["outcome"]) == ("done", "done")
    assert next(iter(flush["spent"])) == "log"
    assert read["spent"]["waiting"] > 0
    assert read["tries"] > 1
    assert read["objects"][0].startswith("compacted/")
    for each in ended.values():
        assert each["seconds"] >= SLOW
        assert abs(sum(each["spent"].values()) - each["seconds"]) < 0.01 * each["seconds"]
        assert each["device"] == "disk"
    assert {each["operation"]: each for each in followed} == ended
    assert looked("idle") == []
    assert "nothing" in server.host.run("trace", "nothing", "--store", server.location, status=EXIT_NOT_FOUND).stderr
    rows = [line.split("\t") for line in server.host.run("trace", "--store", server.location).stdout.splitlines()]
    assert {row[4]: (row[1], float(row[7]), row[8]) for row in rows if float(row[7]) >= SLOW} == {
        name: ("disk", each["seconds"], "done") for name, each in ended.items()
    }


def test_a_store_at_rest_has_nothing_to_tell(work: Path) -> None:
    said = Host(work).run("trace", "--store", str(work / "nothing"), status=EXIT_NOT_FOUND).stderr
    assert "runs on this machine" in said
