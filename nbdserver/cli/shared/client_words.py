"""A client of a server, in words: as `client list`, `status` and `device show` have it."""

from collections.abc import Mapping
from typing import Any

from nbdserver.cli.shared import output


def sentence(attachment: Mapping[str, Any]) -> str:
    """One client in words."""
    known = f"{attachment['id']}: {who(attachment)}"
    if attachment["export"] is None:
        return f"{known}, in its handshake since {output.time(attachment['since'])}"
    marks = "".join(f", {flag}" for flag in flags(attachment))
    return (
        f"{known} on {attachment['export']} since {output.time(attachment['since'])}{marks}, "
        f"{attachment['requests']} requests, {output.size(attachment['bytes_received'])} received, "
        f"{output.size(attachment['bytes_sent'])} sent"
    )


def who(attachment: Mapping[str, Any]) -> str:
    """Its address, and what its certificate says of it."""
    return " ".join([attachment["peer"], *attachment["certificate"]])


def flags(attachment: Mapping[str, Any]) -> list[str]:
    """How it is connected, where that is not the usual."""
    found = [str(attachment["tls"])] if attachment["tls"] else []
    return found + [
        flag.replace("_", "-") for flag in ("structured", "extended", "read_only", "exclusive") if attachment[flag]
    ]
