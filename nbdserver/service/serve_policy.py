"""What a server was asked to do for its safety: certificates, the access list, and to whom it may
talk in clear.

All of it is checked before a store is opened. `reload` reads the files again; what is wrong then is logged, and
stays as it was.
"""

import ipaddress
import logging
import socket
from typing import Any

from nbdserver.access import AccessList, read_access_list
from nbdserver.config import ServeSettings
from nbdserver.tls import Credentials
from storage.env import Env
from storage.errors import Invalid, StorageError

logger = logging.getLogger("nbdserver")


class ServePolicy:
    """`credentials` and `access`, as far as they were asked for."""

    def __init__(self, settings: ServeSettings, env: Env) -> None:
        """Invalid, AccessDenied: it must not serve like that."""
        self._settings = settings
        self.credentials: Credentials | None = None
        if settings.tls != "off":
            if settings.tls_certificates is None:
                raise Invalid("TLS needs a folder with certificates: give --tls-certificates")
            self.credentials = Credentials(settings.tls_certificates, verify_peer=settings.tls_verify_peer, env=env)
        self.access = self._read_access_list()
        if settings.tcp is not None and settings.tls != "require" and not settings.allow_plaintext:
            _refuse_other_machines(settings.tcp[0], "read and write the disks in clear: use --tls require")
        if settings.dashboard is not None and settings.tls == "off" and not settings.allow_plaintext:
            _refuse_other_machines(settings.dashboard[0], "see the token of the dashboard in clear: use --tls on")

    def expiry(self) -> dict[str, Any] | None:
        """The certificate in use that expires first (see `Credentials.expiry`); None: there is no TLS."""
        return None if self.credentials is None else self.credentials.expiry()

    def reload(self) -> None:
        """Read the files again."""
        try:
            if self.credentials is not None:
                self.credentials.reload()
                logger.info("certificates_reloaded")
        except StorageError as error:
            logger.error("certificates_not_reloaded", extra={"error": str(error)})
        try:
            self.access = self._read_access_list()
            if self.access is not None:
                logger.info("access_list_reloaded", extra={"grants": len(self.access.grants)})
        except StorageError as error:
            logger.error("access_list_not_reloaded", extra={"error": str(error)})

    def _read_access_list(self) -> AccessList | None:
        if self._settings.access is None:
            return None
        access = read_access_list(self._settings.access)
        if access.names_certificates and not self._settings.tls_verify_peer:
            raise Invalid(
                f"the access list {self._settings.access} names certificates, which only --tls-verify-peer checks"
            )
        return access


def _refuse_other_machines(host: str, harm: str) -> None:
    """Invalid: other machines could connect to this address in clear, which would do `harm`. A name that cannot be
    resolved passes: listening will say so."""
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return
    for *_, address in found:
        if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
            raise Invalid(
                f"on {host or 'every address'} whoever is on the network could {harm}, or say --allow-plaintext"
            )
