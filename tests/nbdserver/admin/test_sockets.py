"""Where the admin socket of a store lies."""

import os
import tempfile
from pathlib import Path

import pytest

from nbdserver.admin.sockets import (
    SYSTEM_FOLDER,
    make_runtime_folder,
    runtime_folder,
    servers_trusted_in,
    socket_path,
    sockets_to_try,
)
from nbdserver.unix_sockets import SOCKET_PATH_BYTES_MAX
from storage.errors import AccessDenied, Invalid
from tests.support.leftovers import prefix_elsewhere


def test_the_folder_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert runtime_folder({"XDG_RUNTIME_DIR": "/run/user/1000"}) == Path("/run/user/1000/nbdserver")
    assert runtime_folder({"XDG_RUNTIME_DIR": "/x", "RUNTIME_DIRECTORY": "/run/a:/run/b"}) == Path("/run/a")
    assert runtime_folder({"RUNTIME_DIRECTORY": "/x", "NBDSERVER_RUNTIME_FOLDER": "/y"}) == Path("/y")
    assert runtime_folder({"XDG_STATE_HOME": "/home/u/s"}) == Path("/home/u/s/nbdserver/run")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runtime_folder({"XDG_RUNTIME_DIR": "/run/user/0"}) == SYSTEM_FOLDER


def test_commands_look_where_any_server_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    environ = {"XDG_RUNTIME_DIR": "/run/user/1000", "NBDSERVER_RUNTIME_FOLDER": "/y"}
    found = sockets_to_try(environ, "memory://")
    assert [path.parent for path in found] == [Path("/y"), Path("/run/user/1000/nbdserver"), SYSTEM_FOLDER]
    assert len({path.name for path in found}) == 1


def test_every_store_has_its_own() -> None:
    assert socket_path(Path("/r"), "file:///a") != socket_path(Path("/r"), "file:///b")


def test_a_path_that_no_socket_can_have() -> None:
    folder = Path("/" + "x" * SOCKET_PATH_BYTES_MAX)
    with pytest.raises(Invalid, match="NBDSERVER_RUNTIME_FOLDER"):
        socket_path(folder, "memory://")
    assert sockets_to_try({"NBDSERVER_RUNTIME_FOLDER": str(folder)}, "memory://")[0].parent != folder


def test_a_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_runtime_folder(folder)
    make_runtime_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_others_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(AccessDenied, match="only this user"):
        make_runtime_folder(tmp_path)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", Path("/proc/nbdserver")):
        with pytest.raises(AccessDenied, match="NBDSERVER_RUNTIME_FOLDER"):
            make_runtime_folder(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_root_trusts_the_service_whose_folder_root_made(tmp_path: Path) -> None:
    """Not one that somebody may have made himself, as in /tmp."""
    folder = tmp_path / "service"
    folder.mkdir(mode=0o755)
    os.chown(folder, 33, 33)
    with pytest.raises(AccessDenied, match="belongs to user 33"):
        servers_trusted_in(folder)
    with tempfile.TemporaryDirectory(dir="/run", prefix=prefix_elsewhere()) as made:
        os.chmod(made, 0o755)
        os.chown(made, 33, 33)
        assert servers_trusted_in(Path(made)) == {0, 33}
        with pytest.raises(AccessDenied, match="belongs to user 33"):
            make_runtime_folder(Path(made))
