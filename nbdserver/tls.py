"""The server's certificates, and nobody else's: how a folder of them becomes a TLS context, and whom a client's
certificate names.

    ca-cert.pem       who signs clients' certificates; needed with `verify_peer`, checked if it is there
    ca-crl.pem        certificates that were revoked; optional
    server-cert.pem   the server's own certificate, with those between it and the authority
    server-key.pem    its key, without a passphrase

That is how nbdkit, libnbd and QEMU lay such a folder out. TLS is 1.2 or later. Whatever is wrong with a file is
one sentence that names it, and `Credentials.reload` changes everything or nothing.

No session is resumed: who resumes one shows no certificate, so one that has expired or was revoked since would count
on. In TLS 1.3 and with tickets that is an option. The sessions of TLS 1.2 that OpenSSL remembers by themselves it
remembers with the context, and `ssl` has no way to keep it from that; so each connection gets a context of its own
(0.5 ms), made of the bytes that were checked, not of the files as they are by then.
"""

import ipaddress
import os
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nbdserver.tls_files import CA_CERTIFICATE, REVOKED, SERVER_CERTIFICATE, SERVER_KEY
from storage.env import Env
from storage.errors import AccessDenied, Invalid


class _File:
    """The bytes of a file as they were when they were checked, for OpenSSL, which reads files only."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self.path = path
        self.content = _read(path)
        self._descriptor = os.memfd_create(path.name, os.MFD_CLOEXEC)
        with open(self._descriptor, "wb", closefd=False) as memory:
            memory.write(self.content)

    def __fspath__(self) -> str:
        return f"/proc/self/fd/{self._descriptor}"

    def __str__(self) -> str:
        return str(self.path)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class Credentials:
    """The certificates of a folder, for all connections."""

    def __init__(self, folder: Path, *, verify_peer: bool, env: Env) -> None:
        """Invalid, AccessDenied: the folder cannot be used."""
        self.verify_peer = verify_peer
        self._folder = folder
        self._env = env
        self._revokes = False
        """A list of revoked certificates is in force."""
        self._files: dict[str, _File] = {}
        self._expiry: dict[str, Any] = {}
        self.reload()

    def reload(self) -> None:
        """Read the folder again. Raises as the constructor does; then the old certificates stay."""
        files = self._read()
        self._context(files)
        self._files, self._revokes = files, REVOKED in files
        self._expiry = _expiry(files, datetime.fromtimestamp(self._env.wall_clock(), UTC))

    def make_context(self) -> ssl.SSLContext:
        """What one new connection is secured with."""
        return self._context(self._files)

    def make_page_context(self) -> ssl.SSLContext:
        """What a listener for browsers is secured with, which have no certificates: each connection gets those that
        were read last.
        """

        def newest(secured: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context_: ssl.SSLContext) -> None:
            secured.context = _context(self._files[SERVER_CERTIFICATE], self._files[SERVER_KEY])

        context = _context(self._files[SERVER_CERTIFICATE], self._files[SERVER_KEY])
        context.sni_callback = newest
        return context

    def _read(self) -> dict[str, _File]:
        """The files that count, each checked by itself."""
        now = datetime.fromtimestamp(self._env.wall_clock(), UTC)
        files = {name: _File(self._folder / name) for name in (SERVER_CERTIFICATE, SERVER_KEY)}
        chain = files[SERVER_CERTIFICATE]
        _check_dates(chain, _certificates(chain)[0], now)
        _check_key(files[SERVER_KEY])
        if self.verify_peer or (self._folder / CA_CERTIFICATE).exists():
            authority = files[CA_CERTIFICATE] = _File(self._folder / CA_CERTIFICATE)
            for certificate in _certificates(authority):
                _check_dates(authority, certificate, now)
        revoked = self._folder / REVOKED
        if self.verify_peer and revoked.exists():
            files[REVOKED] = _File(revoked)
            _check_revoked(files, now)
        elif self._revokes:
            raise Invalid(
                f"{revoked} is gone: certificates that it revoked would be taken again; put it back, or start the "
                "server anew without it"
            )
        return files

    def _context(self, files: dict[str, _File]) -> ssl.SSLContext:
        context = _context(files[SERVER_CERTIFICATE], files[SERVER_KEY])
        if self.verify_peer:
            _verify_clients(context, files[CA_CERTIFICATE], files.get(REVOKED))
        return context

    def expiry(self) -> dict[str, Any]:
        """The `path` of what expires first of the certificates in use and the list of revoked ones, and `until` when it
        is valid, seconds since 1970.
        """
        return self._expiry

    def name_for(self, address: str) -> str | None:
        """What the certificate calls a server that listens on this address, as far as it can be told: a client that
        verifies the server must use such a name. None: there is none.
        """
        found = _certificates(self._files[SERVER_CERTIFICATE])[0]
        try:
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return None
        addresses = [str(each) for each in names.get_values_for_type(x509.IPAddress)]
        hosts = [name for name in names.get_values_for_type(x509.DNSName) if not name.startswith("*")]
        if address in addresses:
            return address
        listens_on = ipaddress.ip_address(address)
        if listens_on.is_loopback:
            return "localhost" if "localhost" in hosts else None
        public = [name for name in hosts if name != "localhost"]
        public += [each for each in addresses if not ipaddress.ip_address(each).is_loopback]
        return next(iter(public), None)


def names_in_certificate(tls: ssl.SSLObject) -> tuple[str, ...]:
    """The names in a client's verified certificate: common names of the subject, then alternative names of the
    kinds DNS, URI and e-mail. Empty without a certificate, or where none is verified."""
    # typeshed knows neither the depth of the subject nor what is in the alternative names.
    certificate: dict[str, Any] = tls.getpeercert() or {}
    subject = certificate.get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    names += [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI", "email")]
    return tuple(dict.fromkeys(names))


def _context(chain: _File, key: _File) -> ssl.SSLContext:
    """A context with the server's own certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Renegotiation would let a client make the server compute for ever.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    try:
        context.load_cert_chain(chain, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Invalid(f"{key} is not the key of {chain.path.name}") from error
        raise Invalid(f"{chain} cannot be used: {_reason(error)}") from error
    return context


def _verify_clients(context: ssl.SSLContext, authority: _File, revoked: _File | None) -> None:
    """Have clients show a certificate that the authority signed and did not revoke."""
    try:
        context.load_verify_locations(authority)
        if revoked is not None:
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


def _certificates(file: _File) -> list[x509.Certificate]:
    """The certificates in a file, at least one. Invalid: there is none."""
    try:
        return x509.load_pem_x509_certificates(file.content)
    except ValueError:
        raise Invalid(f"{file} is not a certificate in PEM") from None


def _expiry(files: dict[str, _File], now: datetime) -> dict[str, Any]:
    """See `Credentials.expiry`. Of a chain every certificate counts, and a list of revoked ones as they do: when it is
    over, all clients are refused.
    """
    used = [
        (each.not_valid_after_utc, files[name])
        for name in (SERVER_CERTIFICATE, CA_CERTIFICATE)
        if name in files
        for each in _certificates(files[name])
    ]
    if REVOKED in files:
        for lists in _lists_that_count(files):
            ends = [each.next_update_utc for each in lists if each.last_update_utc <= now]
            used += [(max(until for until in ends if until), files[REVOKED])] if all(ends) else []
    until, file = min(used, key=lambda one: one[0])
    return {"path": str(file.path), "until": until.timestamp()}


def _check_dates(file: _File, certificate: x509.Certificate, now: datetime) -> None:
    if certificate.not_valid_after_utc < now:
        raise Invalid(f"{file} expired on {certificate.not_valid_after_utc:%Y-%m-%d}: renew it")
    if certificate.not_valid_before_utc > now:
        raise Invalid(f"{file} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}: is the clock right?")


def _check_key(file: _File) -> None:
    """Find out here what is wrong with a key, since OpenSSL would ask the terminal for a passphrase."""
    try:
        serialization.load_pem_private_key(file.content, None)
    except TypeError:
        raise Invalid(f"{file} has a passphrase: store the key without one, readable by this user only") from None
    except ValueError:
        raise Invalid(f"{file} is not a private key in PEM") from None


def _revoked(file: _File) -> list[x509.CertificateRevocationList]:
    """The lists in a file, at least one. Invalid: there is none."""
    head = b"-----BEGIN X509 CRL-----"
    try:
        return [x509.load_pem_x509_crl(head + each) for each in file.content.split(head)[1:] or [b""]]
    except ValueError:
        raise Invalid(f"{file} is not a list of revoked certificates in PEM") from None


def _lists_that_count(files: dict[str, _File]) -> Iterator[list[x509.CertificateRevocationList]]:
    """The lists of each authority that clients' certificates are verified against: of several, one that is valid is
    enough, and those of others are not looked at (OpenSSL, x509_vfy.c).
    """
    found = _revoked(files[REVOKED])
    for name in {certificate.subject for certificate in _certificates(files[CA_CERTIFICATE])}:
        if lists := [each for each in found if each.issuer == name]:
            yield lists


def _check_revoked(files: dict[str, _File], now: datetime) -> None:
    """An authority whose lists have expired, or are not valid yet, would have every client of it refused."""
    file = files[REVOKED]
    for lists in _lists_that_count(files):
        begun = [each for each in lists if each.last_update_utc <= now]
        if not begun:
            soonest = min(each.last_update_utc for each in lists)
            raise Invalid(f"{file} is not valid before {soonest:%Y-%m-%d %H:%M}: is the clock right?")
        ends = [each.next_update_utc for each in begun]
        until = max((end for end in ends if end is not None), default=now)
        if None not in ends and until < now:
            raise Invalid(f"{file} was to be replaced by {until:%Y-%m-%d}: have the authority make a new one")


def _reason(error: ssl.SSLError) -> str:
    """What OpenSSL says, in words."""
    return (error.reason or str(error)).replace("_", " ").lower()
