"""Requests of 4 GiB less 512 bytes, as newer kernels send them, on a device of many TiB."""

from collections.abc import Callable

from tests.support.messages import NO_HOLE
from tests.support.nbd import Client
from tests.support.program import Server
from tests.support.stores import StoreUnderTest

HUGE = (4 << 30) - 512
SIZE = 8 << 40
MARK = b"mark" * 1024


def mark(client: Client, *places: int) -> None:
    for place in places:
        client.write(place, MARK)


def test_huge_trims_and_zeroes(local_store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    server = make_server(local_store, create={"disk": "8TiB"})
    server.start()
    with server.connect(timeout=60) as client:
        assert client.size == SIZE
        mark(client, 0, 1 << 40, (1 << 40) + HUGE, SIZE - 4096)
        client.trim(1 << 40, HUGE)
        assert client.read(1 << 40, 4096) == bytes(4096)
        assert client.read((1 << 40) + HUGE, 4096) == MARK, "the first byte after the range was touched"
        client.zero(0, HUGE)
        assert client.read(0, 4096) == bytes(4096)
        client.zero(2 << 40, HUGE, flags=NO_HOLE)
        assert client.extents(2 << 40, 1 << 20)[0][1] == 2, "NO_HOLE means zero, but allocated"
        mark(client, (2 << 40) + (1 << 30))
        client.flush()
    server.kill()
    server.start()
    with server.connect(timeout=60) as client:
        assert client.read(0, 4096) == bytes(4096)
        assert client.read(1 << 40, 4096) == bytes(4096)
        assert client.read((1 << 40) + HUGE, 4096) == MARK
        assert client.read((2 << 40) + (1 << 30), 8192) == MARK + bytes(4096)
        assert client.read(SIZE - 4096, 4096) == MARK
