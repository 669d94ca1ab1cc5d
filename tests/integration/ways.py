"""The four ways to one running server, and how libnbd's and QEMU's programs are told to go them."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.program import Server

WAYS = ("tcp", "unix", "tls", "tls-unix")


@dataclass(frozen=True, slots=True)
class Way:
    """One of WAYS to a server; `pki` is the folder with certificates."""

    name: str
    server: Server
    pki: Path

    @property
    def is_tls(self) -> bool:
        return self.name.startswith("tls")

    @property
    def is_unix(self) -> bool:
        return self.name.endswith("unix")

    def uri(self, export: str = "disk", *, certificates: bool = True) -> str:
        """For libnbd's programs; some do not take the folder of certificates in it and look in /etc/pki/libnbd."""
        scheme = "nbds" if self.is_tls else "nbd"
        if self.is_unix:
            place, query = f"{scheme}+unix:///{export}", [f"socket={self.server.socket}"]
        else:
            place, query = f"{scheme}://localhost:{self.server.port}/{export}", []
        if self.is_tls:
            query += [f"tls-certificates={self.pki}"] * certificates + ["tls-hostname=localhost"] * self.is_unix
        return place + ("?" + "&".join(query) if query else "")

    @property
    def qemu_object(self) -> tuple[str, ...]:
        """Options of every QEMU program that brings the certificates."""
        if not self.is_tls:
            return ()
        return ("--object", f"tls-creds-x509,id=t,dir={self.pki},endpoint=client")

    def qemu_node(self, export: str = "disk", *, prefix: str = "") -> str:
        """The export as options of a block device, for --image-opts and --blockdev."""
        if self.is_unix:
            server = f"{prefix}server.type=unix,{prefix}server.path={self.server.socket}"
        else:
            host = f"{prefix}server.host=localhost,{prefix}server.port={self.server.port}"
            server = f"{prefix}server.type=inet,{host}"
        tls = f",{prefix}tls-creds=t,{prefix}tls-hostname=localhost" if self.is_tls else ""
        return f"{prefix}driver=nbd,{server},{prefix}export={export}{tls}"

    def qemu_image(self, export: str = "disk") -> str:
        """The export as a raw image, for --image-opts."""
        return f"driver=raw,{self.qemu_node(export, prefix='file.')}"
