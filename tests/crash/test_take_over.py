"""A second server on one store is refused, or with --take-over fences the first. No flushed write is lost."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.messages import FUA, WRITE
from tests.support.nbd import Client
from tests.support.program import EXIT_FENCED, Host, NotListening, Server
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

NOTICE_SECONDS = 120
"""A running writer asks the store every 10 s whether it was superseded."""


def block(number: int) -> bytes:
    return number.to_bytes(8, "big") * 512


def fill(client: Client, numbers: range) -> None:
    """Write block n at place n, each flushed by FUA or FLUSH before the next."""
    for number in numbers:
        if number % 2:
            client.write(number * 4096, block(number), flags=FUA)
        else:
            client.write(number * 4096, block(number))
            client.flush()


def holds(client: Client, numbers: range) -> None:
    for number in numbers:
        assert client.read(number * 4096, 4096) == block(number), f"block {number} is lost"


def must_not_acknowledge(client: Client) -> None:
    """A superseded server may answer reads and take writes for a while; no flush of a new write succeeds."""
    try:
        client.write(0, block(99))
        client.flush()
    except (OSError, EOFError):
        return
    finally:
        client.close()
    pytest.fail("the superseded server acknowledged a flush", pytrace=False)


@pytest.fixture(params=["same host", "another host"])
def second_host(request: pytest.FixtureRequest, work: Path, store: StoreUnderTest) -> Iterator[Host]:
    """Where the second server runs: beside the first, or with state and runtime folders of its own."""
    if request.param == "same host":
        yield Host(work, store.environment)
    else:
        folder = work / "b"
        folder.mkdir()
        yield Host(folder, store.environment)


def test_second_server_is_refused(store: StoreUnderTest, make_server: Callable[..., Server], second_host: Host) -> None:
    first = make_server(store, create={"disk": "64MiB"})
    first.start()
    with first.connect() as client:
        fill(client, range(4))
        with pytest.raises(NotListening) as refused:
            make_server(store, on=second_host).start()
        assert refused.value.status == EXIT_FENCED
        assert len(refused.value.output.strip().splitlines()) == 1, "one clear sentence"
        fill(client, range(4, 8))  # the first was not disturbed
        holds(client, range(8))
    assert first.stop() == 0


def test_take_over_fences_the_first(
    store: StoreUnderTest, make_server: Callable[..., Server], second_host: Host
) -> None:
    first = make_server(store, create={"disk": "64MiB"})
    first.start()
    old = first.connect()
    fill(old, range(20))
    second = make_server(store, on=second_host)
    second.start("--take-over")
    with second.connect() as new:
        holds(new, range(20))
        fill(new, range(20, 40))
        must_not_acknowledge(old)
        assert first.wait(NOTICE_SECONDS) == EXIT_FENCED
        fill(new, range(40, 50))
        holds(new, range(50))
    assert second.stop() == 0
    second.start()
    with second.connect() as again:
        holds(again, range(50))
        assert again.read(50 * 4096, 1 << 20) == bytes(1 << 20)


def test_an_idle_server_notices_by_itself(store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    first = make_server(store, create={"disk": "64MiB"})
    first.start()
    second = make_server(store)
    second.start("--take-over")
    assert first.wait(NOTICE_SECONDS) == EXIT_FENCED
    assert not first.running()
    with pytest.raises(ConnectionRefusedError):
        Client(("127.0.0.1", first.port or 0), "disk")


def test_a_stopped_server_that_wakes_up_changes_nothing(
    store: StoreUnderTest, make_server: Callable[..., Server], second_host: Host
) -> None:
    first = make_server(store, create={"disk": "64MiB"})
    first.start()
    old = first.connect()
    fill(old, range(10))
    pending = old.submit(WRITE, 0, data=block(77))  # in the socket or the log when it stops: never flushed
    first.send(signal.SIGSTOP)
    second = make_server(store, on=second_host)
    second.start("--take-over")
    with second.connect() as new:
        fill(new, range(10, 20))
        first.send(signal.SIGCONT)
        with contextlib.suppress(OSError, EOFError):
            assert old.receive().cookie == pending
        must_not_acknowledge(old)
        assert first.wait(NOTICE_SECONDS) == EXIT_FENCED
        fill(new, range(20, 30))
        holds(new, range(1, 30))
        assert new.read(0, 4096) in (block(0), block(77))
    second.kill()
    second.start()
    with second.connect() as again:
        holds(again, range(1, 30))


@pytest.mark.slow
def test_take_over_back_and_forth(store: StoreUnderTest, work: Path, make_server: Callable[..., Server]) -> None:
    hosts = []
    for name in ("a", "b"):
        (work / name).mkdir()
        hosts.append(Host(work / name, store.environment))
    running = make_server(store, on=hosts[0], create={"disk": "64MiB"})
    running.start()
    for turn in range(4):
        with running.connect() as client:
            fill(client, range(turn * 10, turn * 10 + 10))
        following = make_server(store, on=hosts[(turn + 1) % 2])
        following.start("--take-over")
        assert running.wait(NOTICE_SECONDS) == EXIT_FENCED
        with following.connect() as client:
            holds(client, range(turn * 10 + 10))
        running = following
