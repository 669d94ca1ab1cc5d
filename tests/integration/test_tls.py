"""TLS of the real program: certificates made as the README makes them, and other people's clients."""

import itertools
import json
import os
import signal
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.certificates import Authority, write_folder
from tests.support.commands import SYSTEM_PYTHON, run
from tests.support.nbd import Client
from tests.support.processes import until
from tests.support.program import REPOSITORY, NotListening, Server
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest

MakeServer = Callable[..., Server]

MIB = 1 << 20

SAY_DISC_WITH_READS_UNDER_WAY = """
import nbd, sys
h = nbd.NBD()
h.set_uri_allow_local_file(True)
h.connect_uri(sys.argv[1])
h.pwrite(b"x" * 65536, 0)
buffers = [nbd.Buffer(65536) for _ in range(32)]
cookies = [h.aio_pread(buffer, 0) for buffer in buffers]
h.aio_disconnect()
while not (h.aio_is_dead() or h.aio_is_closed()):
    h.poll(-1)
assert all(h.aio_command_completed(cookie) for cookie in cookies)
assert all(buffer.to_bytearray() == b"x" * 65536 for buffer in buffers)
"""


@pytest.fixture
def pki(work: Path) -> Path:
    folder = work / "pki"
    write_folder(folder, Authority(), client="backup.example.com")
    return folder


@pytest.fixture
def make(local_store: StoreUnderTest, make_server: MakeServer, pki: Path) -> MakeServer:
    """Servers with TLS."""

    def build(mode: str, *arguments: str, create: dict[str, str] | None = None) -> Server:
        given = ["--tls", mode, "--tls-certificates", str(pki), *arguments]
        return make_server(local_store, create=create or {"disk": "64MiB"}, arguments=given)

    return build


def uris(server: Server, pki: Path) -> list[str]:
    """Over TCP and over the Unix socket."""
    return [
        f"nbds://localhost:{server.port}/disk?tls-certificates={pki}",
        f"nbds+unix:///disk?socket={server.socket}&tls-certificates={pki}&tls-hostname=localhost",
    ]


def context(pki: Path, *, certificate: bool = True) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=pki / "ca-cert.pem")
    if certificate:
        made.load_cert_chain(pki / "client-cert.pem", pki / "client-key.pem")
    return made


def test_clients_of_libnbd_and_qemu(make: MakeServer, pki: Path, work: Path) -> None:
    require("nbdinfo", "nbdcopy", "qemu-img")
    server = make("require", "--tls-verify-peer")
    server.start()
    assert server.announced.startswith(f"nbds://127.0.0.1:{server.port}/disk\t")
    assert " -cacertfile ca-cert.pem -certfile client-cert.pem -keyfile client-key.pem" in server.announced
    image, back = work / "image", work / "back"
    image.write_bytes(os.urandom(8 * MIB) + bytes(8 * MIB) + os.urandom(48 * MIB))
    for uri in uris(server, pki):
        report = json.loads(run("nbdinfo", "--json", uri))
        assert report["TLS"] is True
        for connections in ("1", "4"):
            run("nbdcopy", "-C", connections, image, uri)
            run("nbdcopy", "-C", connections, uri, back)
            assert back.read_bytes() == image.read_bytes()
            back.unlink()
    target = f"driver=nbd,host=localhost,port={server.port},export=disk,tls-creds=tls0"
    credentials = f"tls-creds-x509,id=tls0,dir={pki},endpoint=client"
    run(
        "qemu-img",
        "compare",
        "--object",
        credentials,
        "--image-opts",
        f"driver=raw,file.filename={image}",
        target,
    )
    run("nbdinfo", server.uri(), status=1)


def test_the_documented_way_makes_certificates(
    local_store: StoreUnderTest, make_server: MakeServer, work: Path
) -> None:
    require("openssl", "nbdinfo")
    lines = (REPOSITORY / "docs" / "tls.md").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("    EC="))
    script = "\n".join(itertools.takewhile(lambda line: line.startswith("    "), lines[first:]))
    made = work / "made"
    made.mkdir()
    run("sh", "-ec", script.replace("storage.example.com", "localhost"), cwd=made)
    security = ["--tls", "require", "--tls-certificates", str(made), "--tls-verify-peer"]
    server = make_server(local_store, create={"disk": "1M"}, arguments=security)
    server.start()
    run("nbdinfo", f"nbds://localhost:{server.port}/disk?tls-certificates={made}")


def test_replies_behind_disc_reach_libnbd(make: MakeServer, pki: Path) -> None:
    """libnbd ends its side with close_notify behind DISC."""
    require("nbdsh")
    server = make("on")
    server.start()
    for uri in uris(server, pki):
        run(SYSTEM_PYTHON, "-c", SAY_DISC_WITH_READS_UNDER_WAY, uri)


def test_on_offers_and_require_requires(make: MakeServer, pki: Path) -> None:
    require("nbdinfo")
    server = make("on")
    server.start()
    assert server.announced.startswith("nbd://")
    run("nbdinfo", server.uri())
    for uri in uris(server, pki):
        run("nbdinfo", uri)
    without = pki.parent / "without"
    write_folder(without, Authority("another authority"))
    run("nbdinfo", f"nbds://localhost:{server.port}/disk?tls-certificates={without}", status=1)


def test_run_is_told_to_use_tls(local_store: StoreUnderTest, pki: Path, host: object) -> None:
    from tests.support.program import Host

    assert isinstance(host, Host)
    done = host.run(
        "serve", local_store.location, "--create", "disk=1M", "--tls", "require", "--tls-certificates", str(pki),
        "--run", "echo $uri",
    )  # fmt: skip
    assert done.stdout.startswith("nbds+unix:///disk?socket=")


def test_a_hangup_reads_certificates_again_and_drops_nobody(make: MakeServer, pki: Path) -> None:
    server = make("require")
    server.start()
    assert server.port is not None
    address = ("127.0.0.1", server.port)
    before = Client(address, "disk", tls=context(pki))
    (pki / "server-key.pem").write_text("nonsense")
    server.send(signal.SIGHUP)
    until(lambda: "certificates_not_reloaded" in server.said(), seconds=60, what="the refusal")
    (line,) = (line for line in server.said().splitlines() if "certificates_not_reloaded" in line)
    assert "server-key.pem is not a private key in PEM" in line
    Client(address, "disk", tls=context(pki)).disconnect()
    old = context(pki)
    write_folder(pki, Authority("the next authority"))
    server.send(signal.SIGHUP)
    until(lambda: "certificates_reloaded" in server.said(), seconds=60, what="the new certificates")
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(address, "disk", tls=old)
    Client(address, "disk", tls=context(pki)).disconnect()
    before.write(0, b"x" * 4096)
    assert before.read(0, 4096) == b"x" * 4096
    before.disconnect()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--tls", "on"], 2, "--tls on or require and --tls-certificates need each other"),
        (["--tls-certificates", "."], 2, "--tls on or require and --tls-certificates need each other"),
        (["--tls-verify-peer"], 2, "--tls-verify-peer needs --tls require"),
        (["--tls", "on", "--tls-certificates", ".", "--tls-verify-peer"], 2, "clients get in without TLS, and so"),
        (["--tls", "on", "--tls-certificates", "nowhere"], 2, "server-cert.pem is missing: TLS needs it, as PEM"),
        (["--access", "nowhere"], 2, "nowhere cannot be read: No such file or directory"),
        (["--bind", "0.0.0.0"], 2, "use --tls require, or say --allow-plaintext"),
        (["--bind", "::"], 2, "use --tls require, or say --allow-plaintext"),
    ],
)
def test_it_does_not_start_like_that(
    local_store: StoreUnderTest, make_server: MakeServer, arguments: list[str], status: int, message: str
) -> None:
    """One sentence, and the store is not made."""
    server = make_server(local_store, create={"disk": "1M"}, arguments=arguments)
    with pytest.raises(NotListening) as refused:
        server.start()
    assert refused.value.status == status
    assert message in refused.value.output
    assert not Path(local_store.location).exists() or not list(Path(local_store.location).iterdir())


@pytest.mark.parametrize("arguments", [["--allow-plaintext"], ["--tls", "require", "--tls-certificates", "pki"]])
def test_other_machines_are_served_when_that_is_said(
    local_store: StoreUnderTest, make_server: MakeServer, pki: Path, arguments: list[str]
) -> None:
    server = make_server(local_store, create={"disk": "1M"}, arguments=["--bind", "0.0.0.0", *arguments])
    server.start()
