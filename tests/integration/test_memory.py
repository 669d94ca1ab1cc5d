"""What the real program keeps in memory: no more than it says, and never what only a stranger's object asks for."""

from collections.abc import Callable

import pytest

from tests.support.nbd import Client
from tests.support.processes import resident_bytes
from tests.support.program import Server
from tests.support.stores import StoreUnderTest

MIB = 1 << 20
SECTOR = 4096
CACHE_BYTES = 64 * MIB

SERVER_BYTES = 256 * MIB
"""A server with a small cache and nothing under way: the interpreter, and freed memory that the allocator keeps for the
buffers of the next requests."""


def write_and_settle(client: Client, server: Server, payload: bytearray, *, count: int, first: int) -> None:
    """Long writes with little in them that is worth keeping, each durable before the next."""
    for number in range(count):
        payload[number * SECTOR : number * SECTOR + 8] = b"a sector"
        client.write(first + number * len(payload), bytes(payload))
        client.flush()
    server.host.run("flush", "--store", server.location)


@pytest.mark.parametrize("offset", [0, 5 * SECTOR])
def test_the_cache_keeps_what_it_says(
    local_store: StoreUnderTest, make_server: Callable[..., Server], offset: int
) -> None:
    """Each write leaves a block or two in the cache, and its ends in the memtable; none may keep all 32 MiB."""
    server = make_server(local_store, create={"disk": "8GiB"}, arguments=["--cache-size", "64MiB"])
    server.start()
    with server.connect() as client:
        write_and_settle(client, server, bytearray(32 * MIB), count=60, first=offset)
        assert resident_bytes(server.pid) < SERVER_BYTES + CACHE_BYTES
