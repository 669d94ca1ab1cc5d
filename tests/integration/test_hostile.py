"""Clients that mean harm or die, at the real program, with a good client beside them that notices nothing."""

import contextlib
import resource
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.beside import Beside, over_tcp
from tests.nbdserver.cases import case
from tests.support import messages as m
from tests.support.answers import Answers
from tests.support.processes import resident_bytes, until
from tests.support.program import Host, Server

MIB = 1 << 20
FILLED = 64 * MIB
"""The beginning of the disk, which holds data."""

BASE_BYTES = 400 * MIB
"""What the program may hold with its caches and memtables, without any client."""

BUDGET_BYTES = 512 * MIB
"""The default of `Limits.memory_bytes`: data of requests under way, of all clients together."""

CLIENTS = 100
"""The default of `Limits.connections`."""

ONE_USERS_CLIENTS = 80
"""The default of `Limits.connections_per_address`, and of one user on loopback."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for no time: closing sends RST."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The real program on a folder store, with a disk of 256 MiB whose beginning is filled."""
    with tempfile.TemporaryDirectory(prefix="nbd-") as folder:
        running = Server(Host(Path(folder)), f"{folder}/store", create={"disk": "256MiB"})
        running.start()
        with running.connect() as client:
            for place in range(0, FILLED, MIB):
                client.write(place, place.to_bytes(8, "big") * (MIB // 8))
            client.flush()
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.said(), running.said()


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    """Sockets that the test leaves open, closed at its end."""
    with contextlib.ExitStack() as stack:
        yield stack


def bare(server: Server, said: bytes = b"", *, tcp: bool = True, host: int = 1) -> socket.socket:
    """A socket to the server from address 127.0.0.`host`, on which this was said."""
    if tcp:
        source = (f"127.0.0.{host}", 0)
        sock = socket.create_connection(("127.0.0.1", server.port), timeout=30, source_address=source)
    else:
        sock = socket.socket(socket.AF_UNIX)
        # Without a time-out yet: then it waits for room in the queue of those who are not accepted.
        sock.connect(str(server.socket))
        sock.settimeout(30)
    # A server that has too many clients may have closed it already.
    with contextlib.suppress(ConnectionError):
        sock.sendall(said)
    return sock


def attached(server: Server, start: case.Start, *, tcp: bool = True, host: int = 1) -> socket.socket:
    """A socket in the transmission phase."""
    sock = bare(server, start.say, tcp=tcp, host=host)
    answers = Answers()
    while len(answers.lines) < len(start.expect):
        answers.feed(sock.recv(4096))
    assert answers.lines == list(start.expect)
    return sock


def drop(sock: socket.socket, *, reset: bool) -> None:
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def push(sock: socket.socket, data: bytes | memoryview) -> int:
    """Send as much as goes without waiting."""
    sock.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while sent < len(data):
            sent += sock.send(data[sent:])
    return sent


def open_files(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


@pytest.mark.parametrize("start", [case.in_simple(), case.in_structured()], ids=["simple", "structured"])
def test_sixteen_clients_that_never_read(server: Server, sockets: contextlib.ExitStack, start: case.Start) -> None:
    """10,000 READs of 32 MiB each, which would be 5 TiB of replies."""
    reads = b"".join(m.request(m.READ, 0, 32 * MIB, cookie=number) for number in range(10_000))
    with Beside(server) as beside:
        for _ in range(16):
            push(sockets.enter_context(attached(server, start)), reads)
        beside.get_on()
    assert resident_bytes(server.pid, "VmHWM") < BASE_BYTES + BUDGET_BYTES


def test_a_client_that_floods(server: Server, sockets: contextlib.ExitStack) -> None:
    """100,000 small requests as fast as they can be sent, their replies read by nobody."""
    before = resident_bytes(server.pid)
    flood = (m.request(m.READ, 0, 4096) + m.request(m.FLUSH) + m.request(m.READ, 1 << 40, 1)) * 33_000
    with Beside(server) as beside:
        for tcp in (True, False):
            push(sockets.enter_context(attached(server, case.in_structured(), tcp=tcp)), flood)
        beside.get_on()
    assert resident_bytes(server.pid) < before + 64 * MIB


def test_ten_thousand_flushes_are_all_answered(server: Server) -> None:
    with Beside(server), attached(server, case.in_simple()) as sock:
        sock.sendall(m.request(m.WRITE, 0, data=(0).to_bytes(8, "big")) + m.request(m.FLUSH, cookie=2) * 10_000)
        answers = Answers(greeted=True)
        while len(answers.lines) < 10_001:
            answers.feed(sock.recv(1 << 16))
    assert answers.lines == ["1 ok"] + ["2 ok"] * 10_000


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("start", [case.in_simple(), case.in_structured()], ids=["simple", "structured"])
def test_a_client_that_dies_at_each_byte_of_a_write(server: Server, start: case.Start, reset: bool) -> None:
    """55: whatever is there of it, the disk holds what it held."""
    request = m.request(m.WRITE, 4096, data=b"w" * 32)
    with server.connect() as watch, Beside(server):
        before = watch.read(0, 65536)
        for count in range(1, len(request)):
            sock = attached(server, start, tcp=bool(count % 2))
            sock.sendall(request[:count])
            drop(sock, reset=reset)
        assert watch.read(0, 65536) == before


@pytest.mark.parametrize("count", [1, 32_767, 32_768, 100_000, 1_000_000])
def test_a_client_that_dies_in_a_long_write(server: Server, count: int) -> None:
    request = m.request(m.WRITE, 4096, 2 * MIB) + b"w" * count
    with server.connect() as watch, Beside(server):
        before = watch.read(0, 3 * MIB)
        for reset in (False, True):
            sock = attached(server, case.in_structured())
            sock.sendall(request)
            drop(sock, reset=reset)
        assert watch.read(0, 3 * MIB) == before


def test_writes_behind_which_the_client_left(server: Server) -> None:
    """Each is applied or not, none in part, and none that came later without those before it."""
    with server.connect() as watch, Beside(server):
        for turn in range(20):
            letters = bytes([97 + turn]) * 4096
            watch.zero(0, 16 * 4096)
            sock = attached(server, case.in_structured(), tcp=bool(turn % 2))
            sock.sendall(b"".join(m.request(m.WRITE, place * 4096, data=letters) for place in range(16)))
            if turn % 3 == 0:
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(30)
                while sock.recv(65536):
                    pass
            drop(sock, reset=turn % 3 == 1)
            applied = [watch.read(place * 4096, 4096) for place in range(16)]
            assert set(applied) <= {letters, bytes(4096)}
            assert applied == sorted(applied, reverse=True), "a later write was applied without an earlier one"


def test_a_thousand_sockets_opened_and_left(server: Server, sockets: contextlib.ExitStack) -> None:
    """70: they keep nobody out, neither the good client's next connections nor another one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    before = resident_bytes(server.pid)
    with Beside(server) as beside:
        for number in range(1000):
            sockets.enter_context(bare(server, m.FIXED_FLAGS[: number % 5], tcp=bool(number % 2), host=2 + number % 20))
        with over_tcp(server) as other:
            assert len(other.read(0, 4096)) == 4096
        beside.get_on()
    assert resident_bytes(server.pid) < before + 64 * MIB
    assert open_files(server) < CLIENTS + 100


def test_connecting_and_leaving_again_and_again(server: Server) -> None:
    """73: nothing is kept of clients that came and went, politely or not."""

    def come_and_go(times: int) -> None:
        for number in range(times):
            drop(bare(server, b"\0" * (number % 3), tcp=number % 4 > 0), reset=number % 2 == 0)
        until(lambda: open_files(server) <= files, seconds=30, what="the last of them being forgotten")

    files = open_files(server)
    with Beside(server):
        files += 2
        come_and_go(500)
    before = resident_bytes(server.pid)
    come_and_go(1500)
    assert resident_bytes(server.pid) < before + 8 * MIB


def test_no_file_descriptors_left(server: Server, sockets: contextlib.ExitStack) -> None:
    """73: who came too much may be turned away, but when there is room again, clients are served."""
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    with server.connect() as early:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (open_files(server) + 8, hard))
        try:
            for _ in range(40):
                sockets.enter_context(bare(server))
            early.write(0, bytes(4096))
            assert early.read(0, 4096) == bytes(4096)
        finally:
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
        sockets.close()
        early.flush()
    with server.connect() as late:
        assert late.read(0, 4096) == bytes(4096)


def test_many_announcements_of_32_mib(server: Server, sockets: contextlib.ExitStack) -> None:
    """72: 2.3 GiB are announced, and all but a byte of each is there to be sent; nobody waits for memory because of
    it. Those that send nothing more while others wait for the memory may be dropped."""
    announced = memoryview(m.request(m.WRITE, 0, 32 * MIB) + b"w" * (32 * MIB - 1))
    with Beside(server) as beside:
        left = {}
        for number in range(ONE_USERS_CLIENTS - 5):
            left[sockets.enter_context(attached(server, case.in_structured(), host=2 + number % 2))] = announced
        beside.get_on()
        for _ in range(2):
            for sock, data in left.items():
                with contextlib.suppress(ConnectionError):
                    left[sock] = data[push(sock, data) :]
            beside.get_on()
    assert resident_bytes(server.pid, "VmHWM") < BASE_BYTES + BUDGET_BYTES
