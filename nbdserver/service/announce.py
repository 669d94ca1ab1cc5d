"""Exports as they are written down for the people and programs that are to attach them."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from nbdserver.config import DEFAULT_PORT
from nbdserver.printable import shell_word

CLIENT_OPTIONS = "-connections 4 -timeout 600 -persist"
"""For nbd-client, which alone of the two brings TLS to the kernel. Several connections, since the kernel's client
serves each by one core; a time-out longer than a bad minute of a store; and clients that attach again by themselves,
where nbd-client is new enough (3.24 is not: there a restart of the server ends the mount)."""

PROGRAM = "nbdserver"

PLACEHOLDER = "HOST"
"""Stands for a name of the server that its certificate confirms and that only its operator knows."""


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP address that is listened on."""

    host: str
    port: int
    tls: bool = False
    """Nothing works without TLS."""
    certified: str | None = None
    """What the server's certificate calls this address; None if it does not name it."""

    @property
    def reachable(self) -> str:
        """An address this machine can connect to; a wildcard is not one."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    @property
    def named(self) -> str:
        """What a client is to call the server. Under TLS that must be what the certificate says: where it has no name
        for a server that listens on all addresses, the reader must know one.
        """
        if self.tls and self.certified is not None:
            return self.certified
        return PLACEHOLDER if self.tls and self.host != self.reachable else self.reachable

    def uri(self, export: str) -> str:
        """The NBD URI of an export."""
        host = f"[{self.named}]" if ":" in self.named else self.named
        port = "" if self.port == DEFAULT_PORT else f":{self.port}"
        return f"{'nbds' if self.tls else 'nbd'}://{host}{port}/{quote(export)}"

    def client_arguments(self) -> str:
        """How `nbd-client` is told this address."""
        return f"{self.named} {self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """A Unix socket that is listened on."""

    path: Path
    tls: bool = False
    """Nothing works without TLS."""

    def uri(self, export: str) -> str:
        """The NBD URI of an export."""
        return f"{'nbds' if self.tls else 'nbd'}+unix:///{quote(export)}?socket={quote(os.fsencode(self.path))}"

    def client_arguments(self) -> str:
        """How `nbd-client` is told this address."""
        return f"-unix {shell_word(str(self.path))}"


Address = Tcp | Unix

TLS_OPTIONS = " -cacertfile ca-cert.pem"
CERTIFICATE_OPTIONS = " -certfile client-cert.pem -keyfile client-key.pem"
"""The client's own files, under the names that certificate folders have for them."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """One export at one address: `attach_line` attaches it to the kernel, run as root."""

    name: str
    uri: str
    attach_line: str


def announce(addresses: list[Address], names: Sequence[str], *, verify_peer: bool = False) -> list[Announcement]:
    """Every export at every address; with `verify_peer` clients need a certificate where they need TLS."""
    program = program_word()
    security = TLS_OPTIONS + (CERTIFICATE_OPTIONS if verify_peer else "")
    lines = []
    for address in addresses:
        for index, name in enumerate(names):
            uri = address.uri(name)
            if address.tls:
                line = f"nbd-client {address.client_arguments()} /dev/nbd{index} -name {shell_word(name)} "
                line += CLIENT_OPTIONS + security
            else:
                line = f"{program} attach {shell_word(uri)}"
            lines.append(Announcement(name, uri, line))
    return lines


def program_word() -> str:
    """What a shell calls this program by: its name where that is found, as in a package; else where it lies."""
    found = shutil.which(PROGRAM)
    here = Path(sys.argv[0]).absolute()
    return PROGRAM if found is not None and here.is_file() and here.samefile(found) else shell_word(str(here))
