"""The real program over TCP, behind a link of 4 MB/s: with 128 MiB under way a client is answered steadily.

How long it waits is counted in bytes that the link has passed meanwhile, which no busy machine makes more.
"""

import contextlib
import itertools
import os
import threading
from collections.abc import Callable

import pytest

from tests.benchmarks.proxy import SlowProxy
from tests.support.messages import WRITE
from tests.support.minio import RunningMinio
from tests.support.nbd import Client
from tests.support.program import Server
from tests.support.stores import minio_store

MIB = 1 << 20
RATE = 4_000_000
WRITES = 128

GAP_BYTES_MAX = 5 * RATE
"""From one reply to the next: five seconds of the link."""

HELD_BYTES_MAX = 32 * MIB
"""What may be answered and not sent yet: four seconds of the link, and as much for what the rate is measured by."""


def send(client: Client, blocks: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # the test has ended
        for number in range(WRITES):
            client.submit(WRITE, number * MIB, data=blocks[number % len(blocks)])


@pytest.mark.slow
def test_a_client_with_much_under_way_is_answered_steadily(
    minio: RunningMinio, make_server: Callable[..., Server]
) -> None:
    with SlowProxy(minio.port) as proxy:
        store = minio_store(minio, "slow-uplink", endpoint=f"http://127.0.0.1:{proxy.port}")
        server = make_server(store, create={"disk": "256MiB"})
        server.start()
        assert server.port is not None
        with Client(("127.0.0.1", server.port), "disk", timeout=200) as client:
            blocks = [os.urandom(MIB) for _ in range(8)]
            proxy.rate = RATE
            before = proxy.passed
            sending = threading.Thread(target=send, args=(client, blocks), daemon=True)
            sending.start()
            sent = [0]
            for answered in range(1, WRITES + 1):
                assert client.receive().error == 0
                sent.append(proxy.passed - before)
                assert answered * MIB - sent[-1] <= HELD_BYTES_MAX, f"{answered} replies, and {sent[-1]} bytes sent"
            sending.join()
            gaps = [later - earlier for earlier, later in itertools.pairwise(sent)]
            assert max(gaps) <= GAP_BYTES_MAX
            client.flush()
            assert proxy.passed - before > WRITES * MIB
            assert client.read((WRITES - 1) * MIB, MIB) == blocks[(WRITES - 1) % 8]
            proxy.rate = None
        assert server.stop() == 0
        assert "client_dropped" not in server.said()
