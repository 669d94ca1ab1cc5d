"""Where a server listens: addresses that are taken or are none, and Unix sockets, which are files that may be stale,
in use, or something else."""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from nbdserver import unix_sockets
from nbdserver.listen_errors import listening_failed
from storage.errors import AccessDenied, Conflict, Invalid
from tests.support.running import Running


async def test_the_socket_is_for_this_user_only(running: Running) -> None:
    assert stat.S_IMODE(running.path.stat().st_mode) == 0o600


async def test_a_stale_socket_is_replaced(make: Callable[..., Running]) -> None:
    left = make()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(left.path))
    assert left.path.is_socket()
    await left.start()
    (await left.client()).close()


async def test_a_socket_in_use_is_not(running: Running, make: Callable[..., Running]) -> None:
    with pytest.raises(Conflict, match="another program listens on"):
        await make().server.listen_unix(running.path)
    (await running.client()).close()


async def test_a_file_is_not_taken_for_a_socket(make: Callable[..., Running]) -> None:
    other = make()
    other.path.write_text("precious")
    with pytest.raises(Conflict, match="is not a socket"):
        await other.server.listen_unix(other.path)
    assert other.path.read_text() == "precious"


async def test_two_servers_starting_at_once_do_not_take_each_others_socket(
    make: Callable[..., Running],
) -> None:
    """A look that finds a stale socket is old when the other server has put its own in the place of that."""
    one, other = make(), make()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(one.path))
    patch = pytest.MonkeyPatch()

    def look(path: Path) -> bool:
        patch.undo()
        sock, _ = unix_sockets.listen(path, "other")
        found.append(sock)
        return False

    found: list[socket.socket] = []
    patch.setattr(unix_sockets, "_is_listened_on", look)
    with pytest.raises(Conflict, match="another program listens on"):
        await one.server.listen_unix(one.path)
    with found[0]:
        unix_sockets.connect(other.path, {os.geteuid()}, 10).close()
    assert os.listdir(one.path.parent) == [one.path.name]


async def test_a_lock_on_its_folder_keeps_no_server_from_starting(make: Callable[..., Running]) -> None:
    one = make()
    folder = os.open(one.path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        await one.start()
    finally:
        os.close(folder)


async def test_places_one_cannot_listen_at(running: Running, make: Callable[..., Running]) -> None:
    other = make().server
    host, port = running.address
    with pytest.raises(Conflict, match=f"port {port} on 127.0.0.1 is in use"):
        await other.listen_tcp(host, port)
    with pytest.raises(Conflict, match="cannot be listened on"):
        await other.listen_tcp("192.0.2.1", 0)
    with pytest.raises(Invalid, match="107 bytes"):
        await other.listen_unix(Path("/tmp") / ("x" * 110))
    with pytest.raises(Invalid, match="No such file"):
        await other.listen_unix(running.path.parent / "nowhere" / "socket")
    denied = listening_failed(PermissionError(errno.EACCES, "denied"), "port 1 on ::")
    assert isinstance(denied, AccessDenied)


async def test_a_socket_that_was_replaced_is_left_alone(running: Running) -> None:
    running.path.unlink()
    running.path.write_text("somebody else's")
    await running.server.stop(0)
    assert running.path.exists()


@pytest.mark.parametrize(
    "error",
    [
        *(
            OSError(number, os.strerror(number))
            for number in (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
        ),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    ],
    ids=str,
)
def test_what_may_be_there_in_a_moment_is_tried_again(error: OSError) -> None:
    assert isinstance(listening_failed(error, "port 1 on disks"), Conflict)


def test_a_name_that_does_not_exist_is_a_mistake() -> None:
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert isinstance(listening_failed(unknown, "port 1 on disks"), Invalid)
