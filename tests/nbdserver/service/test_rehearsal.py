"""Whether a server could listen, found out without listening: nobody who waits for it is turned away meanwhile."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbdserver.config import ServeSettings
from nbdserver.service.rehearsal import Listening, check_devices, dashboard_secret, rehearse
from storage.errors import AccessDenied, Conflict, Invalid, NotFound, StorageError
from tests.support.processes import unused_port


def settings(**chosen: Any) -> ServeSettings:
    return ServeSettings(store="memory://", **chosen)


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
        await rehearse(settings(tcp=(host, 0), unix=path), "mine")
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
    await rehearse(settings(tcp=("127.0.0.1", port)), "mine")


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
        await rehearse(settings(tcp=tcp, unix=unix), "mine")


async def test_the_ports_for_people_are_looked_at_too(taken: int) -> None:
    for place in (settings(metrics=("127.0.0.1", taken)), settings(dashboard=("127.0.0.1", taken))):
        with pytest.raises(Conflict, match=f"port {taken} on 127.0.0.1 is in use"):
            await rehearse(place, "mine")
        await rehearse(place, "mine", Listening(frozenset((taken,))))  # its predecessor's, which is about to end


async def test_another_address_for_a_port_that_is_held_is_tried(taken: int) -> None:
    """The address may be one that this machine has not."""
    with pytest.raises(Conflict, match="cannot be listened on"):
        await rehearse(settings(tcp=("192.0.2.1", taken)), "mine", Listening(frozenset((taken,))))


async def test_a_pid_file_that_others_could_exchange(work: Path) -> None:
    os.chmod(work, 0o777)
    with pytest.raises(AccessDenied, match=r"pid file .* would not be safe"):
        await rehearse(settings(pid_file=work / "pid"), "mine")
    assert os.listdir(work) == []
    await rehearse(settings(pid_file=work / "not made yet" / "pid"), "mine")


async def test_a_secret_of_the_dashboard_that_would_be_refused(work: Path) -> None:
    """Seen: the old server had stopped when the new one refused it, and nobody served."""
    wanted = settings(dashboard=("127.0.0.1", 0), state_folder=work / "state")
    await rehearse(wanted, "mine")
    assert not (work / "state").exists()
    secret = dashboard_secret(wanted)
    secret.parent.mkdir()
    for content, mode, kind, sentence in (
        (bytes(32), 0o644, AccessDenied, "other users may read"),
        (bytes(31), 0o600, Invalid, "holds no secret"),
    ):
        secret.write_bytes(content)
        secret.chmod(mode)
        with pytest.raises(kind, match=sentence):
            await rehearse(wanted, "mine")
        await rehearse(settings(state_folder=work / "state"), "mine")
        assert secret.read_bytes() == content
    secret.unlink()
    secret.symlink_to(work / "elsewhere")
    with pytest.raises(AccessDenied, match="is a link"):
        await rehearse(wanted, "mine")
    secret.unlink()
    secret.write_bytes(b"")
    secret.chmod(0o600)
    await rehearse(wanted, "mine")
    assert secret.read_bytes() == b"", "one that a crash cut short is made anew, at the start"


def test_one_that_stands_by_holds_what_it_listens_on_and_its_neighbour(work: Path) -> None:
    own, beside = Listening(frozenset((9100,))), Listening(frozenset((10810,)), work / "socket")
    assert own.and_of(beside) == Listening(frozenset((9100, 10810)), work / "socket")


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        ({"create": (("small", 2), ("large", 1), ("new", 5)), "exports": ("small@snapshot", "new", "large")}, None),
        ({"create": (("small", 3),)}, Conflict),
        ({"exports": ("small", "nobodys")}, NotFound),
        ({"default_export": "nobodys"}, NotFound),
        ({"default_export": "large", "exports": ("small",)}, Invalid),
    ],
)
def test_devices_that_could_not_be_made_or_served(wanted: dict[str, Any], kind: type[StorageError] | None) -> None:
    """One that was made larger since it was asked for is the one that was asked for."""
    sizes = {"small": 2, "large": 7}
    if kind is None:
        check_devices(settings(**wanted), sizes)
    else:
        with pytest.raises(kind):
            check_devices(settings(**wanted), sizes)
