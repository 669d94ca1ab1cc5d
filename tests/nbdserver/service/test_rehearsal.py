"""Whether a server could listen, found out without listening: nobody who waits for it is turned away meanwhile."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbdserver.service.rehearsal import rehearse
from storage.errors import AccessDenied, Conflict, Invalid, StorageError
from tests.support.processes import unused_port


@pytest.fixture
def _silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is listened on, and nothing gets a name under which a client would look."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a client could find this")

    for owner, name in ((socket.socket, "listen"), (os, "link"), (Path, "rename")):
        monkeypatch.setattr(owner, name, never)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.usefixtures("_silent")
@pytest.mark.parametrize("left", [False, True])
async def test_where_nobody_is_in_the_way(work: Path, left: bool) -> None:
    path = work / "socket"
    if left:
        with socket.socket(socket.AF_UNIX) as crashed:
            crashed.bind(str(path))
    for host in ("127.0.0.1", "::1", "localhost"):
        await rehearse((host, 0), path, "mine")
    assert os.listdir(work) == ["socket"] * left


async def test_a_port_in_use(taken: int) -> None:
    await refused(Conflict, "in use", ("127.0.0.1", taken), None)


async def test_a_port_that_a_stopped_server_had_is_free() -> None:
    """Its connections may linger."""
    port = unused_port()
    with (
        socket.create_server(("127.0.0.1", port)) as before,
        socket.create_connection(("127.0.0.1", port)),
        before.accept()[0] as accepted,
    ):
        accepted.shutdown(socket.SHUT_RDWR)
    await rehearse(("127.0.0.1", port), None, "mine")


async def test_a_socket_that_is_in_use_or_none_or_has_a_long_name(work: Path) -> None:
    path = work / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        await refused(Conflict, "another program listens", None, path)
    (work / "file").write_text("precious")
    await refused(Conflict, "not a socket", None, work / "file")
    await refused(Invalid, "too long", None, work / ("x" * 108))
    await refused(Invalid, "no address", ("x" * 300, 0), None)
    (work / "open").mkdir()
    (work / "open").chmod(0o777)
    await refused(AccessDenied, "not be safe", None, work / "open" / "socket")
    assert sorted(os.listdir(work)) == ["file", "open", "socket"]


async def refused(kind: type[StorageError], sentence: str, tcp: tuple[str, int] | None, unix: Path | None) -> None:
    with pytest.raises(kind, match=sentence):
        await rehearse(tcp, unix, "mine")
