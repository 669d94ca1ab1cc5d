"""This file knows the server's certificates: how a folder of them becomes a TLS context, and whom a client's
certificate names.

    ca-cert.pem       who signs clients' certificates; needed with `verify_peer`, checked if it is there
    ca-crl.pem        certificates that were revoked; optional
    server-cert.pem   the server's own certificate, with those between it and the authority
    server-key.pem    its key, without a passphrase

That is how nbdkit, libnbd and QEMU lay such a folder out. TLS is 1.2 or later. Whatever is wrong with a file is
one sentence that names it, and `Credentials.reload` changes everything or nothing.
"""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from storage.env import Env
from storage.errors import AccessDenied, Invalid

CA_CERTIFICATE = "ca-cert.pem"
REVOKED = "ca-crl.pem"
SERVER_CERTIFICATE = "server-cert.pem"
SERVER_KEY = "server-key.pem"


class Credentials:
    """The certificates of a folder, for all connections. `context` is what a new connection is secured with."""

    def __init__(self, folder: Path, *, verify_peer: bool, env: Env) -> None:
        """Invalid, AccessDenied: the folder cannot be used."""
        self.verify_peer = verify_peer
        self._folder = folder
        self._env = env
        self.context = self._load()

    def reload(self) -> None:
        """Read the folder again. Raises as the constructor does; then the old certificates stay."""
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        now = datetime.fromtimestamp(self._env.wall_clock(), UTC)
        context = _context(self._folder, now)
        authority = self._folder / CA_CERTIFICATE
        if self.verify_peer or authority.exists():
            for certificate in _certificates(authority):
                _check_dates(authority, certificate, now)
        if self.verify_peer:
            _verify_clients(context, self._folder, now)
        return context


def names_in_certificate(tls: ssl.SSLObject) -> tuple[str, ...]:
    """The names in a client's verified certificate: common names of the subject, then alternative names of the
    kinds DNS, URI and e-mail. Empty without a certificate, or where none is verified."""
    # typeshed knows neither the depth of the subject nor what is in the alternative names.
    certificate: dict[str, Any] = tls.getpeercert() or {}
    subject = certificate.get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    names += [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI", "email")]
    return tuple(dict.fromkeys(names))


def _context(folder: Path, now: datetime) -> ssl.SSLContext:
    """A context with the server's own certificate."""
    chain, key = folder / SERVER_CERTIFICATE, folder / SERVER_KEY
    _check_dates(chain, _certificates(chain)[0], now)
    _check_key(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A connection lasts for days, so tickets to resume one are good for nothing but to come back with a certificate
    # that was revoked. Renegotiation would let a client make the server compute for ever.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    try:
        context.load_cert_chain(chain, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Invalid(f"{key} is not the key of {chain.name}") from error
        raise Invalid(f"{chain} cannot be used: {_reason(error)}") from error
    return context


def _verify_clients(context: ssl.SSLContext, folder: Path, now: datetime) -> None:
    """Have clients show a certificate that the authority signed and did not revoke."""
    authority, revoked = folder / CA_CERTIFICATE, folder / REVOKED
    try:
        context.load_verify_locations(authority)
        if revoked.exists():
            _check_revoked(revoked, now)
            context.load_verify_locations(revoked)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    except ssl.SSLError as error:
        raise Invalid(f"{authority} cannot be used: {_reason(error)}") from error
    context.verify_mode = ssl.CERT_REQUIRED


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Invalid(f"{path} is missing: TLS needs it, as PEM") from None
    except PermissionError:
        raise AccessDenied(f"{path} may not be read by this user") from None
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from error


def _certificates(path: Path) -> list[x509.Certificate]:
    """At least one."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise Invalid(f"{path} is not a certificate in PEM") from None


def _check_dates(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    if certificate.not_valid_after_utc < now:
        raise Invalid(f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}: renew it")
    if certificate.not_valid_before_utc > now:
        raise Invalid(f"{path} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}: is the clock right?")


def _check_key(path: Path) -> None:
    """Find out here what is wrong with a key, since OpenSSL would ask the terminal for a passphrase."""
    try:
        serialization.load_pem_private_key(_read(path), None)
    except TypeError:
        raise Invalid(f"{path} has a passphrase: store the key without one, readable by this user only") from None
    except ValueError:
        raise Invalid(f"{path} is not a private key in PEM") from None


def _check_revoked(path: Path, now: datetime) -> None:
    """An expired list would refuse every client."""
    try:
        revoked = x509.load_pem_x509_crl(_read(path))
    except ValueError:
        raise Invalid(f"{path} is not a list of revoked certificates in PEM") from None
    until = revoked.next_update_utc
    if until is not None and until < now:
        raise Invalid(f"{path} was to be replaced by {until:%Y-%m-%d}: have the authority make a new one")


def _reason(error: ssl.SSLError) -> str:
    """What OpenSSL says, in words."""
    return (error.reason or str(error)).replace("_", " ").lower()
