"""Whether a device may go on with what its server offers now, after a connection was lost: a decision without I/O."""

from nbdserver.kernel_client.dialing import OfferedExport
from nbdserver.kernel_client.lineage import Lineage, disk_of
from nbdserver.protocol import wire

ABILITIES = {
    wire.FLAG_SEND_FLUSH: "flush",
    wire.FLAG_SEND_FUA: "write with FUA",
    wire.FLAG_SEND_TRIM: "trim",
    wire.FLAG_SEND_WRITE_ZEROES: "write zeroes",
    wire.FLAG_CAN_MULTI_CONN: "several connections at once",
}
"""What the kernel asks for because it was offered when the device was attached, and would ask for again."""


def loss(before: OfferedExport, now: OfferedExport) -> str | None:
    """Why this cannot be the same disk any more, as a sentence; None: nothing says so."""
    if now.size < before.size:
        return f"the export has {now.size} bytes now and had {before.size}: it is another disk, or was cut off"
    return None


def forgotten(since: str | None, lineage: Lineage) -> str | None:
    """Why writes that were answered since an incarnation may be missing; None: they are all there, or nobody knew of
    one when the device was attached."""
    if since is None or lineage.incarnation is None or lineage.unbroken:
        return None
    if disk_of(since) != disk_of(lineage.incarnation):
        return (
            "the export is another disk now: it was deleted and made anew, rolled back, made smaller, a link leads "
            "elsewhere, or its server only reads and shows a newer moment; if that is what you want, attach it again"
        )
    return (
        "the server was lost, and writes that it had answered and that were not flushed may be missing: have the "
        "filesystem checked, let clients in again on the server with `nbdserver client accept`, and attach again"
    )


def hindrance(before: OfferedExport, now: OfferedExport) -> str | None:
    """Why the device must not use the export as it is served now, and waits until it is served as before."""
    if (before.flags ^ now.flags) & wire.FLAG_READ_ONLY:
        return f"the export is {'read-only' if now.flags & wire.FLAG_READ_ONLY else 'writable'} now and was not"
    missing = [name for flag, name in ABILITIES.items() if before.flags & flag and not now.flags & flag]
    if missing:
        return f"the server offers no {missing[0]} any more"
    return None
