"""Another user of the host: what he can put in the way of a command or a server, and what he gets for it."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import keys
from tests.support.leftovers import prefix_elsewhere
from tests.support.other_users import NEIGHBOUR, VICTIM, impostor, python, run_as
from tests.support.processes import end
from tests.support.program import EXIT_FENCED, REPOSITORY, Host, Server, without_waits
from tests.support.stores import StoreUnderTest

EXIT_DENIED = 13
OLD, NEW = "the old secret", "the new secret"


@pytest.fixture
def crowded(work: Path) -> Path:
    """A folder like /tmp, with a home for the victim beside it."""
    python()
    work.chmod(0o711)
    folder = work / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    for name, user in (("home", VICTIM), ("other", NEIGHBOUR)):
        (work / name).mkdir(mode=0o700)
        os.chown(work / name, user, user)
    return folder


def victims_environment(work: Path, **variables: str) -> dict[str, str]:
    """Of a user who logged in without a session manager: no XDG_RUNTIME_DIR."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{REPOSITORY}:{python()[1]}",
        "NBDSERVER_PASSWORD": OLD,
        "HOME": str(work / "home"),
        "TMPDIR": str(work / "tmp"),
        "NBDSERVER_STATE_FOLDER": str(work / "home" / "state"),
        "NBDSERVER_NEW_PASSWORD": NEW,
        **variables,
    }


def as_victim(work: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    environment = victims_environment(work, **variables)
    done = run_as(VICTIM, python()[0], "-m", "nbdserver", *arguments, environment=environment, cwd=work / "home")
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + without_waits(done.stderr)


def store_of_victim(work: Path) -> Path:
    """Where he makes one: as if he had been interrupted, with keys under a password that costs next to nothing."""
    store = work / "home" / "store"
    keys.prepare(str(store), {}, OLD)
    for path in (store, *store.rglob("*")):
        os.chown(path, VICTIM, VICTIM)
    return store


def socket_name(store: Path) -> str:
    return f"{hashlib.sha256(store.as_uri().encode()).hexdigest()[:24]}.sock"


def test_nobody_gets_a_password_by_waiting_where_the_socket_would_be(crowded: Path, work: Path) -> None:
    store, heard = store_of_victim(work), work / "other" / "heard"
    assert as_victim(work, "serve", str(store), "--run", "true")[0] == 0
    waiting = crowded / f"nbdserver-{VICTIM}"
    waiting.mkdir()
    os.chown(waiting, NEIGHBOUR, NEIGHBOUR)
    with impostor(NEIGHBOUR, waiting / socket_name(store), heard):
        status, said = as_victim(work, "password", "change", "--store", str(store))
        assert not heard.exists(), heard.read_text()
        assert status == 0, said
        assert as_victim(work, "device", "list", "--store", str(store), NBDSERVER_PASSWORD=NEW)[0] == 0


@pytest.mark.parametrize("folder", ["theirs", "everybodys", "link"])
def test_a_runtime_folder_that_others_can_write_to_is_not_trusted(crowded: Path, work: Path, folder: str) -> None:
    store, heard = store_of_victim(work), work / "other" / "heard"
    assert as_victim(work, "serve", str(store), "--run", "true")[0] == 0
    runtime = target = crowded / "run"
    if folder == "link":
        target = work / "other" / "run"
        (work / "other").chmod(0o711)
        runtime.symlink_to(target)
        os.chown(runtime, NEIGHBOUR, NEIGHBOUR, follow_symlinks=False)
    target.mkdir()
    os.chown(target, VICTIM if folder == "everybodys" else NEIGHBOUR, -1)
    target.chmod(0o777 if folder == "everybodys" else 0o755)
    with impostor(NEIGHBOUR, target / socket_name(store), heard):
        for command in (("password", "change"), ("device", "list"), ("status",)):
            status, said = as_victim(work, *command, "--store", str(store), NBDSERVER_RUNTIME_FOLDER=str(runtime))
            assert status == EXIT_DENIED, said
            assert str(runtime) in said
        status, said = as_victim(work, "serve", str(store), "--run", "true", NBDSERVER_RUNTIME_FOLDER=str(runtime))
        assert status == EXIT_DENIED, said
        assert "NBDSERVER_RUNTIME_FOLDER" in said
    assert not heard.exists(), heard.read_text()


def test_root_does_not_trust_a_socket_in_the_folder_of_another_user(
    crowded: Path, work: Path, host: Host, local_store: StoreUnderTest
) -> None:
    """He made that folder himself; a folder that root's service manager made for a service is another thing."""
    host.prepare(local_store.location)
    host.run("serve", local_store.location, "--run", "true")
    heard, runtime = work / "other" / "heard", work / "other" / "run"
    runtime.mkdir(mode=0o755)
    os.chown(runtime, NEIGHBOUR, NEIGHBOUR)
    path = runtime / socket_name(Path(local_store.location.removeprefix("file://")))
    with impostor(NEIGHBOUR, path, heard):
        done = host.run(
            *("password", "change", "--store", local_store.location),
            status=EXIT_DENIED,
            NBDSERVER_NEW_PASSWORD=NEW,
            NBDSERVER_RUNTIME_FOLDER=str(runtime),
        )
    assert f"belongs to user {NEIGHBOUR}" in done.stderr
    assert not heard.exists(), heard.read_text()


def test_a_server_without_a_session_is_found_by_its_own_user_alone(crowded: Path, work: Path) -> None:
    store = store_of_victim(work)
    status, said = as_victim(
        work,
        *("serve", str(store), "--create", "a=1M", "--unix", str(work / "home" / "s")),
        *("--run", f"{python()[0]} -m nbdserver device list --store {store} --json"),
    )
    assert (status, '"client_count": 0' in said) == (0, True), said
    assert not [path for path in crowded.rglob("*") if "nbdserver" in path.name]


def test_another_user_is_refused_by_the_server_whatever_the_mode_of_its_socket(
    crowded: Path, work: Path, local_store: StoreUnderTest, make_server: Callable[..., Server]
) -> None:
    server = make_server(local_store, create={"a": "1M"}, tcp=False)
    server.start()
    (path,) = (work / "run").glob("*.sock")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o666)
    (work / "run").chmod(0o711)
    ask = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        f"s.connect({str(path)!r})\n"
        "s.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
        "print(s.recv(65536).decode())\n"
    )
    environment = victims_environment(work)
    done = run_as(VICTIM, python()[0], "-c", ask, environment=environment, cwd=work / "home")
    assert "AccessDenied" in done.stdout, done.stdout + done.stderr
    assert "url" not in done.stdout
    assert "admin_client_refused" in server.said()


def test_a_lock_that_another_user_holds_keeps_no_server_from_starting(crowded: Path, work: Path) -> None:
    hold = (
        "import fcntl, os, signal\n"
        f"fcntl.flock(os.open({str(crowded)!r}, os.O_RDONLY), fcntl.LOCK_EX)\n"
        "print('held', flush=True); signal.pause()\n"
    )
    with subprocess.Popen(
        [python()[0], "-c", hold], user=NEIGHBOUR, group=NEIGHBOUR, extra_groups=[], stdout=subprocess.PIPE, cwd="/"
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            arguments = ("serve", str(work / "home" / "store"), "--create", "a=1M", "--unix", str(crowded / "s"))
            status, said = as_victim(work, *arguments, "--run", "true")
            assert status == 0, said
        finally:
            holder.kill()
    assert os.listdir(crowded) == []


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_socket_that_others_could_exchange_is_not_made(crowded: Path, work: Path, mode: int) -> None:
    crowded.chmod(mode)
    store = str(work / "home" / "store")
    status, said = as_victim(work, "serve", store, "--create", "a=1M", "--unix", str(crowded / "s"), "--run", "true")
    assert status == EXIT_DENIED, said
    assert f"other users can write to {crowded}" in said


@pytest.fixture
def service(crowded: Path, work: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A server of the victim's, as a service would run: its own folders, and a store of its own."""
    store = store_of_victim(work)
    log = (work / "service.log").open("wb")
    process = subprocess.Popen(
        [python()[0], "-m", "nbdserver", "serve", str(store), "--create", "a=1M", "--unix", str(work / "home" / "s")],
        user=VICTIM,
        group=VICTIM,
        extra_groups=[],
        env=victims_environment(work),
        cwd=work / "home",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), (work / "service.log").read_text()
        yield process
    finally:
        end(process)
        log.close()


def test_root_finds_the_server_of_a_store_whoever_runs_it(
    service: "subprocess.Popen[bytes]", work: Path, host: Host
) -> None:
    store = ("--store", str(work / "home" / "store"))
    host.run("device", "create", "b", "1M", *store)
    status = host.json("status", *store)
    assert isinstance(status, dict)
    assert (status["pid"], status["exports"]) == (service.pid, ["a", "b"])
    # A password is not told to another user, though the server has the store open.
    done = host.run("password", "change", *store, status=EXIT_DENIED, NBDSERVER_NEW_PASSWORD=NEW)
    assert done.stderr == "nbdserver: the server of this store is user nobody's: change its passwords as that user\n"
    assert as_victim(work, "device", "list", *store)[0] == 0


def test_a_store_that_another_user_serves_is_not_called_served_elsewhere(
    service: "subprocess.Popen[bytes]", work: Path, host: Host
) -> None:
    """Neither where root would serve it itself, nor to a user who may see the store and not its server."""
    store = work / "home" / "store"
    done = host.run("serve", str(store), "--run", "true", status=EXIT_FENCED, NBDSERVER_PASSWORD=OLD)
    assert f"another server of this host (process {service.pid} of user nobody) holds" in done.stderr
    assert "--take-over" not in done.stderr
    (work / "home").chmod(0o711)
    store.chmod(0o755)
    environment = {**victims_environment(work), "HOME": str(work / "other"), "NBDSERVER_STATE_FOLDER": "/nowhere"}
    command = (python()[0], "-m", "nbdserver", "device", "create", "c", "1M", "--store", str(store))
    refused = run_as(NEIGHBOUR, *command, environment=environment, cwd=work / "other")
    assert refused.returncode == EXIT_DENIED, refused.stderr
    sentence = f"the server of this store is process {service.pid} of user nobody: ask as that user, or as root"
    assert refused.stderr == f"nbdserver: {sentence}\n"


def test_a_server_of_another_user_that_was_killed_is_not_called_elsewhere(
    service: "subprocess.Popen[bytes]", work: Path, host: Host
) -> None:
    service.kill()
    service.wait()
    store = work / "home" / "store"
    command = ("device", "create", "b", "1M", "--store", str(store))
    done = host.run(*command, status=EXIT_FENCED, NBDSERVER_PASSWORD=OLD)
    assert "a process of user nobody on this host that is gone: start it again as that user" in done.stderr
    assert as_victim(work, *command) == (0, "b: created, 1 MiB\n")


def test_what_root_changes_at_rest_the_owner_of_the_store_can_use(crowded: Path, work: Path, host: Host) -> None:
    """Also what it remembers in a state folder that belongs to that user."""
    store = ("--store", str(store_of_victim(work)))
    assert as_victim(work, "serve", store[1], "--run", "true")[0] == 0
    done = host.run("device", "create", "b", "1M", *store, NBDSERVER_PASSWORD=OLD)
    assert done.stderr == ""
    owners = {path.lstat().st_uid for path in Path(store[1]).rglob("*")}
    assert owners == {VICTIM}
    assert as_victim(work, "device", "create", "c", "1M", *store)[0] == 0
    with tempfile.TemporaryDirectory(dir="/var/lib", prefix=prefix_elsewhere()) as made:
        os.chmod(made, 0o700)
        os.chown(made, VICTIM, VICTIM)
        for number in range(2):
            remembered = {"NBDSERVER_STATE_FOLDER": made}
            root = ("device", "create", f"r{number}", "1M", *store, "--state-folder", made)
            host.run(*root, NBDSERVER_PASSWORD=OLD)
            assert as_victim(work, "device", "create", f"v{number}", "1M", *store, **remembered)[0] == 0
            assert {path.lstat().st_uid for path in Path(made).rglob("*")} == {VICTIM}
