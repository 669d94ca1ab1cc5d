"""Certificates: what a folder must hold, what is said when it does not, and whom a certificate names."""

import datetime
import ipaddress
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nbdserver.tls import Credentials, names_in_certificate
from storage.env import RealEnv
from storage.errors import AccessDenied, Invalid
from tests.nbdserver.inside import files_of
from tests.support.certificates import Authority, write, write_folder, write_key

AUTHORITY = Authority()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path, AUTHORITY)
    return tmp_path


def credentials(folder: Path, *, verify_peer: bool = True) -> Credentials:
    env = RealEnv()
    try:
        return Credentials(folder, verify_peer=verify_peer, env=env)
    finally:
        env.close()


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """A TLS handshake in memory; the server's side of it."""
    return shake_hands_of_both(server, client)[0]


def shake_hands_of_both(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """The server's and the client's side; the client would like to resume a session."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    done = set()
    for _ in range(10):
        for side in (theirs, ours):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    assert len(done) == 2
    return ours, theirs


def client_of(folder: Path, *, certificate: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "ca-cert.pem")
    if certificate:
        context.load_cert_chain(folder / "client-cert.pem", folder / "client-key.pem")
    return context


def test_a_client_with_a_certificate(folder: Path) -> None:
    tls = shake_hands(credentials(folder).make_context(), client_of(folder))
    assert tls.version() == "TLSv1.3"
    assert names_in_certificate(tls) == ("a client",)


def test_without_verification_nobody_is_named(folder: Path) -> None:
    tls = shake_hands(credentials(folder, verify_peer=False).make_context(), client_of(folder))
    assert names_in_certificate(tls) == ()


def test_every_kind_of_name(folder: Path) -> None:
    names = (
        x509.DNSName("backup.example.com"),
        x509.UniformResourceIdentifier("urn:host:backup"),
        x509.RFC822Name("backup@example.com"),
        x509.DNSName("a client"),
    )
    write_folder(folder, AUTHORITY, alternatives=names)
    tls = shake_hands(credentials(folder).make_context(), client_of(folder))
    assert names_in_certificate(tls) == (
        "a client",
        "backup.example.com",
        "urn:host:backup",
        "backup@example.com",
    )


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(folder: Path, version: ssl.TLSVersion) -> None:
    client = client_of(folder)
    client.minimum_version = client.maximum_version = version
    assert shake_hands(credentials(folder).make_context(), client).version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_what_is_older_than_1_2_is_refused(folder: Path) -> None:
    client = client_of(folder)
    client.set_ciphers("DEFAULT@SECLEVEL=0")
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shake_hands(credentials(folder).make_context(), client)


def test_clients_that_are_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(credentials(folder).make_context(), client_of(folder, certificate=False))
    stranger = tmp_path_factory.mktemp("stranger")
    write_folder(stranger, Authority("another authority"))
    client = client_of(folder, certificate=False)
    client.load_cert_chain(stranger / "client-cert.pem", stranger / "client-key.pem")
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(credentials(folder).make_context(), client)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed(folder: Path, version: ssl.TLSVersion) -> None:
    """Who resumes one shows no certificate: an expired one went on reading and writing like that."""
    used = credentials(folder)
    client = client_of(folder)
    client.maximum_version = version
    session = None
    for _ in range(3):
        ours, theirs = shake_hands_of_both(used.make_context(), client, session=session)
        assert not ours.session_reused
        assert not theirs.session_reused
        assert ours.getpeercert(), "it was asked for its certificate each time"
        session = theirs.session


def test_files_that_change_count_when_they_are_read_again(folder: Path) -> None:
    """Not before: half of them may be new."""
    used = credentials(folder)
    client = client_of(folder)
    for path in folder.glob("server-*"):
        path.write_text("half written")
    shake_hands(used.make_context(), client)


# What is wrong with a folder


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def garbage(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")

    return spoil


def directory(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return spoil


def issued(days: float, begin: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        certificate, key = AUTHORITY.issue("localhost", days=days, begin=begin)
        write(folder / "server-cert.pem", certificate)
        write_key(folder / "server-key.pem", key)

    return spoil


def old_authority(folder: Path) -> None:
    write(folder / "ca-cert.pem", Authority(days=-1, begin=-2).certificate)


def other_key(folder: Path) -> None:
    write_key(folder / "server-key.pem", AUTHORITY.issue("other")[1])


def locked_key(folder: Path) -> None:
    certificate, key = AUTHORITY.issue("localhost")
    write(folder / "server-cert.pem", certificate)
    write_key(folder / "server-key.pem", key, passphrase=b"secret")


def revoked_list(data: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "ca-crl.pem").write_bytes(data)

    return spoil


YESTERDAY = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)).date().isoformat()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        *((remove(name), f"{name} is missing") for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem")),
        *((garbage(name), f"{name} is not a certificate") for name in ("ca-cert.pem", "server-cert.pem")),
        (garbage("server-key.pem"), "server-key.pem is not a private key in PEM"),
        (garbage("ca-crl.pem"), "ca-crl.pem is not a list of revoked certificates"),
        (revoked_list(AUTHORITY.revoke(days=-1)), f"ca-crl.pem was to be replaced by {YESTERDAY}"),
        (revoked_list(AUTHORITY.revoke(begin=1)), "ca-crl.pem is not valid before .*: is the clock right"),
        (
            revoked_list(AUTHORITY.revoke(days=-1) + Authority("another").revoke()),
            f"ca-crl.pem was to be replaced by {YESTERDAY}",
        ),
        (directory("server-cert.pem"), "server-cert.pem cannot be read: Is a directory"),
        (issued(days=-1, begin=-2), f"server-cert.pem expired on {YESTERDAY}: renew it"),
        (issued(days=2, begin=1), "server-cert.pem is not valid before .*: is the clock right"),
        (old_authority, f"ca-cert.pem expired on {YESTERDAY}"),
        (other_key, "server-key.pem is not the key of server-cert.pem"),
        (locked_key, "server-key.pem has a passphrase: store the key without one"),
    ],
)
def test_a_folder_that_cannot_be_used(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder)
    with pytest.raises(Invalid, match=message):
        credentials(folder)


def test_no_authority_is_needed_where_nobody_is_verified(folder: Path) -> None:
    remove("ca-cert.pem")(folder)
    credentials(folder, verify_peer=False)
    garbage("ca-cert.pem")(folder)
    with pytest.raises(Invalid, match="ca-cert"):
        credentials(folder, verify_peer=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become nobody")
def test_a_key_that_may_not_be_read(folder: Path) -> None:
    for above in folder.parents[:-2]:  # but / and /tmp
        above.chmod(above.stat().st_mode | 0o011)
    folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(AccessDenied, match=r"server-key.pem may not be read by this user"):
            credentials(folder)
    finally:
        os.seteuid(0)


def test_what_ends_first_is_told(folder: Path) -> None:
    """With a list of revoked certificates that is over every client is refused, as with a certificate that is, and
    with one of those between the server's and the authority's.
    """
    now = datetime.datetime.now(datetime.UTC).timestamp()

    def days() -> tuple[str, int]:
        expiry = credentials(folder).expiry()
        return Path(expiry["path"]).name, round((expiry["until"] - now) / 86400)

    assert days() == ("server-cert.pem", 20)
    with (folder / "server-cert.pem").open("ab") as chain:
        chain.write(Authority("between", days=15).certificate.public_bytes(serialization.Encoding.PEM))
    assert days() == ("server-cert.pem", 15)
    (folder / "ca-crl.pem").write_bytes(AUTHORITY.revoke(days=10))
    assert days() == ("ca-crl.pem", 10)
    (folder / "ca-crl.pem").write_bytes(AUTHORITY.revoke(days=5) + Authority("another").revoke(days=2))
    assert days() == ("ca-crl.pem", 5)
    (folder / "ca-crl.pem").write_bytes(AUTHORITY.revoke(days=-1) + AUTHORITY.revoke(days=7))
    assert days() == ("ca-crl.pem", 7)


@pytest.mark.parametrize("spoil", [remove("server-key.pem"), other_key, old_authority])
def test_a_reload_changes_all_or_nothing(folder: Path, spoil: Callable[[Path], None]) -> None:
    env = RealEnv()
    used = Credentials(folder, verify_peer=True, env=env)
    before = files_of(used)
    spoil(folder)
    with pytest.raises(Invalid):
        used.reload()
    assert files_of(used) is before
    write_folder(folder, AUTHORITY)
    used.reload()
    assert files_of(used) is not before
    env.close()


@pytest.mark.parametrize(
    ("names", "address", "called"),
    [
        (("localhost", "127.0.0.1"), "127.0.0.1", "127.0.0.1"),
        (("localhost", "127.0.0.1"), "::1", "localhost"),
        (("localhost", "127.0.0.1"), "0.0.0.0", None),
        (("*.example.com", "localhost", "disks.example.com"), "0.0.0.0", "disks.example.com"),
        (("disks.example.com",), "10.0.0.5", "disks.example.com"),
        (("disks.example.com", "10.0.0.5"), "10.0.0.5", "10.0.0.5"),
        (("disks.example.com",), "127.0.0.1", None),
        (("10.0.0.5",), "::", "10.0.0.5"),
        ((), "0.0.0.0", None),
    ],
)
def test_what_a_client_must_call_the_server(
    folder: Path, names: tuple[str, ...], address: str, called: str | None
) -> None:
    """By the certificate: a client that verifies it refuses every other name."""
    alternatives = [
        x509.IPAddress(ipaddress.ip_address(name)) if name[-1].isdigit() else x509.DNSName(name) for name in names
    ]
    write_folder(folder, AUTHORITY, server=alternatives)
    assert credentials(folder).name_for(address) == called
